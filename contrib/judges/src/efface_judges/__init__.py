"""Suites and metrics for pictures of real models, judged by networks that lie on this machine."""

from __future__ import annotations

import efface
from efface_judges.artists import Artists
from efface_judges.explicit import Explicit
from efface_judges.mass import Mass
from efface_judges.objects import Objects

__all__ = ["Artists", "Explicit", "Mass", "Objects"]


@efface.hookimpl
def efface_suites() -> list[efface.Suite]:
    return [Objects(), Artists(), Explicit(), Mass()]
