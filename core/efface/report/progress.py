"""Progress that says whose it is."""

from __future__ import annotations

from efface.method import Progress


def named(name: str, progress: Progress) -> Progress:
    """The same progress with a name before what is being done."""

    def show(done: int, total: int, what: str) -> None:
        progress(done, total, f"{name}: {what}")

    return show
