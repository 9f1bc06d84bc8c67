"""What can go wrong between an edit and the model it is on."""

from __future__ import annotations

from collections.abc import Iterable


class HookError(Exception):
    """Base of every error that efface and efface_hooks raise."""


class UnknownPoint(HookError):
    """A name that is no hook point of this pipeline."""


class BadEdit(HookError):
    """An edit that its hook point cannot take: a verb of another kind, a misshapen or non-finite matrix."""


class UnsupportedPipeline(HookError):
    """A pipeline without the parts that hook points live on."""


class AlreadyEdited(HookError):
    """The U-Net carries another owner's edits."""


class EditLost(HookError):
    """Something changed under an attached edit, so that generating would silently leave the edit off."""

    def __init__(self, point: str, cause: str, remedy: str) -> None:
        super().__init__(f"The edit at {point} does not act: {cause}. {remedy}")
        self.point, self.cause, self.remedy = point, cause, remedy


class Displaced(EditLost):
    """An edit whose layer stands elsewhere in the model than it did, where the edit can follow it."""


class BypassedError(EditLost):
    """Embeddings that were not made by the edited text encoder reached the U-Net."""


class NotInThisPass(HookError):
    """A `Call` was asked for something that the running forward pass does not have."""


def listed(names: Iterable[str], limit: int = 12) -> str:
    """Names joined for an error message, with a count in place of the ones left out."""
    known = list(names)
    shown = ", ".join(known[:limit])
    return f"{shown}, ... ({len(known)} in all)" if len(known) > limit else shown
