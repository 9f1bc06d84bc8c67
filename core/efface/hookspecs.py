"""The hooks that a plugin may implement; each is called once per plugin, never inside a forward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from efface.method import Method
    from efface.named import NamedModel
    from efface.suite import Suite
    from efface_hooks import HookPoint

PROJECT = "efface"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def efface_methods() -> list[type[Method]]:  # type: ignore[empty-body]
    """The methods of erasure that the plugin brings."""


@hookspec
def efface_models() -> list[NamedModel]:  # type: ignore[empty-body]
    """The models that the plugin brings along, each under a short name."""


@hookspec
def efface_suites() -> list[Suite]:  # type: ignore[empty-body]
    """What the plugin can measure erasures with, on the models that it accepts."""


@hookspec
def efface_points(pipe: Any) -> list[HookPoint]:  # type: ignore[empty-body]
    """Hook points that the plugin knows on this pipeline beyond the ones efface finds itself."""
