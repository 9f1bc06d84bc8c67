"""How far two sets of pictures are apart in the features of a network: FID and KID, by torchmetrics."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from efface_judges.contents import versions
from efface_judges.errors import BadPictures

Features = NDArray[np.float64]

SUBSETS = 100
SUBSET = 1000


class Given(nn.Module):
    """Stands where torchmetrics has a network: its pictures are features (n, D) already."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, features: Tensor) -> Tensor:
        return features


def facts() -> dict[str, str]:
    """What the distances depend on besides the features."""
    return versions("torchmetrics")


def fid(one: Features, other: Features) -> float:
    """Fréchet distance of the Gaussians with the sets' means and covariances (Heusel et al., NeurIPS 2017).

    It falls with the number of pictures; sets of other sizes, or of fewer pictures than features, do not compare.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    return float(_filled(FrechetInceptionDistance, one, other).compute())


def kid(one: Features, other: Features, *, seed: int = 0) -> tuple[float, float]:
    """Squared kernel distance (Bińkowski et al., ICLR 2018): mean and standard deviation over 100 random subsets.

    Subsets have 1,000 pictures, or as many as the smaller set has. Around 0 for two sets of one kind, so also below.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(len(one), len(other), SUBSET)
    metric = _filled(KernelInceptionDistance, one, other, subsets=SUBSETS, subset_size=size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def _filled(metric: Any, one: Features, other: Features, **how: int) -> Any:
    """A metric of torchmetrics with both sets in it."""
    if min(len(one), len(other)) < 2:
        raise BadPictures(f"A distance of sets needs two pictures in each, not {len(one)} and {len(other)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that features are kept in memory, which is what we want
        made = metric(feature=Given(one.shape[1]), **how).set_dtype(torch.float64)
    made.update(torch.from_numpy(one), real=True)
    made.update(torch.from_numpy(other), real=False)
    return made
