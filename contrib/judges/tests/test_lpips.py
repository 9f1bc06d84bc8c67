"""LPIPS of pictures whose distance is known, with AlexNet's weights drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from efface_judges.contents import file_digest
from efface_judges.errors import BadJudge, BadPictures
from efface_judges.lpips import Lpips, heads, trunk

CHANNELS = [64, 192, 384, 256, 256]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = trunk().state_dict()
    return {f"features.{name}": tensor for name, tensor in drawn.items()}


@pytest.fixture(scope="module")
def file(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(weights | {"classifier.1.weight": torch.zeros(2)}, path)
    return path


@pytest.fixture(scope="module")
def lpips(file: Path) -> Lpips:
    return Lpips.load(file)


def noisy(amount: float) -> Image.Image:
    generator = np.random.default_rng(0)
    still, noise = generator.integers(0, 256, (2, 64, 64, 3))
    return Image.fromarray(((1 - amount) * still + amount * noise).astype(np.uint8))


def test_a_picture_is_like_itself(lpips: Lpips) -> None:
    assert lpips.distances([noisy(0), noisy(1)], [noisy(0), noisy(1)]).tolist() == [0, 0]


def test_the_distance_grows_with_the_distortion(lpips: Lpips) -> None:
    amounts = (0.1, 0.3, 0.6, 1.0)
    found = lpips.distances([noisy(0)] * len(amounts), [noisy(amount) for amount in amounts])
    assert found[0] > 0
    assert (np.diff(found) > 0).all()


def test_both_ways_are_the_same(lpips: Lpips) -> None:
    there, back = lpips.distances([noisy(0), noisy(0.5)], [noisy(0.5), noisy(0)])
    assert there == back


def test_opposite_features_are_apart_by_twice_their_weights() -> None:
    """One layer, two channels that swap: unit features (1, 0) and (0, 1) differ by 1 in each."""
    network = Lpips(trunk(), [torch.tensor([0.25, 0.5])], {})
    network._features = lambda picture: [picture]  # type: ignore[method-assign]
    one, other = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    one[:, 0], other[:, 1] = 5, 0.2
    assert float(network.distance(one, other)) == pytest.approx(0.75)


def test_it_is_what_torchmetrics_computes(lpips: Lpips, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchmetrics' own network around the same trunk, which it would otherwise download."""
    import torchmetrics.functional.image.lpips as theirs

    class Trunk(torch.nn.Module):
        def __init__(self, **how: Any) -> None:
            super().__init__()

        def forward(self, pictures: torch.Tensor) -> list[torch.Tensor]:
            found = []
            for place, layer in enumerate(lpips.layers):
                pictures = layer(pictures)
                if place in (1, 4, 7, 9, 11):
                    found.append(pictures)
            return found

    monkeypatch.setattr(theirs, "Alexnet", Trunk)
    network = theirs._LPIPS(net="alex").eval()
    one, other = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = network(one, other).flatten()
        # their features are divided by the root of 1e-8 plus their squares, the paper's by 1e-10 plus their norm
        assert torch.allclose(lpips.distance(one, other), expected, rtol=1e-3)


def test_the_weightings_are_the_papers_five() -> None:
    assert [len(one) for one in heads()] == CHANNELS
    assert all((one >= 0).all() for one in heads())


def test_it_says_what_it_is(lpips: Lpips, file: Path) -> None:
    assert lpips.facts["lpips_sha256"] == file_digest(file)
    assert lpips.facts["lpips"] == "alexnet.pth"
    assert "torchmetrics" in lpips.facts


def test_safetensors_are_the_same(lpips: Lpips, weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(weights, tmp_path / "alexnet.safetensors")
    other = Lpips.load(tmp_path / "alexnet.safetensors")
    assert other.distances([noisy(0)], [noisy(1)]) == lpips.distances([noisy(0)], [noisy(1)])


def test_another_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadJudge, match=r"There is no file .*none.pth: LPIPS takes torchvision's AlexNet"):
        Lpips.load(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(BadJudge, match="Cannot read weights from"):
        Lpips.load(tmp_path / "text.pth")
    torch.save({"features.0.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(BadJudge, match="has no weights of torchvision's AlexNet"):
        Lpips.load(tmp_path / "other.pth")


def test_pictures_have_one_size_that_is_large_enough(lpips: Lpips) -> None:
    small, large = Image.new("RGB", (32, 64)), Image.new("RGB", (64, 80))
    with pytest.raises(BadPictures, match="LPIPS needs 63 pixels on each side, not 32 x 64"):
        lpips.distances([small], [small])
    with pytest.raises(BadPictures, match=r"pictures of one size, not \(64, 64\) and \(64, 80\)"):
        lpips.distances([noisy(0)], [large])
