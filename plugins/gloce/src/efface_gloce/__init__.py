"""GLoCE (Lee, Lim and Chun, CVPR 2025, arXiv 2503.12356) as an efface plugin."""

import efface


@efface.hookimpl
def efface_methods() -> list[type[efface.Method]]:
    from efface_gloce.gloce import GLoCE

    return [GLoCE]
