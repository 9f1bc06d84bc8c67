"""What a plan warns of, each made to happen and made to go away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

import efface
from efface import Editor, Erasure, Registry
from efface.planning import Finding
from efface.testing.pipelines import tiny_pipeline

Erasures = Mapping[str, Erasure]
Found = Callable[..., list[tuple[str, str, tuple[str, ...]]]]


@pytest.fixture
def plan(pipe: Any, registry: Registry, erasures: Erasures) -> Callable[..., tuple[Finding, ...]]:
    """Findings about toy erasures by name, on the shared pipeline."""

    def plan(*names: str, scales: tuple[float, ...] = (), **options: Any) -> tuple[Finding, ...]:
        editor = Editor(pipe, registry=registry, **options)
        return editor.plan(*(erasures[name] for name in names), scales=scales).findings

    return plan


def about(found: tuple[Finding, ...], what: str) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.level, one.labels) for one in found if one.about == what]


def erased(pipe: Any, registry: Registry, text: str, anchor: str, method: str = "tilt") -> Erasure:
    return efface.erase(pipe, text, anchor=anchor, method=method, registry=registry)


# Another base


def test_another_base_is_a_refusal_or_where_it_is_allowed_a_warning(registry: Registry, erasures: Erasures) -> None:
    stranger = tiny_pipeline("sd1", seed=1)
    refused = Editor(stranger, registry=registry).plan(erasures["tilt"])
    assert about(refused.findings, "base") == [("refusal", ("tilt-cat",))]
    assert refused.refusals == refused.warnings == refused.findings
    assert "tilt-cat was fitted on another base (differs by" in str(refused)
    with pytest.raises(efface.WrongBase):
        Editor(stranger, erasures["tilt"], registry=registry)

    with Editor(stranger, erasures["tilt"], registry=registry, allow_other_base=True) as editor:
        allowed = editor.plan()
    assert about(allowed.findings, "base") == [("warning", ("tilt-cat",))]
    assert (allowed.refusals, allowed.warnings) == ((), allowed.findings)


def test_the_same_base_is_no_finding_also_of_what_is_off(plan: Any) -> None:
    assert about(plan("tilt", scales=(0,)), "base") == []


def test_another_base_is_told_of_what_is_off_as_well(registry: Registry, erasures: Erasures) -> None:
    stranger = Editor(tiny_pipeline("sd1", seed=1), registry=registry)
    assert [one.about for one in stranger.plan(erasures["tilt"], scales=[0]).findings] == ["base"]


# Another stack


def test_an_edited_text_encoder_before_others_is_a_warning(plan: Any) -> None:
    assert about(plan("word", "tilt", "bend"), "stack") == [
        ("warning", ("tilt-cat", "word-cat")),
        ("warning", ("bend-cat", "word-cat")),
        ("note", ("bend-cat", "tilt-cat")),
    ]


def test_the_order_of_the_list_does_not_decide_what_comes_before(plan: Any) -> None:
    assert ("warning", ("tilt-cat", "word-cat")) in about(plan("tilt", "word"), "stack")


def test_two_that_edit_one_text_encoder_were_both_fitted_without_the_other(plan: Any) -> None:
    assert about(plan("word", "word dog"), "stack") == [
        ("warning", ("word-cat", "word-dog")),
        ("warning", ("word-dog", "word-cat")),
    ]


def test_maps_of_one_point_do_not_come_before_each_other(plan: Any) -> None:
    assert about(plan("tilt", "tilt dog"), "stack") == []


@dataclass(frozen=True)
class Letter:
    """One change of one layer."""

    name: ClassVar[str] = "letter"
    layer: str = efface.setting("text_encoder.layers.1.mlp.fc2", help="which layer")

    def fit(self, model: efface.Model, request: efface.Request, run: efface.Run) -> efface.Fit:
        return efface.Fit({"change": torch.ones(model.weight(self.layer).flatten(1).shape)})

    def apply(self, patch: efface.Patch, fits: Sequence[efface.Fitted]) -> None:
        for fitted in fits:
            patch.add(self.layer, efface.Dense(fitted.fit.tensors["change"]))


@pytest.fixture
def letters(pipe: Any) -> Callable[..., tuple[Finding, ...]]:
    """Findings about one change of each of these layers."""
    plugin = SimpleNamespace(efface_methods=efface.hookimpl(lambda: [Letter]))
    only = Registry([plugin])

    def letters(*layers: str) -> tuple[Finding, ...]:
        each = [
            efface.erase(pipe, text, anchor="tree", method=Letter(layer), registry=only)
            for text, layer in zip(("cat", "dog"), layers, strict=True)
        ]
        return Editor(pipe, registry=only).plan(*each).findings

    return letters


def test_nor_do_changes_of_one_layer_of_a_text_encoder(letters: Any) -> None:
    layer = "text_encoder.layers.1.mlp.fc2"
    assert about(letters(layer, layer), "stack") == []


def test_a_layer_that_is_no_listed_point_counts_as_the_last_one(letters: Any) -> None:
    value = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
    assert about(letters("unet.conv_in", value), "stack") == [("note", ("letter-cat", "letter-dog"))]


def test_what_is_off_comes_before_nothing(plan: Any) -> None:
    assert about(plan("word", "tilt", scales=(0, 1)), "stack") == []


def test_adapters_are_a_warning(registry: Registry, erasures: Erasures) -> None:
    from peft import LoraConfig

    pipe = tiny_pipeline("sd1")
    editor = Editor(pipe, registry=registry)
    assert about(editor.plan(erasures["tilt"]).findings, "stack") == []
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    (finding,) = editor.plan(erasures["tilt"]).findings
    assert (finding.level, finding.about, finding.labels) == ("warning", "stack", ("tilt-cat",))
    assert finding.text.startswith("adapters (LoRA) are on 32 layers")


# Ways around


def test_image_prompts_are_a_warning_once_the_unet_takes_them_in(plan: Any, project_text: Any) -> None:
    assert about(plan("tilt"), "bypass") == []
    project_text()
    assert about(plan("tilt"), "bypass") == [("warning", ("tilt-cat",))]


def test_precomputed_embeddings_are_a_warning_where_they_are_allowed(plan: Any) -> None:
    usual = [("note", ("word-cat",))]  # the toy does not say what goes around it
    assert about(plan("word"), "bypass") == usual
    assert about(plan("word", allow=("prompt_embeds",)), "bypass") == [*usual, ("warning", ("word-cat",))]
    assert about(plan("tilt", allow=("prompt_embeds",)), "bypass") == []


def test_a_method_that_does_not_say_what_goes_around_it_is_noted(plan: Any) -> None:
    (finding,) = plan("bend")
    assert (finding.level, finding.text) == ("note", "bend-cat: its method does not say what goes around it")


@pytest.fixture(scope="module")
def large(registry: Registry) -> tuple[Any, dict[str, Erasure]]:
    pipe = tiny_pipeline("sdxl")
    return pipe, {name: erased(pipe, registry, "cat", "tree", name) for name in ("tilt", "word", "fade")}


def test_the_pooled_embedding_goes_around_what_edits_the_text_alone(large: Any, registry: Registry) -> None:
    pipe, found = large
    editor = Editor(pipe, registry=registry)
    (finding,) = editor.plan(found["tilt"]).findings
    assert (finding.level, finding.about) == ("warning", "bypass")
    assert finding.text == "the pooled embedding of text_encoder_2 reaches the U-Net around tilt-cat"
    assert [one for one in editor.plan(found["fade"]).findings if "pooled" in one.text] == []


def test_a_second_text_encoder_that_is_not_edited_goes_around_an_edit_of_the_first(
    large: Any, registry: Registry
) -> None:
    pipe, found = large
    _, warning = Editor(pipe, registry=registry).plan(found["word"]).findings
    assert warning == Finding(
        "warning", "bypass", ("word-cat",), "word-cat does not edit text_encoder_2, which reads prompts as well"
    )


# One against the other


def test_one_phrase_erased_twice_at_one_point_goes_too_far(plan: Any, pipe: Any, registry: Registry) -> None:
    assert about(plan("tilt", "tilt"), "repeated") == [("warning", ("tilt-cat", "tilt-cat-2"))]
    assert about(plan("tilt", "bend"), "repeated") == [("note", ("tilt-cat", "bend-cat"))]
    assert about(plan("tilt", "tilt dog"), "repeated") == []
    assert about(plan("tilt", "tilt", scales=(1, 0)), "repeated") == []


def test_a_synonym_is_the_same_phrase_in_any_spelling(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    kitten = efface.erase(pipe, "kitten", anchor="tree", synonyms=["CAT"], method="tilt", registry=registry)
    found = Editor(pipe, registry=registry).plan(erasures["tilt"], kitten).findings
    assert about(found, "repeated") == [("warning", ("tilt-cat", "tilt-kitten"))]


def test_an_anchor_that_another_one_erases_is_a_warning(pipe: Any, registry: Registry, erasures: Erasures) -> None:
    into = erased(pipe, registry, "bird", "Dog")
    found = Editor(pipe, registry=registry).plan(into, erasures["tilt dog"]).findings
    assert about(found, "anchor") == [("warning", ("tilt-bird", "tilt-dog"))]
    assert found[0].text == "tilt-bird turns 'bird' into 'Dog', which tilt-dog erases"
    assert about(Editor(pipe, registry=registry).plan(into, erasures["tilt"]).findings, "anchor") == []


def test_so_is_an_anchor_that_the_same_one_erases(pipe: Any, registry: Registry) -> None:
    concepts = [efface.Concept("cat", anchor="dog"), efface.Concept("dog", anchor="tree")]
    both = efface.erase(pipe, concepts, method="tilt", registry=registry)
    found = Editor(pipe, registry=registry).plan(both).findings
    assert about(found, "anchor") == [("warning", ("tilt-cat",))]
    assert found[0].text == "tilt-cat turns 'cat' into 'dog', which tilt-cat erases"


def test_tensor_edits_at_one_point_run_in_order(plan: Any) -> None:
    assert about(plan("bend", "bend dog"), "order") == [("note", ("bend-cat", "bend-dog"))]
    assert about(plan("tilt", "tilt dog"), "order") == []


def test_a_stacking_method_acts_as_one(plan: Any) -> None:
    (finding,) = (one for one in plan("team", "tilt", "team dog") if one.about == "order")
    assert finding.text == "team-cat and team-dog act as one, at the place of team-cat"


def test_what_could_be_solved_as_one_is_noted(plan: Any, toys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert about(plan("tilt", "tilt dog"), "joint") == []
    monkeypatch.setattr(toys["tilt"], "compose", lambda self, fits, request: None, raising=False)
    assert about(plan("tilt", "bend", "tilt dog"), "joint") == [("note", ("tilt-cat", "tilt-dog"))]
    assert about(plan("tilt", "bend"), "joint") == []


def test_what_could_be_merged_only_is_not_noted(plan: Any, toys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toys["tilt"], "merge", lambda self, fits, request: None, raising=False)
    assert about(plan("tilt", "tilt dog"), "joint") == []


def test_other_settings_are_not_solved_as_one(
    pipe: Any, registry: Registry, erasures: Erasures, toys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    strong = efface.erase(pipe, "fish", anchor="tree", method="tilt", preset="strong", registry=registry)
    monkeypatch.setattr(toys["tilt"], "compose", lambda self, fits, request: None, raising=False)
    assert about(Editor(pipe, registry=registry).plan(erasures["tilt"], strong).findings, "joint") == []


def test_warnings_are_what_a_strict_check_does_not_let_pass(
    plan: Any, pipe: Any, registry: Registry, erasures: Erasures
) -> None:
    found = Editor(pipe, registry=registry).plan(erasures["tilt"], erasures["tilt"], erasures["bend"])
    assert {one.level for one in found.findings} == {"note", "warning"}
    assert {one.level for one in found.warnings} == {"warning"}
    assert found.refusals == ()
