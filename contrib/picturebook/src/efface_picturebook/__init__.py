"""A small, real Stable Diffusion pipeline: what efface's demo, tests and figures run on."""

from pathlib import Path

import efface


def weights() -> Path:
    """Folder of the shipped pipeline, in diffusers' standard layout."""
    return Path(__file__).parent / "weights"


@efface.hookimpl
def efface_models() -> list[efface.NamedModel]:
    """Offer the shipped pipeline under the name picturebook."""
    return [
        efface.NamedModel(
            name="picturebook",
            summary="12 drawn objects, 8 colours, 4 styles at 64 x 64; runs on a laptop CPU",
            path=weights,
            neutral="a picture",
        )
    ]
