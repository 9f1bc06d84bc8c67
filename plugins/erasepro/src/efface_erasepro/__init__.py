"""ErasePro (Chen et al., arXiv 2508.04472) as an efface plugin: zero-residual erasure by progressive alignment."""

import efface


@efface.hookimpl
def efface_methods() -> list[type[efface.Method]]:
    from efface_erasepro.erasepro import ErasePro

    return [ErasePro]
