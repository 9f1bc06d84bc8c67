"""`efface compare`."""

from __future__ import annotations

from pathlib import Path

import click

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
from efface.registry import Registry

USUAL = Path("out/compare.png")


@command(
    "efface compare picturebook --prompt 'a cat' --prompt 'a dog' --erasure uce-cat.safetensors",
    "efface compare picturebook --prompt 'a cat' --erasure uce-cat.safetensors --scale 0.5 --seed 3 --seed 8",
)
@model_argument
@click.option("--prompt", "prompts", multiple=True, required=True, help="A row of the grid; may be repeated.")
@click.option("--erasure", "files", multiple=True, required=True, help="An erasure's file; several go on in order.")
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
def compare(
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
    """Write one picture of pictures with and without erasures.

    A row is a prompt, a column a seed: as the model draws it, above what erasures make of it. The number under each
    pair is the mean absolute pixel change, from 0 for equal pictures to 1.
    """
    from efface.report.comparison import Comparison
    from efface.report.grid import png
    from efface.report.prompt import Prompt
    from efface.report.sampling import Sampling
    from efface.writing import write

    strong = strengths(scales, len(files))
    sampling = Sampling(tuple(map(Prompt, prompts)), chosen(seeds, count), steps, guidance, batch_size)
    check_folder(output.parent)
    if output.parent.is_dir():
        check_target(output, force or output == USUAL)
    with console.working() as progress:
        erasures = read_erasures(files)
        registry = Registry.installed()
        pipe = open_model(console, model, registry, device=device, dtype=dtype)
        with erasures_on(pipe, files, erasures, strong, registry=registry, allow_other_base=allow_other_base) as editor:
            found = Comparison.of(editor, sampling, model, progress)
        write(output, png(found), make_folder=True)
    console.written.append(output)
    console.answer(found.to_json() | {"file": str(output)}, [str(output)])
