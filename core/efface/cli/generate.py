"""`efface generate`."""

from __future__ import annotations

import io
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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
from efface.cli.seeds import chosen, seed_option
from efface.cli.targets import check_folder, check_target
from efface.cli.wording import slugs

if TYPE_CHECKING:
    from PIL.Image import Image


@command(
    "efface generate picturebook --prompt 'a cat' --seeds 4 --out before",
    "efface generate picturebook --prompt 'a cat' --seeds 4 --erasure uce-cat.safetensors --out after",
)
@model_argument
@click.option("--prompt", "prompts", multiple=True, required=True, help="What to draw; may be given several times.")
@click.option("--erasure", "files", multiple=True, help="An erasure's file; several are put on in this order.")
@scale_option
@seed_option
@click.option("--seeds", "count", type=click.IntRange(1), help="This many seeds, counted up from --seed.  [1 from 0]")
@sampling_options()
@click.option("--out", default="out", show_default=True, help="Folder for the pictures, made if it is not there.")
@click.option("--force", is_flag=True, help="Overwrite pictures that are there.")
@other_base_option
@device_option
@dtype_option
@json_option
@quiet_option
@pass_console
def generate(
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
    out: str,
    force: bool,
    allow_other_base: bool,
    device: str,
    dtype: str,
) -> None:
    """Generate pictures, with erasures on or without.

    The picture of a prompt and a seed is the file OUT/PROMPT-SEED.png.
    """
    from efface.generating import check_steps
    from efface.generating import generate as generated
    from efface.registry import Registry

    started = time.perf_counter()
    wanted = chosen(seeds, count, usual=1)
    strong = strengths(scales, len(files))
    targets = _targets(Path(out), prompts, wanted, force)
    with console.working() as progress:
        erasures = read_erasures(files)
        registry = Registry.installed()
        pipe = open_model(console, model, registry, device=device, dtype=dtype)
        check_steps(pipe, steps)
        with erasures_on(pipe, files, erasures, strong, registry=registry, allow_other_base=allow_other_base) as editor:
            labels = [entry.label for entry in editor.entries]
            images = generated(
                pipe, prompts, wanted, steps=steps, guidance=guidance, batch_size=batch_size, progress=progress
            )
        _save(console, images, targets)
    drawn = [(prompt, seed) for prompt in prompts for seed in wanted]
    data = {
        "files": _named(
            ("prompt", "seed", "file"), ((*one, str(file)) for one, file in zip(drawn, targets, strict=True))
        ),
        "erasures": _named(("file", "label", "scale"), zip(files, labels, strong, strict=True)),
        "seconds": round(time.perf_counter() - started, 2),
    }
    console.answer(data, map(str, targets))


def _targets(folder: Path, prompts: Sequence[str], seeds: Sequence[int], force: bool) -> list[Path]:
    """A file for every picture, prompt by prompt; CannotSave if one of them cannot be written."""
    check_folder(folder)
    names = [f"{slug}-{seed}.png" for slug in slugs(prompts, "picture") for seed in seeds]
    targets = [folder / name for name in names]
    for target in targets if folder.is_dir() else ():
        check_target(target, force)
    return targets


def _named(names: Sequence[str], rows: Iterable[tuple[object, ...]]) -> list[dict[str, object]]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def _save(console: Console, images: Sequence[Image], targets: Sequence[Path]) -> None:
    from efface.writing import write

    for image, target in zip(images, targets, strict=True):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        write(target, buffer.getvalue(), make_folder=True)
        console.written.append(target)
