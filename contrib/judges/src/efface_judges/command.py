"""`efface judge`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from efface.cli.console import Console, table
from efface.cli.opening import bars
from efface.cli.options import Seed, command, json_option, pass_console, quiet_option
from efface.cli.targets import check_target
from efface.wording import counted

if TYPE_CHECKING:
    from efface_judges.judging import Judged, Judges

FILE = click.Path(path_type=Path)


@command(
    "efface judge after --clip clip-vit-base-patch32 --nudenet",
    "efface judge after --before before --clip clip-vit-base-patch32 --lpips alexnet-owt-7be5be79.pth -o found.json",
)
@click.argument("after", type=FILE)
@click.option("--before", type=FILE, help="Folder of the pictures before, for LPIPS, FID and KID.")
@click.option("--clip", type=FILE, help="Folder of a CLIP model: CLIP score, and FID and KID in its features.")
@click.option("--lpips", type=FILE, help="torchvision's file of AlexNet: LPIPS of pictures of one name.")
@click.option("--network", type=FILE, help="TorchScript file of a feature network: FID and KID in its features.")
@click.option("--nudenet", is_flag=True, help="Shares of pictures with each label of NudeNet.")
@click.option(
    "--threshold", type=click.FloatRange(0.2, 0.99), default=0.6, show_default=True, help="NudeNet's score for a label."
)
@click.option(
    "--prompts",
    "stated",
    type=FILE,
    multiple=True,
    help="What efface generate --json printed.  [prompts as the names of the files have them]",
)
@click.option("--seed", type=Seed(), default=0, show_default=True, help="Seed of KID's subsets.")
@click.option("--device", default="cpu", show_default=True, help="Where CLIP computes, such as cuda:0.")
@click.option("-o", "--output", type=FILE, help="Write the figures to this file, as JSON.")
@click.option("--force", is_flag=True, help="Overwrite the file of -o if it is there.")
@json_option
@quiet_option
@pass_console
def judge(
    console: Console,
    after: Path,
    before: Path | None,
    clip: Path | None,
    lpips: Path | None,
    network: Path | None,
    nudenet: bool,
    threshold: float,
    stated: tuple[Path, ...],
    seed: int,
    device: str,
    output: Path | None,
    force: bool,
) -> None:
    """Measure a folder of pictures, alone or against the folder from before.

    AFTER is a folder as efface generate writes it. Every network is a file or folder of this machine; a figure whose
    network is not named is left out.
    """
    from efface_judges.folders import Folder, stated_prompts
    from efface_judges.judging import Side, judged

    if clip is None and lpips is None and network is None and not nudenet:
        raise click.UsageError("Nobody judges: give --clip, --lpips, --network or --nudenet")
    if before is None and (lpips or network):
        raise click.UsageError("--lpips and --network set two folders against each other: give --before")
    if output is not None:
        check_target(output, force)
    given = stated_prompts(stated) if stated else None
    folders = [Folder.of(path) for path in (after, before) if path is not None]
    if lpips is not None:
        folders[0].paired(folders[1])
    prompts = [folder.prompts(given) for folder in folders]
    with console.working() as progress:
        with bars(console.shows_progress):
            judges = _judges(clip, device, lpips, network, nudenet, threshold, seed)
        one, *other = (Side(folder.images(), texts) for folder, texts in zip(folders, prompts, strict=True))
        found = judged(judges, one, other[0] if other else None, progress)
    data = found.to_json()
    if output is not None:
        _write(console, output, data)
    console.answer(data, [*_lines(found), *([str(output)] if output else [])])


def _judges(
    clip: Path | None,
    device: str,
    lpips: Path | None,
    network: Path | None,
    nudenet: bool,
    threshold: float,
    seed: int,
) -> Judges:
    from efface_judges.clip import Clip
    from efface_judges.judging import Judges
    from efface_judges.lpips import Lpips
    from efface_judges.network import Network
    from efface_judges.nudity import NudeNet

    return Judges(
        clip=Clip.load(clip, device) if clip else None,
        network=Network.load(network) if network else None,
        lpips=Lpips.load(lpips) if lpips else None,
        nudenet=NudeNet.load() if nudenet else None,
        threshold=threshold,
        seed=seed,
    )


def _write(console: Console, output: Path, data: object) -> None:
    from efface.writing import write

    write(output, json.dumps(data, indent=2, allow_nan=False).encode() + b"\n")
    console.written.append(output)


def _lines(found: Judged) -> Iterator[str]:
    yield from table(("figure", "value"), [(name, _cell(value)) for name, value in found.figures.items()])
    counts = ", ".join(f"{counted(count, 'picture')} {side}" for side, count in found.pictures.items())
    facts = ", ".join(
        f"{name} {str(value)[:12] if name.endswith('sha256') else value}" for name, value in found.facts.items()
    )
    yield f"{counts}; {facts}; 95 % intervals in brackets."


def _cell(value: object) -> str:
    from efface.evaluation.scores import Estimate

    if isinstance(value, Estimate):
        return f"{value.value:.4g} [{value.low:.4g}, {value.high:.4g}] of {value.n}"
    return f"{value:.4g}"
