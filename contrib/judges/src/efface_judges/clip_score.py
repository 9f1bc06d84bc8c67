"""CLIP score (Hessel et al., EMNLP 2021), on the scale of percent that papers on erasure use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

    from efface_judges.clip import Clip


def clip_scores(clip: Clip, images: Sequence[Image], prompts: Sequence[str]) -> NDArray[np.float64]:
    """100 max(cos, 0) between each picture and its own prompt, (n,); the paper has 2.5 in place of 100."""
    cosines: NDArray[np.float64] = (clip.pictures(images) * clip.texts(prompts)).sum(1)
    return np.maximum(100 * cosines, 0)
