"""Tiny pipelines, and erasures for them with random numbers in place of trained ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import efface
from efface.fingerprint import fingerprint
from efface.settings import build
from efface.testing import FAMILIES, tiny_pipeline
from efface_dumo.attaching import new_modulation
from efface_dumo.branch import Branch, fresh_tensors
from efface_dumo.conditions import names_of
from efface_dumo.dumo import DuMo
from efface_dumo.packing import Part, packed
from efface_dumo.skeleton import config_of
from efface_hooks import Wiring

Maker = Callable[..., efface.Erasure]


@pytest.fixture(scope="session")
def pipes() -> dict[str, Any]:
    return {family: tiny_pipeline(family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def pipe(request: pytest.FixtureRequest, pipes: dict[str, Any]) -> Iterator[Any]:
    """Each family in turn, left without edits."""
    pipe = pipes[request.param]
    yield pipe
    assert Wiring.of(pipe) is None


@pytest.fixture
def sd1(pipes: dict[str, Any]) -> Iterator[Any]:
    pipe = pipes["sd1"]
    yield pipe
    assert Wiring.of(pipe) is None


@pytest.fixture(scope="session")
def invented(pipes: dict[str, Any]) -> Maker:
    """Makes an erasure of the base weights with noise on them and random joints; size 0 for one before its training.

    `numbers` (bins, layers) stand in for the ones of the table. The fingerprint of a pipeline is taken once.
    """
    bases: dict[int, tuple[Any, dict[str, Any]]] = {}

    def make(
        pipe: Any,
        text: str = "cat",
        *,
        seed: int = 0,
        size: float = 0.5,
        numbers: Tensor | None = None,
        concept: efface.Concept | None = None,
        **settings: object,
    ) -> efface.Erasure:
        method = build(DuMo, {"store": "float32", **settings})
        config, points = config_of(pipe.unet), efface.points(pipe, "skip", "mid")
        part = _part(pipe, method, concept or efface.Concept(text), seed, size)
        if numbers is not None:
            part = replace(part, modulation={"table": numbers})
        if id(pipe) not in bases:
            bases[id(pipe)] = pipe, fingerprint(pipe, points)
        return efface.Erasure.of(
            method,
            packed([part], config, pipe.tokenizer.all_special_ids),
            efface.Request((concept or efface.Concept(text),)),
            origin=("efface-dumo", "0.1.0"),
            base=bases[id(pipe)][1],
            points=[point.name for point in points],
        )

    return make


def _part(pipe: Any, method: DuMo, concept: efface.Concept, seed: int, size: float) -> Part:
    generator = torch.Generator().manual_seed(seed)
    fresh = fresh_tensors(pipe.unet, Branch(config_of(pipe.unet), method.table != "blend"))
    tensors = {
        name: tensor + size * 0.1 * torch.randn(tensor.shape, generator=generator) for name, tensor in fresh.items()
    }
    width = pipe.unet.time_embedding.linear_2.out_features
    modulation = new_modulation(method, len(efface.points(pipe, "skip", "mid")), width)
    numbers = {name: tensor.detach().clone() for name, tensor in modulation.state_dict().items()}
    return Part(tensors, numbers, *_named(pipe, concept))


def _named(pipe: Any, concept: efface.Concept) -> tuple[Tensor, tuple[str, ...], list[list[int]]]:
    embeddings, ids = names_of(efface.Model(pipe), concept.phrases)
    return embeddings, concept.phrases, ids


@pytest.fixture(scope="session")
def attached() -> Callable[..., AbstractContextManager[None]]:
    """Puts erasures on a pipeline for a while, without the checks of an Editor, which take most of its time here."""

    @contextmanager
    def attach(pipe: Any, *erasures: efface.Erasure) -> Iterator[None]:
        wiring = Wiring(pipe)
        wiring.set([_patch(pipe, erasure) for erasure in erasures])
        try:
            yield
        finally:
            wiring.clear()

    return attach


def _patch(pipe: Any, erasure: efface.Erasure) -> efface.Patch:
    patch = efface.Patch(pipe)
    build(DuMo, erasure.header.settings).apply(patch, [efface.Fitted(erasure.fit, erasure.request)])
    return patch
