"""What efface runs on: versions, devices, threads."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass

from efface.cli.devices import devices

LIBRARIES = ("efface", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pluggy")


@dataclass(frozen=True)
class Machine:
    """`libraries` has None for one that is not installed; `fault` is what keeps torch from being used."""

    python: str
    system: str
    libraries: dict[str, str | None]
    devices: tuple[str, ...] = ()
    threads: int = 0
    fault: str = ""

    @classmethod
    def this(cls) -> Machine:
        known = (
            platform.python_version(),
            f"{platform.system()} {platform.machine()}",
            {name: _version(name) for name in LIBRARIES},
        )
        try:
            import torch

            return cls(*known, tuple(devices()), torch.get_num_threads())
        except (ImportError, OSError, RuntimeError) as error:
            return cls(*known, fault=f"torch cannot be used: {error}")

    @property
    def problems(self) -> list[str]:
        missing = [f"{name} is not installed" for name, version in self.libraries.items() if version is None]
        return missing + ([self.fault] if self.fault else [])

    def lines(self) -> Iterator[str]:
        yield f"{'python':14}{self.python} on {self.system}"
        yield from (f"{name:14}{version or 'not installed'}" for name, version in self.libraries.items())
        yield f"{'devices':14}{', '.join(self.devices) or self.fault}"
        yield f"{'threads':14}{self.threads}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
