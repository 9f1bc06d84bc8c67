"""Which method erases which concept of a stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from efface.concept import Request
from efface.report.demonstration import Skipped
from efface.report.stopwatch import Stopwatch
from efface.report.supply import Supply, Taken

NONE_LEFT = "no method is left to erase it"
TOO_MANY = "there are more methods than concepts"


@dataclass(frozen=True)
class Dealt:
    """What was dealt: a method's erasure and the seconds of its fit, in the order of the concepts, by their texts.

    `missing`: methods that have none, `failures`: concepts that nothing erases, each with the reason.
    """

    taken: dict[str, tuple[str, Taken, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def dealt(supply: Supply, requests: Sequence[Request], methods: Sequence[str], left: Callable[[], float]) -> Dealt:
    """Concepts in order to methods in turn; `left` gives the seconds left for fits.

    A method without time and file drops out, and the next one gets its concept. Every request has one concept, with
    its anchor.
    """
    found, waiting, idle = Dealt(), list(methods), set(methods)
    for request in requests:
        concept = request.concepts[0].text
        found.failures[concept] = NONE_LEFT
        while waiting:
            method, watch = waiting.pop(0), Stopwatch()
            try:
                taken = supply.take(method, request, request, left(), watch)
            except Exception as error:  # a plugin's fault costs its own concept and no other
                found.failures[concept] = f"{method}: {type(error).__name__}: {' '.join(str(error).split())}"
                idle.discard(method)
                waiting.append(method)
                break
            idle.discard(method)
            if isinstance(taken, Skipped):
                found.missing[method] = taken.why
                continue
            waiting.append(method)
            del found.failures[concept]
            found.taken[concept] = method, taken, watch.seconds.get("fit", 0.0)
            break
    found.missing.update((method, TOO_MANY) for method in waiting if method in idle)
    return found
