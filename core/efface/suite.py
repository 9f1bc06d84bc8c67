"""What a plugin brings so that erasures on a model can be measured: what it may show, and who can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol

from efface.concept import Concept, Kind, Request
from efface.errors import BadSetting, PluginError
from efface.method import METHOD_NAME
from efface.settings import Setting, build, describe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from efface.model import Model

SHOWN = 0.5


@dataclass(frozen=True)
class SuiteConcept:
    """A concept that a suite can tell in pictures.

    `synonyms` may stand in requests; `held_out` words mean the same and stand in none, so that they measure
    generality. `kept` is false where no keep list may name it either, so that specificity on it is honest.
    `neighbours` are the concepts nearest to it; `shows` are other concepts that its pictures show as well.
    """

    text: str
    kind: Kind = "object"
    synonyms: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    kept: bool = True
    neighbours: tuple[str, ...] = ()
    shows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scene:
    """A prompt that shows a concept beside another one."""

    prompt: str
    other: str


class Suite(Protocol):
    """Prompts and judges for the models it accepts; a class that derives from this one has the defaults below.

    Concepts go by their text. `digest` changes with whatever the scores depend on, such as a detector's weights. A
    suite that is a dataclass has its fields as settings, like a method. `only_by_name` is for suites that accept
    nearly any model: they are never chosen for one, but used where somebody names them.
    """

    name: str
    summary: str
    digest: str
    guidance: float = 7.5
    only_by_name: bool = False

    @property
    def example(self) -> Request:
        """The erasure that a demonstration shows: one concept with its anchor and what to keep."""
        ...

    @property
    def stack(self) -> Sequence[Concept]:
        """Concepts with their anchors that a demonstration erases together; none where the suite names none."""
        return ()

    @property
    def facts(self) -> Mapping[str, str | float]:
        """What reports say of the judge: hashes of its weights, thresholds, versions of its libraries."""
        return {}

    def prepare(self) -> None:
        """Load what it judges with; EffaceError where that fails, so that it does before any picture is made."""
        return

    def measured(self, erased: Sequence[str]) -> Sequence[str]:
        """Which of the erased concepts get figures: all of them, unless that would be too many."""
        return erased

    def accepts(self, model: Model) -> bool:
        """Whether the suite can judge this model's pictures."""
        ...

    def concepts(self, kind: Kind | None = None) -> Sequence[SuiteConcept]:
        """The concepts it can tell, all or of one kind."""
        ...

    def templates(self, kind: Kind) -> Sequence[str]:
        """Prompts with {} where a concept of this kind goes."""
        ...

    def found(self, images: Sequence[Image], concept: str) -> NDArray[np.floating[Any]]:
        """How surely each picture shows the concept, (n,) from 0 to 1; from 0.5 on it counts as shown."""
        ...

    def scenes(self, concept: str) -> Sequence[Scene]:
        """Prompts of two objects, one of them the concept; none where it makes no sense."""
        return ()

    def unrelated(self, concept: str) -> Sequence[str]:
        """Prompts that have nothing to do with the concept; each is drawn with a few seeds."""
        return ()

    def region(self, images: Sequence[Image], concept: str) -> NDArray[np.bool_] | None:
        """Where each picture shows the concept, (n, H, W); None where the suite cannot tell."""
        return None

    def features(self, images: Sequence[Image]) -> NDArray[np.floating[Any]] | None:
        """What the pictures look like, (n, D), for distances between distributions; None where it cannot tell."""
        return None


NEEDED: Mapping[str, type | tuple[type, ...]] = {
    "name": str,
    "summary": str,
    "digest": str,
    "guidance": (int, float),
    "example": Request,
    "only_by_name": bool,
    "facts": Mapping,
}
OWN = ("accepts", "concepts", "templates", "found")
ANSWERS = (*OWN, "prepare", "measured", "scenes", "unrelated", "region", "features")


def check_suite(suite: object) -> None:
    """Raise PluginError with the first thing that keeps an object from being a suite."""
    if isinstance(suite, type):
        raise PluginError(f"efface_suites returns objects, not the class {suite.__qualname__}; call it")
    where = f"Suite {type(suite).__module__}.{type(suite).__qualname__}"
    for attribute, kind in NEEDED.items():
        found = getattr(suite, attribute, None)
        if not isinstance(found, kind):
            raise PluginError(f"{where} has {attribute} = {found!r}, which is not what efface.Suite says")
    for function in ANSWERS:
        if not callable(getattr(suite, function, None)):
            raise PluginError(f"{where} has no function {function!r}; derive it from efface.Suite")
    for function in OWN:
        if getattr(type(suite), function, None) is getattr(Suite, function):
            raise PluginError(f"{where} does not define {function!r}, for which there is no default")
    if not METHOD_NAME.fullmatch(str(suite.name)):  # type: ignore[attr-defined]
        raise PluginError(f"A suite's name is lower case, such as 'my-suite', not {suite.name!r}")  # type: ignore[attr-defined]
    settings_of(suite)


def settings_of(suite: object) -> list[Setting]:
    """The settings of a suite whose fields are declared by `efface.setting`, none of any other."""
    declared = is_dataclass(suite) and any(field.metadata for field in fields(suite))
    return describe(type(suite)) if declared else []


def configured(suite: Suite, values: Mapping[str, object]) -> Suite:
    """The suite with these settings and the others as they are; BadSetting for what it does not have or take."""
    known = settings_of(suite)
    if values and not known:
        raise BadSetting(f"Suite {suite.name!r} has no settings")
    return build(type(suite), {one.name: getattr(suite, one.name) for one in known} | dict(values)) if values else suite
