"""Which modules a chain names, and which of them reach the picture at all."""

from __future__ import annotations

from typing import Any

import pytest

import efface
from efface.testing import tiny_pipeline
from efface_erasepro.chain import chain

DEFAULT = ("text_encoder*.v_proj", "text_encoder*.fc2", "unet.text")


def names(places: tuple[efface.HookPoint, ...]) -> list[str]:
    return [place.name for place in places]


def test_a_chain_runs_from_shallow_to_deep_whatever_the_order_of_its_selectors(model: efface.Model) -> None:
    points = model.points()
    found = chain(points, DEFAULT, None)
    assert names(found.modules) == [
        f"text_encoder.layers.{depth}.{module}" for depth in range(3) for module in ("self_attn.v_proj", "mlp.fc2")
    ]
    assert names(found.closing) == ["unet.text"]
    assert found.unread == ()
    assert chain(points, DEFAULT[::-1], None) == found


def test_selectors_may_name_keys_and_values_in_place_of_the_text(model: efface.Model) -> None:
    found = chain(model.points(), ("unet.*attn2.to_k", "unet.*attn2.to_v"), None)
    assert found.modules == ()
    assert list(found.closing) == model.points("cross_attn.k", "cross_attn.v")


def test_the_text_and_its_readers_are_not_both_edited(model: efface.Model) -> None:
    with pytest.raises(efface.BadSetting, match=r"names unet\.text and keys or values, which read it"):
        chain(model.points(), ("unet.text", "unet.*attn2.to_k"), None)


@pytest.mark.parametrize("selector", ["text_encoder*.nothing", "unet.skip.*"])
def test_a_selector_that_matches_nothing_editable_is_refused_with_examples(model: efface.Model, selector: str) -> None:
    with pytest.raises(efface.BadSetting, match=r"matches no editable point.*text_encoder\.layers\.0\.mlp\.fc2"):
        chain(model.points(), (selector,), None)


def test_blocks_that_clip_skip_leaves_out_are_not_edited(model: efface.Model) -> None:
    found = chain(model.points(), DEFAULT, 1)
    assert {place.depth for place in found.modules} == {0, 1}
    assert found.unread == ("text_encoder.layers.2.self_attn.v_proj", "text_encoder.layers.2.mlp.fc2")


@pytest.mark.parametrize(("clip_skip", "deepest"), [(None, 1), (1, 0)])
def test_of_two_text_encoders_both_are_edited_but_for_their_last_blocks(clip_skip: int | None, deepest: int) -> None:
    pipe: Any = tiny_pipeline("sdxl")
    found = chain(efface.Model(pipe).points(), DEFAULT, clip_skip)
    for component in ("text_encoder", "text_encoder_2"):
        depths = {place.depth for place in found.modules if place.component == component}
        assert depths == set(range(deepest + 1))
    assert all(".layers.2." in name or not deepest for name in found.unread)
