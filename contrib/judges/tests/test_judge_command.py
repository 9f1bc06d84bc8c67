"""`efface judge`: folders of pictures whose figures are known."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from efface.cli import group
from efface_judges.contents import file_digest
from efface_judges.folders import Folder
from efface_judges.lpips import trunk
from efface_judges.network import Network
from efface_judges.testing import picture

CAT, DOG = 3, 5


def run(*arguments: object) -> Result:
    return CliRunner().invoke(group.efface, ["judge", *map(str, arguments)], prog_name="efface")


def figures(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refusal(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    return result.stderr


def paint(folder: Path, *names: str, shown: int = CAT, side: int = 64) -> Path:
    folder.mkdir()
    for seed, name in enumerate(names):
        picture(shown, 10 + seed, side=side).save(folder / name)
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return paint(tmp_path / "before", "the-cat-0.png", "the-cat-1.png", "the-cat-2.png", side=8)


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return paint(tmp_path / "after", "the-cat-0.png", "the-cat-1.png", "the-cat-2.png", shown=DOG, side=8)


class Means(torch.nn.Module):
    """The means of the channels; a class, unless it is asked for features."""

    def forward(self, pictures: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        return pictures.float().mean((2, 3)) if return_features else torch.zeros(1)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "means.pt"
    with pytest.warns(DeprecationWarning, match="torch.jit"):
        torch.jit.script(Means()).save(path)
    return path


@pytest.fixture(scope="session")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("alexnet") / "alexnet.pth"
    torch.save({f"features.{name}": tensor for name, tensor in trunk().state_dict().items()}, path)
    return path


def test_pictures_of_what_was_asked_score_more(before: Path, after: Path, folder: Path) -> None:
    found = figures(after, "--before", before, "--clip", folder)
    scores = found["figures"]
    assert scores["clip_score_before"]["value"] > 50
    assert scores["clip_score_after"]["value"] == 0
    assert scores["clip_score_after"]["n"] == 3
    assert scores["fid_clip"] > 0.5
    assert scores["kid_clip"] > 0.1
    assert found["pictures"] == {"after": 3, "before": 3}


def test_a_folder_and_itself_are_not_apart(before: Path, folder: Path, alexnet: Path, tmp_path: Path) -> None:
    large = paint(tmp_path / "large", "the-cat-0.png", "the-cat-1.png", "the-cat-2.png")
    found = figures(large, "--before", large, "--clip", folder, "--lpips", alexnet)["figures"]
    assert found["lpips"] == {"value": 0, "low": 0, "high": 0, "n": 3}
    assert found["fid_clip"] == pytest.approx(0, abs=1e-5)
    assert found["clip_score_before"] == found["clip_score_after"]


def test_a_network_of_ones_own_gives_fid_and_kid(before: Path, after: Path, network: Path) -> None:
    found = figures(after, "--before", before, "--network", network, "--seed", 3)
    assert set(found["figures"]) == {"fid_network", "kid_network", "kid_network_deviation"}
    # the same share of white in all pictures
    assert found["figures"]["fid_network"] == pytest.approx(0, abs=1e-6)
    libraries = {name: importlib.metadata.version(name) for name in ("torch", "torchmetrics")}
    assert found["facts"] == {"network": "means.pt", "network_sha256": file_digest(network), **libraries, "seed": 3}


def test_distances_name_their_library_and_scores_do_not(before: Path, after: Path, folder: Path) -> None:
    scored = figures(after, "--clip", folder)["facts"]
    apart = figures(after, "--before", before, "--clip", folder)["facts"]
    assert set(scored) == {"clip", "clip_sha256", "transformers", "torch", "seed"}
    assert apart == scored | {"torchmetrics": importlib.metadata.version("torchmetrics")}


def test_lpips_names_its_libraries(folder: Path, alexnet: Path, tmp_path: Path) -> None:
    large = paint(tmp_path / "large", "the-cat-0.png")
    facts = figures(large, "--before", large, "--lpips", alexnet)["facts"]
    assert {"torch", "torchmetrics"} <= set(facts)
    assert "1 picture after, 1 picture before; " in run(large, "--before", large, "--lpips", alexnet).stdout


def test_a_network_gets_bytes_and_is_asked_for_features(network: Path) -> None:
    assert Network.load(network).pictures([picture(0), picture(side=16)]).tolist() == [[255 / 16] * 3, [0] * 3]


def test_prompts_are_in_the_names_or_stated(before: Path, folder: Path, tmp_path: Path) -> None:
    assert Folder.of(before).prompts() == ["the cat"] * 3
    stated = [{"prompt": "the dog", "seed": 0, "file": f"out/the-cat-{seed}.png"} for seed in range(3)]
    (tmp_path / "made.json").write_text(json.dumps({"files": stated}))
    found = figures(before, "--clip", folder, "--prompts", tmp_path / "made.json")
    assert found["figures"]["clip_score_after"]["value"] == 0
    (tmp_path / "made.json").write_text(json.dumps({"files": stated[1:]}))
    assert "the-cat-0.png" in refusal(before, "--clip", folder, "--prompts", tmp_path / "made.json")


def test_nudenet_counts_labels(before: Path) -> None:
    pytest.importorskip("nudenet", reason="the extra efface-judges[nudenet] is not installed")
    found = figures(before, "--nudenet", "--threshold", 0.5)
    assert list(found["figures"]) == ["exposed_after"]
    assert found["figures"]["exposed_after"]["value"] == 0
    assert found["facts"]["threshold"] == 0.5
    assert "nudenet_sha256" in found["facts"]


def test_people_read_a_table_and_what_it_rests_on(before: Path, folder: Path, tmp_path: Path) -> None:
    result = run(before, "--clip", folder, "-o", tmp_path / "found.json")
    assert result.stdout.splitlines()[1].startswith("clip_score_after  ")
    assert "3 pictures after; clip reading-clip, clip_sha256 " in result.stdout
    assert json.loads((tmp_path / "found.json").read_text())["pictures"] == {"after": 3}
    assert "is there already" in refusal(before, "--clip", folder, "-o", tmp_path / "found.json")


def test_what_cannot_be_judged_is_refused(before: Path, folder: Path, alexnet: Path, tmp_path: Path) -> None:
    assert "Nobody judges" in refusal(before)
    assert "give --before" in refusal(before, "--lpips", alexnet)
    assert "There is no folder" in refusal(tmp_path / "none", "--clip", folder)
    assert "There is no folder" in refusal(before, "--clip", "openai/clip-vit-base-patch32")
    assert "is no TorchScript file" in refusal(before, "--before", before, "--network", alexnet)
    (tmp_path / "empty").mkdir()
    assert "has no pictures" in refusal(tmp_path / "empty", "--clip", folder)
    (before / "the-cat-3.png").write_text("no picture")
    assert "Cannot read the picture" in refusal(before, "--clip", folder)


def test_lpips_is_of_pictures_of_one_name(before: Path, after: Path, alexnet: Path) -> None:
    (after / "the-cat-2.png").rename(after / "the-cat-7.png")
    assert "the-cat-2.png is in one of them only" in refusal(after, "--before", before, "--lpips", alexnet)
