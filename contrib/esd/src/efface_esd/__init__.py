"""Erased Stable Diffusion (Gandikota et al., ICCV 2023, arXiv 2303.07345) as an efface plugin."""

import efface


@efface.hookimpl
def efface_methods() -> list[type[efface.Method]]:
    from efface_esd.esd import ESD

    return [ESD]
