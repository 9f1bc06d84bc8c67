"""A small, real Stable Diffusion pipeline, and the suite that measures erasures on it."""

from __future__ import annotations

from pathlib import Path

import efface


def weights() -> Path:
    """Folder of the shipped pipeline, in diffusers' standard layout."""
    return Path(__file__).parent / "weights"


def erasures() -> Path:
    """Folder of fitted erasures that come with the pipeline."""
    return Path(__file__).parent / "erasures"


@efface.hookimpl
def efface_models() -> list[efface.NamedModel]:
    """Offer the shipped pipeline under the name picturebook."""
    return [
        efface.NamedModel(
            name="picturebook",
            summary="12 drawn objects, 8 colours, 4 styles at 64 x 64; runs on a laptop CPU",
            path=weights,
            neutral="a picture",
            erasures=erasures,
        )
    ]


@efface.hookimpl
def efface_suites() -> list[efface.Suite]:
    """Offer the suite that judges picturebook's pictures."""
    from efface_picturebook.suite import PicturebookSuite

    return [PicturebookSuite()]
