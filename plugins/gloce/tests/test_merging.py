"""Merged erasures act as their stack does, to the last bit, and a concept that is taken out was never there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.testing import FAMILIES, tiny_pipeline
from efface_gloce.artifact import packed, unpacked
from efface_gloce.gated import Terms
from efface_gloce.gloce import _order

Draw = Callable[..., Tensor]
Fit = Callable[..., efface.Erasure]
Change = Callable[[efface.Erasure, float], efface.Erasure]

CATS = (efface.Concept("cat", "fish", ("kitten",)), efface.Concept("red car", "house"))
PROMPTS = ("a cat", "a flower")
ONE = {"seeds": 1}


def same_tensors(one: efface.Erasure, other: efface.Erasure) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(one.tensors[name], tensor) for name, tensor in other.tensors.items()
    )


@pytest.fixture(scope="module", params=FAMILIES)
def each(request: pytest.FixtureRequest, quick: Fit, with_threshold: Change) -> tuple[Any, list[efface.Erasure]]:
    """A pipeline of each family with three erasures of it."""
    pipe = tiny_pipeline(request.param)
    return pipe, fitted(pipe, quick, with_threshold)


@pytest.fixture(scope="module")
def files(pipe: Any, quick: Fit, with_threshold: Change) -> list[efface.Erasure]:
    return fitted(pipe, quick, with_threshold)


def fitted(pipe: Any, quick: Fit, with_threshold: Change) -> list[efface.Erasure]:
    """Three erasures with gates that are open in places: of two concepts, of one, and of one that shares an anchor."""
    found = [
        quick(pipe, CATS, keep=["a bird"], settings=ONE),
        quick(pipe, efface.Concept("skull", "tree"), seed=3, settings=ONE),
        quick(pipe, efface.Concept("flower", "fish"), keep=["a house"], settings=ONE),
    ]
    return [with_threshold(one, 0.1) for one in found]


def pictures(pipe: Any, latents: Draw, erasures: Sequence[efface.Erasure]) -> Tensor:
    with efface.Editor(pipe, *erasures):
        return latents(pipe, list(PROMPTS), 2)


def test_the_merged_file_acts_as_the_stack_of_the_files(
    each: tuple[Any, list[efface.Erasure]], latents: Draw, tmp_path: Any
) -> None:
    pipe, files = each
    merged, stacked = efface.compose(*files), pictures(pipe, latents, files)
    assert not torch.equal(stacked, pictures(pipe, latents, files[:1]))
    assert torch.equal(pictures(pipe, latents, [merged]), stacked)
    for index, erasure in enumerate([merged, *files]):
        erasure.save(tmp_path / f"{index}.safetensors")
    first, *rest = (efface.Erasure.load(tmp_path / f"{index}.safetensors") for index in range(4))
    assert torch.equal(pictures(pipe, latents, [first]), stacked)
    assert torch.equal(pictures(pipe, latents, rest), stacked)


def test_it_acts_beside_another_file_as_all_files_do(pipe: Any, files: list[efface.Erasure], latents: Draw) -> None:
    two = efface.compose(*files[:2])
    assert torch.equal(pictures(pipe, latents, [two, files[2]]), pictures(pipe, latents, files))


@pytest.mark.parametrize(("gone", "left"), [(("skull",), (0, 2)), (("cat", "red car"), (1, 2)), (("flower",), (0, 1))])
def test_without_a_concept_it_acts_as_the_stack_of_the_other_files(
    gone: Sequence[str], left: Sequence[int], each: tuple[Any, list[efface.Erasure]], latents: Draw
) -> None:
    pipe, files = each
    fewer = efface.compose(efface.compose(*files), remove=gone)
    others = [files[index] for index in left]
    assert torch.equal(pictures(pipe, latents, [fewer]), pictures(pipe, latents, others))
    assert same_tensors(fewer, efface.compose(*others))


@pytest.mark.parametrize("index", range(3))
def test_merged_and_taken_out_again_it_is_the_file_that_was_there(index: int, files: list[efface.Erasure]) -> None:
    gone = [concept.text for other in files if other is not files[index] for concept in other.concepts]
    again = efface.compose(efface.compose(*files), remove=gone)
    assert same_tensors(again, files[index])
    for field in ("facts", "request", "seed", "settings", "points", "tensors"):
        assert getattr(again.header, field) == getattr(files[index].header, field)


def test_one_of_a_files_own_concepts_comes_out(pipe: Any, files: list[efface.Erasure], latents: Draw) -> None:
    left = efface.compose(files[0], remove=["cat"])
    assert [concept.text for concept in left.concepts] == ["red car"]
    (row,) = ({point: layer.at([1]) for point, layer in unpacked(one.fit).items()} for one in files[:1])
    tensors, _ = packed(row, [])
    assert all(torch.equal(left.tensors[name], tensor) for name, tensor in tensors.items())
    assert not torch.equal(pictures(pipe, latents, [left]), pictures(pipe, latents, files[:1]))


def test_what_concepts_share_is_kept_once(files: list[efface.Erasure]) -> None:
    twin = efface.Erasure(renamed(files[1], "wolf"), files[1].tensors)
    merged = efface.compose(files[1], twin)
    assert merged.header.facts["rows"] == {"centre": [0, 0], "mapping": [0, 0]}
    own = {name for name in merged.tensors if name.rpartition(".")[2] not in ("centre", "map_basis", "map_mean")}
    for name, tensor in merged.tensors.items():
        assert torch.equal(tensor, torch.cat([files[1].tensors[name]] * (2 if name in own else 1)))


def test_the_report_tells_of_the_concepts_that_are_there(files: list[efface.Erasure]) -> None:
    merged = efface.compose(*files).header.report
    each = [one.header.report for one in files]
    assert list(merged["words"]) == ["cat", "red car", "skull", "flower"]
    assert merged["words"] == each[0]["words"] | each[1]["words"] | each[2]["words"]
    assert set(merged["thresholds"]) == set(merged["words"])
    assert merged["thresholds"]["cat"]["median"] == pytest.approx(0.1)
    assert "U-Net calls" not in merged
    unclear = {name: bases for one in each for name, bases in one.get("bases that are not well defined", {}).items()}
    assert merged.get("bases that are not well defined", {}) == unclear
    fewer = efface.compose(*files, remove=["cat", "skull"]).header.report
    assert list(fewer["words"]) == list(fewer["thresholds"]) == ["red car", "flower"]
    named = {name.partition(":")[0] for name in fewer.get("bases that are not well defined", {})}
    assert named <= {"red car", "flower"}


def test_concepts_of_lower_rank_come_out_as_they_were(files: list[efface.Erasure]) -> None:
    """Fits with equal settings have equal ranks; imported checkpoints may not."""
    narrow = efface.Erasure(*of_rank_one(files[1]))
    merged = efface.compose(narrow, files[2])
    widths = {tensor.shape[2] for name, tensor in merged.tensors.items() if name.endswith((".map_basis", ".update"))}
    assert widths == {2}
    assert same_tensors(efface.compose(merged, remove=["flower"]), narrow)
    assert same_tensors(efface.compose(merged, remove=["skull"]), files[2])


def test_the_order_of_a_stack_is_not_that_of_the_layers_in_a_file(files: list[efface.Erasure]) -> None:
    """Names in a file are sorted, those of a fit are in forward order."""
    layers = unpacked(efface.compose(*files).fit)
    layers = {point: replace(layer, threshold=torch.arange(4.0)) for point, layer in layers.items()}
    terms = [Terms(eta=1.0, first=1000, last=0)] * 4
    turned = {point: layers[point] for point in reversed(layers)}
    assert _order(layers, terms) == _order(turned, terms) != [0, 1, 2, 3]


def test_files_of_another_precision_are_not_merged(files: list[efface.Erasure]) -> None:
    wide = {name: tensor.double() for name, tensor in files[1].tensors.items()}
    specs = {name: replace(spec, dtype="float64") for name, spec in files[1].header.tensors.items()}
    with pytest.raises(efface.EffaceError, match="float32 and float64 cannot be merged bit for bit; attach both"):
        efface.compose(files[0], efface.Erasure(replace(files[1].header, tensors=specs), wide))


def test_other_settings_are_attached_not_merged(pipe: Any, quick: Fit, files: list[efface.Erasure]) -> None:
    """They would form one stack: two methods are equal, whatever their settings."""
    other = quick(pipe, "bird", settings=ONE | {"tau": 1.5})
    with pytest.raises(efface.BadSetting, match=r"other settings: tau 0\.5 and 1\.5; attach both files instead"):
        efface.compose(files[0], other)


def renamed(erasure: efface.Erasure, text: str) -> Any:
    concept = replace(erasure.concepts[0], text=text)
    return replace(erasure.header, request=replace(erasure.request, concepts=(concept,)))


def of_rank_one(erasure: efface.Erasure) -> tuple[Any, dict[str, Tensor]]:
    """The erasure with the first direction alone of what the concept becomes."""
    tensors = {
        name: tensor[..., :1].clone() if name.endswith((".map_basis", ".update")) else tensor
        for name, tensor in erasure.tensors.items()
    }
    specs = {name: replace(erasure.header.tensors[name], shape=tuple(one.shape)) for name, one in tensors.items()}
    return replace(erasure.header, tensors=specs), tensors
