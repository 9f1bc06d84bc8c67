"""The trajectories of a fit: sizes, schedulers, windows, and how many calls they take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler

import efface
from efface.testing import tiny_pipeline
from efface_gloce.gloce import GLoCE
from efface_gloce.presets import PRESETS

Fit = Callable[..., efface.Erasure]
Calls = Callable[[], tuple[int, int]]


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_oblong_pictures_of_any_size_can_be_fitted(family: Any, quick: Fit) -> None:
    erasure = quick(tiny_pipeline(family), settings={"height": 20, "width": 36})
    assert all(tensor.isfinite().all() for tensor in erasure.tensors.values())


@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler])
def test_other_schedulers_can_be_fitted_and_give_the_same_twice(scheduler: Any, quick: Fit) -> None:
    pipe = tiny_pipeline("sd1")
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    assert quick(pipe) == quick(pipe)


def test_without_guidance_only_the_prompts_run(pipe: Any, quick: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    predict = efface.Model.predict
    monkeypatch.setattr(
        efface.Model, "predict", lambda self, latents, *rest: rows.append(len(latents)) or predict(self, latents, *rest)
    )
    quick(pipe, settings={"guidance": 1.0})
    quick(pipe)
    assert rows == [6, 6, 2, 2, 12, 12, 4, 4]


def test_a_window_without_a_step_is_refused_before_anything_runs(pipe: Any) -> None:
    with pytest.raises(
        efface.BadSetting, match=r"No step of DDIMScheduler with 2 steps is .* 775 and 591; they are: 501, 1"
    ):
        efface.erase(pipe, "cat", anchor="fish", method="gloce", settings={"steps": 2})


def test_a_size_that_no_picture_has_is_refused(pipe: Any, quick: Fit) -> None:
    with pytest.raises(efface.BadSetting, match=r"width \(33\) is not a multiple of 2, the pixels of one latent"):
        quick(pipe, settings={"width": 33})


def test_progress_says_what_is_collected(pipe: Any, quick: Fit) -> None:
    said: list[tuple[int, int, str]] = []
    quick(pipe, progress=lambda *now: said.append(now))
    assert said == [
        (1, 2, "features"),
        (2, 2, "features"),
        (1, 2, "thresholds from the boundary"),
        (2, 2, "thresholds from the boundary"),
    ]


@pytest.mark.parametrize(
    ("preset", "calls", "heard"),
    [
        ("persons", 21, 10),
        ("persons-late", 21, 10),
        ("artists", 50, 49),
        ("explicit", 21, 10),
        ("explicit-late", 21, 15),
    ],
)
def test_presets_make_as_many_calls_as_the_published_scripts(preset: str, calls: int, heard: int, pipe: Any) -> None:
    sampling = GLoCE(**PRESETS[preset]).sampling  # type: ignore[arg-type]
    assert (sampling.calls(pipe), sampling.heard(pipe)) == (calls, heard)


def test_a_celebrity_costs_63_calls_beside_what_is_shared(pipe: Any, calls: Calls, tmp_path: Path) -> None:
    """The published schedule makes 567 for each: 21 calls x 3 seeds x (3 + 1 + 1 + 1 + 3) prompts."""
    settings = {"boundary": "dog", "mapping": "fish", "mappings": 0}
    counted = []
    for name in ("cat", "bird"):
        person = efface.Concept(name, anchor="", kind="person")
        found = efface.erase(pipe, [person], method="gloce", preset="persons", settings=settings, folder=tmp_path)
        assert found.header.report["U-Net calls"]["target"] == 63
        counted.append(calls()[1])
    assert counted == [63 + 63 + 63 + 63, 63 + 63]
