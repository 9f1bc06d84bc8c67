"""Fits the suite's example again and writes the files that come with the pipeline.

`python -m efface_picturebook.fitted METHOD ...` writes `METHOD-CONCEPT.safetensors` for each into `erasures/`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import efface
import efface_picturebook
from efface.report.example import unseen
from efface_picturebook.suite import PicturebookSuite


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("methods", nargs="+", metavar="METHOD")
    arguments.add_argument("--folder", type=Path, default=efface_picturebook.erasures())
    options = arguments.parse_args()
    pipe = efface.load("picturebook")
    for method in options.methods:
        erasure = fitted(pipe, method)
        erasure.save(options.folder / f"{method}-{erasure.concepts[0].text}.safetensors")


def fitted(pipe: Any, method: str) -> efface.Erasure:
    """The example erased by a method's defaults, none of the held-out words drawn."""
    suite, registry = PicturebookSuite(), efface.Registry.installed()
    request = suite.example
    return efface.erase(
        pipe,
        request.concepts,
        method=method,
        keep=request.keep,
        templates=request.templates,
        settings=unseen(suite, registry.method(method)),
        registry=registry,
    )


if __name__ == "__main__":
    main()
