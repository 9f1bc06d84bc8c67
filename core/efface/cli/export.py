"""`efface export`."""

from __future__ import annotations

from pathlib import Path

import click

from efface.cli.console import Console
from efface.cli.opening import erasures_on, open_model, read_erasures, strengths
from efface.cli.options import (
    command,
    json_option,
    other_base_option,
    pass_console,
    quiet_option,
    scale_option,
)
from efface.cli.targets import check_target
from efface.cli.wording import counted, size


@command(
    "efface export uce-cat.safetensors --model picturebook --to diffusers-lora -o no-cat.safetensors",
    "efface export uce-cat.safetensors uce-dog.safetensors --model picturebook --to kohya-lora -o none.safetensors",
)
@click.argument("files", nargs=-1, required=True)
@click.option("--model", required=True, help="The model that the erasures were made for.")
@click.option("--to", "form", type=click.Choice(["diffusers-lora", "kohya-lora"]), required=True, help="The format.")
@click.option("-o", "--output", required=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Overwrite the file if it is there.")
@scale_option
@other_base_option
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the file.",
)
@json_option
@quiet_option
@pass_console
def export(
    console: Console,
    files: tuple[str, ...],
    model: str,
    form: str,
    output: str,
    force: bool,
    scales: tuple[float, ...],
    allow_other_base: bool,
    dtype: str,
) -> None:
    """Write the erasures in FILES as one LoRA.

    Other programs load it without efface. Exact up to rounding for erasures that change weights. An erasure that acts
    on features has no such form and is refused by name.
    """
    from efface.export import lora
    from efface.registry import Registry

    strong, target = strengths(scales, len(files)), Path(output)
    with console.working():
        check_target(target, force)
        erasures = read_erasures(files)
        registry = Registry.installed()
        pipe = open_model(console, model, registry)
        with erasures_on(pipe, files, erasures, strong, registry=registry, allow_other_base=allow_other_base) as editor:
            made = lora(editor, form, dtype)  # type: ignore[arg-type]  # click has checked it
        made.save(target)
        console.written.append(target)
    ranks = sorted(set(made.ranks.values()))
    length, before = target.stat().st_size, sum(Path(file).stat().st_size for file in files)
    data = {"file": str(target), "format": form, "layers": len(made.ranks), "ranks": ranks, "bytes": length}
    shown = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
    console.answer(
        data | {"erasure_bytes": before},
        [f"{target}, {size(length)}: {counted(len(made.ranks), 'layer')} of {shown} (erasures: {size(before)})"],
    )
