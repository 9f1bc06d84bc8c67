"""Every benchmark one after another, and one table of what they found: printed, and written to `docs/benchmarks.md`.

With `--only` the page's lines of other benchmarks stay, with what it says of the machine that they were run on. Each
ratio comes from one run, in which what is compared took turns. Benchmarks have processes of their own.
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
from page import Page, Row

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
REST = 0.5  # of a core at work in the last minute


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "--only", nargs="+", default=ALL, metavar="BENCHMARK", help="such as stack 'gates --unet 50'"
    )
    arguments.add_argument("-o", "--output", type=Path, default=PAGE)
    options = arguments.parse_args()
    failed: list[str] = []
    before, how = page_before(options.output, options.only), machine()
    rows = [row for benchmark in options.only for row in figures(benchmark, failed)]
    page = str(before.updated(rows, options.only, how))
    print(page)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; {options.output} is as it was")
    write(options.output, page.encode())


def page_before(output: Path, only: Sequence[str]) -> Page:
    """What stays of the page when these benchmarks are run: nothing when it is all of them."""
    if not output.is_file() or set(ALL) <= set(only):
        return Page()
    try:
        return Page.read(output.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(f"{output}: {error}; name another file by -o") from error


def figures(benchmark: str, failed: list[str]) -> Iterator[Row]:
    """What a benchmark says that it found, everything it prints passing through."""
    name, *flags = benchmark.split()
    command = [sys.executable, str(HERE / f"{name}.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            if line.startswith(FIGURE):
                what, value, aim = (cell.strip() for cell in line.removeprefix(FIGURE).split(" | "))
                yield Row(what, value, aim, benchmark)
    if process.returncode:
        failed.append(benchmark)


def machine() -> str:
    """What a run is made on and beside, as it begins."""
    import torch

    threads = os.environ.get("OMP_NUM_THREADS", "as many as torch takes")
    there = f"{processor()}, {os.cpu_count()} cores, threads: {threads}"
    software = f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    return f"{there}; {software}; {datetime.now(UTC):%Y-%m-%d}, {busy(os.getloadavg()[0])}"


def busy(load: float) -> str:
    return "the machine at rest" if load < REST else f"beside other work (load {load:.1f})"


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (names or [platform.processor() or platform.machine()])[0]


if __name__ == "__main__":
    main()
