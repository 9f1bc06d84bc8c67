"""Where a command keeps pictures that the next one can use again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from efface.cli.targets import check_folder

if TYPE_CHECKING:
    from efface.evaluation.gallery import Gallery


def cache_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--cache` and `--no-cache`, for `gallery_of`."""
    folder = click.option(
        "--cache",
        type=click.Path(path_type=Path),
        help="Folder where pictures are kept and found again.  [$EFFACE_CACHE, else the user's cache folder]",
    )
    none = click.option("--no-cache", is_flag=True, help="Keep no picture after this run.")
    return folder(none(function))


def gallery_of(cache: Path | None, no_cache: bool) -> Gallery:
    """The gallery that the options ask for; CannotSave for a folder that nothing can be written to."""
    from efface.evaluation.gallery import Gallery, usual_folder

    if no_cache:
        if cache is not None:
            raise click.UsageError("--cache names a folder and --no-cache wants none: give one of them")
        return Gallery()
    folder = cache or usual_folder()
    check_folder(folder)
    return Gallery(folder)
