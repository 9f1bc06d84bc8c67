"""What this package refuses."""

from __future__ import annotations

from efface.errors import EffaceError


class BadJudge(EffaceError):
    """A network to judge with that is missing, damaged or another one than was asked for."""


class BadPictures(EffaceError):
    """Folders of pictures that cannot be read, or that cannot be set against each other."""
