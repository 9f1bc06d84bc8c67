"""Writing a pipeline whose weights have the erasures in them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from efface.editor import Editor
from efface.errors import CannotSave, PolicyError
from efface.writing import beside


def bake(editor: Editor, folder: str | os.PathLike[str]) -> None:
    """Save the pipeline with the editor's erasures fused, as diffusers does: the folder is there whole or not at all.

    PolicyError names every erasure that is no change of weights, before anything is written; CannotSave names the
    folder and the reason. The pipeline in memory is as before.
    """
    refuse(editor)
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CannotSave(f"{target} is there already and is no empty folder; choose another name")
    editor.fuse()
    try:
        _save(editor, Path(os.path.realpath(target)))
    except (OSError, ValueError) as error:
        raise CannotSave(f"Cannot save {target}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        editor.unfuse()


def refuse(editor: Editor) -> None:
    """PolicyError if the weights cannot take up every erasure that acts."""
    found = editor.obstacles()
    if found:
        each = "; ".join(f"{label} ({reason})" for label, reason in found.items())
        raise PolicyError(f"No weights can hold {each}. Take it out of the policy, or use efface.apply on a pipeline")


def _save(editor: Editor, target: Path) -> None:
    with beside(target, Path.mkdir) as partial:
        editor.pipe.save_pretrained(partial)
        with contextlib.suppress(FileNotFoundError):
            target.rmdir()
        os.replace(partial, target)
