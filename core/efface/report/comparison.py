"""The same pictures without and with erasures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from efface.editor import Editor, Entry
from efface.method import Progress, silent
from efface.report.change import changes, mean
from efface.report.progress import named
from efface.report.sampling import Sampling
from efface.report.stopwatch import Stopwatch
from efface.report.subject import shown_name

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Comparison:
    """Pictures prompt by prompt and seed by seed, before and after, and how much each one changed."""

    model: str
    entries: tuple[Entry, ...]
    sampling: Sampling
    base: tuple[Image, ...]
    edited: tuple[Image, ...]
    changes: tuple[float, ...]
    seconds: dict[str, float]

    @classmethod
    def of(cls, editor: Editor, sampling: Sampling, model: str, progress: Progress = silent) -> Comparison:
        """What an editor's erasures change: pictures with all of them off, then as the editor has them."""
        sampling.check(editor.pipe)
        watch = Stopwatch()
        enabled = [entry.label for entry in editor.entries if entry.enabled]
        editor.disable()
        try:
            with watch.timing("base images"):
                base = sampling.pictures(editor.pipe, named("before", progress))
        finally:
            if enabled:
                editor.enable(*enabled)
        with watch.timing("edited images"):
            edited = sampling.pictures(editor.pipe, named("after", progress))
        acting = tuple(entry for entry in editor.entries if entry.acts)
        return cls(shown_name(model), acting, sampling, base, edited, changes(base, edited), watch.seconds)

    def to_json(self) -> dict[str, Any]:
        rows = zip(self.sampling.prompts, self.sampling.by_prompt(self.changes), strict=True)
        return {
            "model": self.model,
            "erasures": [_shown(entry) for entry in self.entries],
            "sampling": self.sampling.to_json(),
            "mean_absolute_pixel_change": [
                {"prompt": prompt.text, "mean": mean(row), "by_seed": list(row)} for prompt, row in rows
            ],
            "seconds": dict(self.seconds),
        }


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "label": entry.label,
        "method": entry.erasure.method,
        "concepts": [concept.to_json() for concept in entry.erasure.concepts],
        "scale": entry.scale,
        "sha256": entry.erasure.digest,
    }
