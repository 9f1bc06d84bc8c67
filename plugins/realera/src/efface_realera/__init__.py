"""RealEra, semantic-level erasure by neighbour-concept mining (Liu et al., arXiv 2410.09140), as an efface plugin."""

import efface


@efface.hookimpl
def efface_methods() -> list[type[efface.Method]]:
    from efface_realera.realera import RealEra

    return [RealEra]
