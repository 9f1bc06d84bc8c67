"""`efface gates`: where the gates of GLoCE erasures open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import click

import efface
from efface.cli.console import Console
from efface.cli.opening import erasures_on, open_model, read_erasures, strengths
from efface.cli.options import (
    command,
    device_option,
    dtype_option,
    json_option,
    model_argument,
    other_base_option,
    pass_console,
    quiet_option,
    sampling_options,
    scale_option,
)
from efface.cli.seeds import chosen, seed_option, seeds_option
from efface.cli.targets import check_folder, check_target

USUAL = Path("out/gates.png")


@command(
    "efface gates picturebook --erasure gloce-cat.safetensors --prompt 'a cat and a car'",
    "efface gates picturebook --erasure cat.safetensors --erasure dog.safetensors --prompt 'a dog' --seeds 2",
)
@model_argument
@click.option("--prompt", "prompts", multiple=True, required=True, help="What to draw; may be repeated.")
@click.option("--erasure", "files", multiple=True, required=True, help="A GLoCE erasure's file; several go together.")
@scale_option
@seed_option
@seeds_option
@sampling_options()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=USUAL, show_default=True, help="The PNG file.")
@click.option("--force", is_flag=True, help="Overwrite the file of -o if it is there.")
@other_base_option
@device_option
@dtype_option
@json_option
@quiet_option
@pass_console
def gates(
    console: Console,
    model: str,
    prompts: tuple[str, ...],
    files: tuple[str, ...],
    scales: tuple[float, ...],
    seeds: tuple[int, ...],
    count: int | None,
    steps: int,
    guidance: float,
    batch_size: int,
    output: Path,
    force: bool,
    allow_other_base: bool,
    device: str,
    dtype: str,
) -> None:
    """Write one picture of where GLoCE acts: a heat map over the image for every block of the U-Net.

    Each map is the mean over the block's layers and the steps at which the erasures act. Below it: how far the gates
    were open on average, and the largest p - c that any token had; a gate opens where that is above 0.
    """
    from efface.report.progress import named
    from efface.report.prompt import Prompt
    from efface.report.sampling import Sampling
    from efface.writing import write
    from efface_gloce.rows import batches, rows
    from efface_gloce.sheet import Sheet

    strong = strengths(scales, len(files))
    sampling = Sampling(tuple(map(Prompt, prompts)), chosen(seeds, count, usual=1), steps, guidance, batch_size)
    check_folder(output.parent)
    if output.parent.is_dir():
        check_target(output, force or output == USUAL)
    with console.working() as progress:
        erasures = _only_gated(files, read_erasures(files))
        pipe = open_model(console, model, efface.Registry.installed(), device=device, dtype=dtype)
        sampling.check(pipe)

        def attached(registry: efface.Registry) -> AbstractContextManager[object]:
            return erasures_on(pipe, files, erasures, strong, registry=registry, allow_other_base=allow_other_base)

        base = [one for batch in batches(sampling) for one in batch.pictures(pipe, named("before", progress))]
        drawn = rows(pipe, sampling, base, attached, progress)
        concepts = ", ".join(concept.text for erasure in erasures for concept in erasure.concepts)
        write(output, Sheet(f"{model}: gates of {concepts}", drawn).png(), make_folder=True)
    console.written.append(output)
    data = [{"prompt": row.prompt, "seed": row.seed, "blocks": [one.to_json() for one in row.maps]} for row in drawn]
    console.answer({"file": str(output), "pictures": data}, [str(output)])


def _only_gated(files: Sequence[str], erasures: list[efface.Erasure]) -> list[efface.Erasure]:
    for file, erasure in zip(files, erasures, strict=True):
        if erasure.method != "gloce":
            raise efface.EffaceError(f"{file} is an erasure by {erasure.method}, which has no gates")
    return erasures
