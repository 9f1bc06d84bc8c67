"""Adaptive value decomposition (Wang et al., CVPR 2025, arXiv 2412.06143) as an efface plugin."""

import efface


@efface.hookimpl
def efface_methods() -> list[type[efface.Method]]:
    from efface_adavd.adavd import AdaVD

    return [AdaVD]
