"""A feature network from a TorchScript file, such as the Inception network that papers on FID use."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from efface_judges.contents import file_digest, versions
from efface_judges.errors import BadJudge

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH = 32


class Network:
    """Takes pictures as bytes (n, 3, H, W), as NVIDIA's inception-2015-12-05.pt does, and gives features (n, D).

    A network that has the argument `return_features` gets it, because that file answers with classes otherwise.
    """

    def __init__(self, module: Any, path: Path) -> None:
        self.module = module
        self.path = path
        arguments = [one.name for one in module.forward.schema.arguments]
        self.asked = {"return_features": True} if "return_features" in arguments else {}

    @classmethod
    def load(cls, file: str | Path) -> Network:
        """BadJudge for a file that is missing or holds no TorchScript."""
        path = Path(file).expanduser()
        if not path.is_file():
            raise BadJudge(f"There is no file {path}: a feature network is a TorchScript file")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is what such networks come as
                module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise BadJudge(f"{path} is no TorchScript file: {str(error).splitlines()[0]}") from error
        return cls(module, path)

    @property
    def facts(self) -> dict[str, str | float]:
        return {"network": self.path.name, "network_sha256": file_digest(self.path), **versions("torch")}

    @torch.no_grad()
    def pictures(self, images: Sequence[Image]) -> NDArray[np.float64]:
        """Features of pictures, (n, D)."""
        found = [self._features(batch) for batch in _batches(images)]
        return np.concatenate(found).astype(np.float64)

    def _features(self, images: Sequence[Image]) -> NDArray[np.float32]:
        pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
        found = self.module(torch.from_numpy(pixels).permute(0, 3, 1, 2), **self.asked)
        if found.dim() != 2 or len(found) != len(images):
            raise BadJudge(f"{self.path} answers {len(images)} pictures with {tuple(found.shape)}, not with features")
        answer: NDArray[np.float32] = found.float().numpy()
        return answer


def _batches(images: Sequence[Image]) -> Iterator[Sequence[Image]]:
    """Pictures in their order, so many at once, of one size each."""
    first = 0
    while first < len(images):
        last = first + 1
        while last < len(images) and last - first < BATCH and images[last].size == images[first].size:
            last += 1
        yield images[first:last]
        first = last
