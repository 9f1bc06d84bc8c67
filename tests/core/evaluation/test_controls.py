"""Controls act where they say, draw from nobody's random numbers, and come off without a trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.evaluation.controls import CONTROLS, control
from efface_hooks import Wiring

Latents = Callable[..., Tensor]


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_acts_and_comes_off(
    shared: Any, latents: Latents, state: Callable[[Any], Any], name: str, family: str
) -> None:
    pipe = shared(family)
    before, picture = state(pipe), latents(pipe)
    with control(pipe, name):
        changed = latents(pipe)
        assert torch.equal(latents(pipe), changed), "the same latents have the same noise"
    assert (changed - picture).abs().max() > 1e-3
    assert state(pipe) == before
    assert torch.equal(latents(pipe), picture)


def test_blank_prompts_all_look_alike(pipe: Any, latents: Latents) -> None:
    with control(pipe, "blank"):
        assert torch.equal(latents(pipe, "a cat"), latents(pipe, "a house by van gogh"))


def test_noise_is_as_strong_as_what_it_replaces_and_different_everywhere(pipe: Any, latents: Latents) -> None:
    points = efface.Model(pipe).points("cross_attn.out")
    seen: dict[str, list[Tensor]] = {point.name: [] for point in points}
    usual: dict[str, list[Tensor]] = {point.name: [] for point in points}

    def keep(book: dict[str, list[Tensor]], name: str) -> Callable[[Any, Any, Tensor], None]:
        return lambda module, args, output: book[name].append(output.clone())

    def listen(book: dict[str, list[Tensor]]) -> list[Any]:
        return [pipe.unet.get_submodule(point.path).register_forward_hook(keep(book, point.name)) for point in points]

    before = listen(usual)  # runs before the control's hook
    with control(pipe, "noise"):
        after = listen(seen)
        latents(pipe, "a cat", steps=2)
    for hook in (*before, *after):
        hook.remove()
    assert len(points) > 3
    for name in seen:
        for given, replaced in zip(seen[name], usual[name], strict=True):
            ratio = given.std(dim=(1, 2)) / replaced.std(dim=(1, 2))
            assert given[0].numel() < 256 or ratio.log().abs().max() < 0.3, "a sample of some hundred numbers"
            assert not torch.allclose(given[0] / given[0].std(), given[1] / given[1].std()), "one noise for each row"
    noises = [given[0].flatten()[:16] / given[0].std() for found in seen.values() for given in found]
    assert len({tuple(noise.round(decimals=3).tolist()) for noise in noises}) == len(noises), "places and times differ"


def test_a_control_leaves_the_random_numbers_alone(pipe: Any) -> None:
    before = torch.get_rng_state()
    with control(pipe, "noise"):
        pipe("a cat", num_inference_steps=1, generator=torch.Generator().manual_seed(0), output_type="latent")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_control_comes_off_after_an_error(pipe: Any, state: Callable[[Any], Any]) -> None:
    before = state(pipe)
    with pytest.raises(RuntimeError, match="broken"), control(pipe, "noise"):
        raise RuntimeError("broken")
    assert state(pipe) == before


def test_a_control_does_not_mix_with_an_editor(pipe: Any, registry: efface.Registry, erasures: Any) -> None:
    with (
        efface.Editor(pipe, erasures["tilt"], registry=registry),
        pytest.raises(efface.AlreadyEdited),
        control(pipe, "blank"),
    ):
        pass
    assert Wiring.of(pipe) is None


def test_an_unknown_control_is_answered_with_the_ones_there_are(pipe: Any) -> None:
    with (
        pytest.raises(efface.EffaceError, match="No control 'blanc'; there are: blank, noise"),
        control(pipe, "blanc"),
    ):
        pass
