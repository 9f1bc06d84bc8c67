"""`efface pin`."""

from __future__ import annotations

from pathlib import Path

import click

from efface.cli.console import Console
from efface.cli.opening import open_model, strengths
from efface.cli.options import (
    command,
    json_option,
    model_argument,
    other_base_option,
    pass_console,
    quiet_option,
    scale_option,
)
from efface.cli.targets import check_target
from efface.cli.wording import counted


@command(
    "efface pin picturebook --erasure uce-cat.safetensors --erasure uce-skull.safetensors",
    "efface pin picturebook --erasure uce-cat.safetensors --scale 0.8 -o app/efface.toml",
)
@model_argument
@click.option("--erasure", "files", multiple=True, required=True, help="An erasure's file; their order is kept.")
@scale_option
@other_base_option
@click.option("-o", "--output", default="efface.toml", show_default=True, help="The policy file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@json_option
@quiet_option
@pass_console
def pin(
    console: Console,
    model: str,
    files: tuple[str, ...],
    scales: tuple[float, ...],
    allow_other_base: bool,
    output: str,
    force: bool,
) -> None:
    """Write a policy file: a model, its erasures, their digests.

    It holds their order and scales, too. `efface check` says later whether what is there is still this; `efface.apply`
    puts it on a pipeline.
    """
    from efface.policy import pin as pinned
    from efface.registry import Registry

    strong, target = strengths(scales, len(files)), Path(output)
    with console.working():
        check_target(target, force)
        registry = Registry.installed()
        pipe = open_model(console, model, registry)
        policy = pinned(pipe, model, files, target, scales=strong, allow_other_base=allow_other_base, registry=registry)
        policy.save()
        console.written.append(target)
    lines = [f"{one.file} {one.plugin or one.method} {one.version} scale {one.scale:g}" for one in policy.erasures]
    data = {"file": str(target), "model": policy.model, "erasures": [vars(one) for one in policy.erasures]}
    console.answer(data, [*lines, f"{target}, {counted(len(lines), 'erasure')} on {policy.model}"])
