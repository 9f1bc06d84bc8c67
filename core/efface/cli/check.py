"""`efface check`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from efface.cli.console import Console
from efface.cli.opening import open_model
from efface.cli.options import command, dtype_option, json_option, pass_console, quiet_option

if TYPE_CHECKING:
    from efface.policy import Mismatch, Policy
    from efface.registry import Registry


@command("efface check efface.toml", "efface check efface.toml --json")
@click.argument("policy")
@dtype_option
@json_option
@quiet_option
@pass_console
@click.pass_context
def check(ctx: click.Context, console: Console, policy: str, dtype: str) -> None:
    """Say whether everything is as a POLICY file pinned it.

    Compared are files, digests, versions of plugins and the model's weights. The exit code is 1 if anything is not, and
    each such thing is named.
    """
    from efface.policy import Policy, erasures_of
    from efface.registry import Registry

    with console.working():
        wanted = Policy.load(policy)
        registry = Registry.installed()
        found = erasures_of(wanted, registry)[1] + _model(console, wanted, registry, dtype)
    lines = [f"{one.about}: {one.text}" for one in found] or [f"{policy}: all as pinned"]
    console.answer({"file": policy, "mismatches": [asdict(one) for one in found]}, lines)
    ctx.exit(1 if found else 0)


def _model(console: Console, policy: Policy, registry: Registry, dtype: str) -> list[Mismatch]:
    """What does not match about the model; that it cannot be loaded is one such thing."""
    from efface.errors import UnknownModel
    from efface.policy import Mismatch, model_of

    try:
        return model_of(policy, open_model(console, str(policy.source), registry, dtype=dtype))
    except UnknownModel as error:
        return [Mismatch("model", policy.model, str(error))]
