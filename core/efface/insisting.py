"""Ways back that an interrupt must not cut short."""

from __future__ import annotations

from collections.abc import Callable


def insist(way_back: Callable[[], None]) -> None:
    """Run it, and when something cuts it short run it again before that goes on: it must not mind being run twice."""
    try:
        way_back()
    except BaseException:
        way_back()
        raise
