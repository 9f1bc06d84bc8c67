"""A thousand phrases are read in batches, and a run that was cut off goes on with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import efface
from efface.testing import tiny_pipeline

CONCEPTS = [efface.Concept(f"cat {index}", anchor="dog" if index % 2 else "a fish") for index in range(70)]


class Cut(Exception):
    """Stands for a power cut."""


def fitted(pipe: Any, folder: Path | None = None, cut_at: int | None = None) -> efface.Erasure:
    def progress(done: int, total: int, what: str) -> None:
        if what == "encoding prompts" and done == cut_at:
            raise Cut

    return efface.erase(pipe, CONCEPTS, method="uce", folder=folder, progress=progress)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tiny_pipeline("sd1")


def test_a_run_that_was_cut_off_goes_on_to_the_same_file(pipe: Any, tmp_path: Path) -> None:
    fitted(pipe).save(tmp_path / "at-once")
    with pytest.raises(Cut):
        fitted(pipe, tmp_path / "state", cut_at=64)
    kept = {path: path.read_bytes() for path in (tmp_path / "state").iterdir()}
    assert len(kept) == 1
    fitted(pipe, tmp_path / "state").save(tmp_path / "resumed")
    assert (tmp_path / "resumed").read_bytes() == (tmp_path / "at-once").read_bytes()
    assert {path: path.read_bytes() for path in kept} == kept


def test_what_was_kept_is_read_and_not_encoded_again(pipe: Any, tmp_path: Path, monkeypatch: Any) -> None:
    fitted(pipe, tmp_path)
    asked: list[str] = []
    encode = efface.Model.encode_phrases

    def listening(self: efface.Model, phrases: Any, templates: Any, batch_size: int = 64) -> efface.Encoded:
        asked.extend(phrases)
        return encode(self, phrases, templates, batch_size)

    monkeypatch.setattr(efface.Model, "encode_phrases", listening)
    fitted(pipe, tmp_path)
    assert asked == ["a fish", "dog"] * 2, "once for each batch"


def test_another_model_does_not_read_what_was_kept_for_this_one(pipe: Any, tmp_path: Path) -> None:
    fitted(pipe, tmp_path)
    other = tiny_pipeline("sd1", seed=1)
    assert torch.equal(fitted(other, tmp_path).fit.tensors["targets"], fitted(other).fit.tensors["targets"])


def test_a_changed_embedding_of_an_erased_word_alone_is_seen(tmp_path: Path) -> None:
    """As textual inversion changes a model: no anchor holds the word, so all anchors are encoded as before."""
    pipe = tiny_pipeline("sd1")
    before = fitted(pipe, tmp_path)
    (cat,) = pipe.tokenizer("cat", add_special_tokens=False).input_ids
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight[cat] *= 1.5
    found = fitted(pipe, tmp_path).fit.tensors["targets"]
    assert torch.equal(found, fitted(pipe).fit.tensors["targets"])
    assert not torch.equal(found, before.fit.tensors["targets"])


def test_without_a_folder_no_fingerprint_is_made_for_checkpoints(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("efface_uce.gathering.fingerprint", fail)
    fitted(pipe)
