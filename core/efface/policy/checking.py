"""Whether what is here is what a policy pinned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from efface.erasure import Erasure
from efface.errors import BadArtifact, EffaceError
from efface.policy.identity import digests, precisions
from efface.policy.policy import PinnedErasure, Policy
from efface.registry import Registry, canonical


@dataclass(frozen=True)
class Mismatch:
    """One thing that is not as pinned: what kind of thing, its name, and in words how it differs."""

    about: Literal["file", "sha256", "plugin", "model"]
    name: str
    text: str


def erasures_of(policy: Policy, registry: Registry) -> tuple[list[Erasure], list[Mismatch]]:
    """The erasures of a policy that can be read, in order, and everything about them that does not match."""
    read: list[Erasure] = []
    found: list[Mismatch] = []
    for pinned in policy.erasures:
        try:
            read.append(Erasure.load(policy.place(pinned.file)))
            found += _content(pinned, read[-1], registry)
        except BadArtifact as error:
            found.append(Mismatch("file", pinned.file, str(error)))
        found += _plugin(pinned, registry)
    return read, found


def model_of(policy: Policy, pipe: Any) -> list[Mismatch]:
    """Every component of a pipeline whose weights are not the pinned ones."""
    return list(_model(policy, pipe))


def _content(pinned: PinnedErasure, erasure: Erasure, registry: Registry) -> Iterator[Mismatch]:
    if erasure.digest != pinned.sha256:
        text = f"{pinned.file} has sha256 {erasure.digest[:12]}..., pinned is {pinned.sha256[:12]}..."
        yield Mismatch("sha256", pinned.file, text)
    if erasure.method != pinned.method:
        text = f"{pinned.file} is by the method {erasure.method!r}, pinned is {pinned.method!r}"
        yield Mismatch("file", pinned.file, text)
    try:
        registry.method_of(erasure.header)
    except EffaceError as error:
        yield Mismatch("plugin", pinned.plugin, f"{pinned.file}: {error}")


def _plugin(pinned: PinnedErasure, registry: Registry) -> Iterator[Mismatch]:
    """A plugin that is not there, is switched off, or has another version than the pinned one."""
    if not pinned.plugin:
        return
    name = canonical(pinned.plugin)
    versions = {one.version for one in registry.plugins() if one.distribution == name and not one.disabled}
    if not versions:
        text = f"{pinned.file} needs the plugin {pinned.plugin} {pinned.version}, which is not installed or disabled"
        yield Mismatch("plugin", pinned.plugin, text)
    elif pinned.version not in versions:
        text = f"{pinned.file} needs {pinned.plugin} {pinned.version}; installed is {', '.join(sorted(versions))}"
        yield Mismatch("plugin", pinned.plugin, text)


def _model(policy: Policy, pipe: Any) -> Iterator[Mismatch]:
    have = precisions(pipe)
    known = [dtype for dtype in policy.digests if dtype in have.values()]
    found = digests(pipe, known)
    for name in dict.fromkeys([*have, *(name for each in policy.digests.values() for name in each)]):
        dtype = have.get(name)
        if dtype is None:
            yield Mismatch("model", name, f"the model has no {name}; {policy.model} was pinned with one")
        elif dtype not in known:
            text = f"{name} is in {dtype}, in which it was not pinned (pinned: {', '.join(policy.digests)})"
            yield Mismatch("model", name, text)
        elif found[dtype][name] != policy.digests[dtype].get(name):
            yield Mismatch("model", name, f"the weights of {name} are not those that were pinned of {policy.model}")


def in_a_line(found: Sequence[Mismatch]) -> str:
    return "; ".join(one.text for one in found)
