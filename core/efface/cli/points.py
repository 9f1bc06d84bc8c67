"""`efface points`."""

from __future__ import annotations

from dataclasses import asdict

import click

from efface.cli.console import Console, table
from efface.cli.opening import open_model
from efface.cli.options import command, dtype_option, json_option, model_argument, pass_console, quiet_option


@command("efface points picturebook", "efface points picturebook --kind 'cross_attn.*' --kind skip")
@model_argument
@click.option("--kind", "kinds", multiple=True, help="Only points of this kind; 'cross_attn.*' is all of them.")
@dtype_option
@json_option
@quiet_option
@pass_console
def points(console: Console, model: str, kinds: tuple[str, ...], dtype: str) -> None:
    """List the places of a model that can be edited, in forward order."""
    from efface.model import Model
    from efface.registry import Registry

    with console.working():
        registry = Registry.installed()
        found = Model(open_model(console, model, registry, dtype=dtype), registry).points(*kinds)
    rows = [(one.name, one.kind, one.component, one.depth, one.in_features, one.out_features) for one in found]
    console.answer([asdict(one) for one in found], table(("name", "kind", "component", "depth", "in", "out"), rows))
