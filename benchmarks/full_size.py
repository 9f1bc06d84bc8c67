"""What erasures take on a pipeline of full size: seconds and peak memory of every step, as a Markdown table.

The pipeline has the structure of its family at every width and depth, and random weights; it is written to a folder
once and loaded from there. Every line is a process of its own: load, list the points, fit, attach, one U-Net call with
guidance, detach, and a look at whether everything is as it was to the last bit. The first line does the same without an
erasure, and the others' peaks are given in its shares. Times are the processor's. Words are spelled by random letters;
a gate that knows a concept by its features may stay shut on random weights, and a column says whether the call came out
otherwise than before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

STEPS = ("load", "points", "fit", "attach", "call", "detach")
ONE_STEP: dict[str, Mapping[str, object]] = {
    "dumo": {"batch": 1, "retained": 1, "trajectories": 2, "sample_steps": 2, "refresh_every": 0, "table_cache": 2}
    | {"steps": 1, "table_steps": 1},
    "esd": {"steps": 1, "batch": 1, "trajectories": 1, "sampling": 2},
    "gloce": {"steps": 2, "seeds": 1, "kept_seeds": 1, "boundary": ("dog",), "collect_from": 999, "collect_until": 0},
    "realera": {"steps": 1, "trajectories": 1, "times": 1, "denoising_steps": 2, "batch_size": 1, "refreshes": 0},
}
CASES = (
    *(f"uce {count}" for count in (1, 100, 1000)),
    *(f"uce {count} tokens=subject" for count in (100, 1000)),
    "erasepro 1",
    *(f"erasepro {count} gated=true" for count in (100, 1000)),
    *(f"{method} 1" for method in ONE_STEP),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--family", default="sd1", choices=["sd1", "sd2", "sdxl"])
    arguments.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--latents", type=int, help="rows and columns of pictures, in fits too; else the model's")
    arguments.add_argument("--layers", type=int, nargs="*", help="fewer transformer layers in each block of the U-Net")
    arguments.add_argument("--folder", type=Path, help="where the pipeline is, or will be; a temporary one if left out")
    arguments.add_argument("--only", nargs="*", default=CASES, metavar="CASE", help="'uce 100' or 'uce 100 lamb=1'")
    arguments.add_argument("--case", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.case is not None:
        print(json.dumps(write(options) if options.case == "write" else run(options)))
        return
    with folder(options.folder) as place:
        options.folder = place
        if not (place / "model_index.json").is_file():
            child("write", options)
        for line in table(options):
            print(line, flush=True)


@contextmanager
def folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def table(options: argparse.Namespace) -> Iterator[str]:
    plain = child("plain", options)
    if "error" in plain:
        raise SystemExit(plain["error"])
    yield f"{options.family}, {options.dtype}, {options.device}, {plain['machine']}"
    yield ""
    yield (
        "| erasure | "
        + " | ".join(f"{step}, s" for step in STEPS)
        + " | peak, GB | of plain | file, MB | acted | as before |"
    )
    yield "|---|" + "---|" * (len(STEPS) + 5)
    yield line("none", plain, plain)
    for case in options.only:
        yield line(case, child(case, options), plain)


def line(name: str, found: Mapping[str, Any], plain: Mapping[str, Any]) -> str:
    if "error" in found:
        return f"| {name} | {found['error']} |"
    seconds = [f"{found[step]:.2f}" if step in found else "" for step in STEPS]
    memory = [f"{found['peak'] / 1e9:.2f}", f"{found['peak'] / plain['peak']:.2f}"]
    size = f"{found['file'] / 1e6:.1f}" if "file" in found else ""
    return f"| {' | '.join([name, *seconds, *memory, size, found.get('acted', ''), found['same']])} |"


def child(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """What one process found; its peak memory is its own."""
    given = {name: getattr(options, name) for name in ("family", "dtype", "device", "latents", "layers", "folder")}
    flags = [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]
    ended = subprocess.run([sys.executable, __file__, "--case", case, *flags], capture_output=True, text=True)
    if ended.returncode:
        return {"error": (ended.stderr.strip().splitlines() or [f"exit {ended.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def write(options: argparse.Namespace) -> dict[str, Any]:
    """Make the pipeline and save it."""
    import torch

    from efface.testing import full_pipeline
    from efface.testing.full_size import full_unet

    dtype = getattr(torch, options.dtype)
    pipe = full_pipeline(options.family, dtype=dtype)
    if options.layers:
        pipe.register_modules(unet=full_unet(options.family, transformer_layers_per_block=options.layers).to(dtype))
    pipe.save_pretrained(options.folder)
    return {}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """One line of the table."""
    import torch

    import efface
    from efface.testing.state import State

    found: dict[str, Any] = {"machine": f"{torch.get_num_threads()} threads"}
    with timed(found, "load"):
        pipe = efface.load(options.folder, dtype=getattr(torch, options.dtype), device=options.device)
    if options.latents is not None:
        pipe.unet.register_to_config(sample_size=options.latents)
    with timed(found, "points"):
        efface.points(pipe)
    before = call(pipe)
    state = State.of(pipe)  # not earlier: transformers puts hooks of its own on a text encoder when it is first used
    plain = options.case == "plain"
    if not plain:
        with timed(found, "fit"):
            erasure = fitted(pipe, *options.case.split())
        found["file"] = saved(erasure)
        editor = efface.Editor(pipe)
        with timed(found, "attach"):
            editor.attach(erasure)
    with timed(found, "call"):
        edited = call(pipe)
    if not plain:
        with timed(found, "detach"):
            editor.close()
        found["acted"] = "no" if torch.equal(edited, before) else "yes"
    same = torch.equal(call(pipe), before) and not state.changed(State.of(pipe))
    return found | {"same": "yes" if same else "no", "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def fitted(pipe: Any, name: str, count: str = "1", *settings: str) -> Any:
    """The erasure of a case; a method that trains goes one step of each of its trainings."""
    import efface

    given = ONE_STEP.get(name, {}) | dict(setting.split("=", 1) for setting in settings)
    return efface.erase(pipe, concepts(int(count)), method=name, keep=["a house", "a tree"], settings=given)


def concepts(count: int) -> Sequence[Any]:
    """The cat, and words that mean nothing; all become dogs or fish."""
    import random

    import efface

    draw = random.Random(0)
    words = ["cat", *("".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(count - 1))]
    return [efface.Concept(word, anchor="dog" if index % 2 else "fish") for index, word in enumerate(words)]


def call(pipe: Any) -> Any:
    """One U-Net call on noise: the prompt and the empty one, as guidance has them."""
    import torch

    import efface

    model = efface.Model(pipe)
    with torch.no_grad():
        return model.predict(model.noise([0, 0]), 500, model.encode(["", "a cat"]))


def saved(erasure: Any) -> int:
    with tempfile.TemporaryDirectory() as place:
        erasure.save(Path(place) / "erasure.safetensors")
        return (Path(place) / "erasure.safetensors").stat().st_size


@contextmanager
def timed(found: dict[str, Any], step: str) -> Iterator[None]:
    began = time.process_time()
    yield
    found[step] = time.process_time() - began


if __name__ == "__main__":
    main()
