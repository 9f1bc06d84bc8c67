"""LPIPS (Zhang et al., CVPR 2018) with AlexNet: how different two pictures look.

torchmetrics and the package lpips download AlexNet through torchvision. Here its file is named by the user, and the
network is written out, so that nothing is downloaded and torchvision is not needed. The learned weights of the
features are those of the paper's version 0.1, which torchmetrics carries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from efface_judges.contents import file_digest, versions
from efface_judges.errors import BadJudge, BadPictures

if TYPE_CHECKING:
    from PIL.Image import Image

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
TAPS = (1, 4, 7, 9, 11)
TINY = 1e-10
LEAST = 63


def trunk() -> nn.Sequential:
    """The convolutions of AlexNet, numbered as in torchvision's weights."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )


class Lpips:
    """A trunk with the weights (C,) that the features after each of its five layers count with."""

    def __init__(self, layers: nn.Sequential, heads: Sequence[Tensor], facts: Mapping[str, str]) -> None:
        self.layers = layers.eval()
        self.heads = heads
        self.facts = facts

    @classmethod
    def load(cls, weights: str | Path) -> Lpips:
        """With the AlexNet of a file, torchvision's alexnet-owt-7be5be79.pth or the same as safetensors."""
        path, layers = Path(weights).expanduser(), trunk()
        tensors = _tensors(path)
        try:
            layers.load_state_dict(
                {name.removeprefix("features."): one for name, one in tensors.items() if name.startswith("features.")}
            )
        except RuntimeError as error:
            raise BadJudge(f"{path} has no weights of torchvision's AlexNet: {str(error).splitlines()[-1]}") from error
        facts = {"lpips": path.name, "lpips_sha256": file_digest(path), **versions("torch", "torchmetrics")}
        return cls(layers, heads(), facts)

    @torch.no_grad()
    def distances(self, one: Sequence[Image], other: Sequence[Image]) -> NDArray[np.float64]:
        """The distance of each pair of pictures, (n,); 0 for a picture and itself."""
        return np.array([float(self._pair(a, b)) for a, b in zip(one, other, strict=True)])

    def distance(self, one: Tensor, other: Tensor) -> Tensor:
        """Pictures (n, 3, H, W) from -1 to 1: squared differences of unit features, weighted, meaned over places."""
        pairs = zip(self._features(one), self._features(other), self.heads, strict=True)
        parts = [((_unit(a) - _unit(b)) ** 2 * head[:, None, None]).sum(1).mean((1, 2)) for a, b, head in pairs]
        return torch.stack(parts).sum(0)

    def _pair(self, one: Image, other: Image) -> Tensor:
        if one.size != other.size:
            raise BadPictures(f"LPIPS is for pictures of one size, not {one.size} and {other.size}")
        return self.distance(_pixels(one), _pixels(other))[0]

    def _features(self, pictures: Tensor) -> list[Tensor]:
        x = (pictures - torch.tensor(SHIFT)[:, None, None]) / torch.tensor(SCALE)[:, None, None]
        found = []
        for place, layer in enumerate(self.layers):
            x = layer(x)
            if place in TAPS:
                found.append(x)
        return found


def heads() -> list[Tensor]:
    """The five weightings of the paper's version 0.1."""
    import torchmetrics.functional.image as package

    stored = torch.load(Path(package.__path__[0]) / "lpips_models" / "alex.pth", weights_only=True, map_location="cpu")
    return [stored[f"lin{place}.model.1.weight"].flatten() for place in range(len(TAPS))]


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    if not path.is_file():
        raise BadJudge(f"There is no file {path}: LPIPS takes torchvision's AlexNet, alexnet-owt-7be5be79.pth")
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise BadJudge(f"Cannot read weights from {path}: {str(error).splitlines()[0]}") from error
    return dict(found)


def _pixels(image: Image) -> Tensor:
    """A picture as floats from -1 to 1, (1, 3, H, W)."""
    if min(image.size) < LEAST:
        raise BadPictures(f"LPIPS needs {LEAST} pixels on each side, not {image.width} x {image.height}")
    pixels: Tensor = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


def _unit(features: Tensor) -> Tensor:
    """Features (n, C, h, w) of length 1 at each place."""
    unit: Tensor = features / (features.norm(dim=1, keepdim=True) + TINY)
    return unit
