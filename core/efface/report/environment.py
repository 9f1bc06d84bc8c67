"""What a run ran on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform

LIBRARIES = ("efface", "torch", "diffusers", "transformers", "numpy", "pillow")


def environment() -> dict[str, str]:
    """Versions of python and the libraries, the system, and the threads that torch computes with."""
    import torch

    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | {"system": f"{platform.system()} {platform.machine()}", "threads": str(torch.get_num_threads())}
