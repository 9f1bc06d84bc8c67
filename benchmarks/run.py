"""Every benchmark one after another, and one table of what they found: printed, and written to `docs/benchmarks.md`.

Each ratio comes from one run, in which what is compared took turns. Benchmarks have processes of their own.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from common import FIGURE

from efface.writing import write

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
ALL = (
    "start",
    "hooks",
    "stack",
    "closed_form",
    "realera",
    "gates --concepts 50",
    "gates --unet 50 1000",
    "dumo --rounds 5",
)
INTRODUCTION = """# Benchmarks

*After this page you know what edits cost, and how to measure it on your machine.*

`make bench` makes this page, all of it on one machine. What a ratio compares took turns in one run; seconds and
milliseconds are named as such. U-Nets have the widths and depths of Stable Diffusion 1.5 and random weights, but for
stacks of erasures, which are measured at a fifth of its width. Times of U-Net calls and of GLoCE's layer are the
processor's, those of closed forms the clock's. The scripts in `benchmarks/` say in their first lines what they compare
with what.
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--only", nargs="+", default=ALL, metavar="BENCHMARK", help="such as stack 'gates --unet 50'"
    )
    arguments.add_argument("-o", "--output", type=Path, default=PAGE)
    options = arguments.parse_args()
    failed: list[str] = []
    rows = [row for benchmark in options.only for row in figures(benchmark, failed)]
    page = "\n".join([INTRODUCTION, *machine(), "", *table(rows), ""])
    print(page)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; {options.output} is as it was")
    write(options.output, page.encode())


def figures(benchmark: str, failed: list[str]) -> Iterator[Sequence[str]]:
    """What a benchmark says that it found, everything it prints passing through."""
    name, *flags = benchmark.split()
    command = [sys.executable, str(HERE / f"{name}.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if line.startswith(FIGURE):
                yield (*(cell.strip() for cell in line.removeprefix(FIGURE).split(" | ")), benchmark)
    if process.returncode:
        failed.append(benchmark)


def machine() -> Iterator[str]:
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", "as many as torch takes")
    yield f"{processor()}, {os.cpu_count()} cores, threads: {threads}; {platform.system()}, Python"
    yield f"{platform.python_version()}, torch {torch.__version__}; {datetime.now(UTC):%Y-%m-%d}."


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| what | value | aim | benchmark |"
    yield "|---|---|---|---|"
    for what, value, aim, benchmark in rows:
        yield f"| {what} | {value} | {aim} | `{benchmark}` |"


if __name__ == "__main__":
    main()
