"""What efface refuses, and how it says so: one line that names the thing and lists the alternatives."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from efface_hooks.errors import HookError, listed


class EffaceError(HookError):
    """Base of the errors that efface itself raises."""


class PluginError(EffaceError):
    """A plugin that breaks the contract, or one name that several plugins claim."""


class UnknownPlugin(EffaceError):
    """A name that is no installed plugin or distribution."""


class UnknownMethod(EffaceError):
    """A name that no loaded plugin gives to a method."""


class UnknownModel(EffaceError):
    """A name that no loaded plugin gives to a model."""


class UnknownSuite(EffaceError):
    """A name that no loaded plugin gives to a suite, or a model that no suite accepts."""


class BadSetting(EffaceError):
    """A hyper-parameter that the method does not have, or a value it cannot take."""


class BadConcept(EffaceError):
    """A concept or request that contradicts itself or says nothing."""


class BadArtifact(EffaceError):
    """An erasure that is damaged, unsafe, inconsistent or written by a newer efface."""


class CannotSave(EffaceError):
    """A file that could not be written; whatever was at its path is still there."""


class WrongBase(EffaceError):
    """An erasure that was made for another base model."""


class PolicyError(EffaceError):
    """A policy file that cannot be read, or one that does not match what is here."""


def unknown(what: str, name: str, known: Iterable[str], have: str = "installed") -> str:
    """One line for a name that is not there: what there is, and the nearest of it as a suggestion."""
    names = sorted(known)
    if not names:
        return f"No {what} {name!r}; {have}: none."
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"No {what} {name!r}; {have}: {listed(names)}.{hint}"
