"""What efface runs on: versions, devices, threads."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from dataclasses import dataclass, field

from efface.cli.requirements import unmet
from efface.devices import devices, precisions

LIBRARIES = ("efface", "torch", "diffusers", "transformers", "peft", "accelerate", "safetensors", "pluggy")


@dataclass(frozen=True)
class Machine:
    """What efface needs and finds here.

    `libraries` has None for one that is not installed, `unmet` each requirement of efface that is not met. `devices`
    has the precisions that each device computes in; `fault` is what keeps torch from being used.
    """

    python: str
    system: str
    libraries: dict[str, str | None]
    unmet: tuple[str, ...] = ()
    devices: dict[str, list[str]] = field(default_factory=dict)
    threads: int = 0
    fault: str = ""

    @classmethod
    def this(cls) -> Machine:
        known = (
            platform.python_version(),
            f"{platform.system()} {platform.machine()}",
            {name: _version(name) for name in LIBRARIES},
            tuple(unmet("efface")),
        )
        try:
            import torch

            return cls(*known, {device: precisions(device) for device in devices()}, torch.get_num_threads())
        except (ImportError, OSError, RuntimeError) as error:
            return cls(*known, fault=f"torch cannot be used: {error}")

    @property
    def problems(self) -> list[str]:
        absent = ["efface is not installed"] if self.libraries["efface"] is None else []
        idle = [f"device {name} computes in no precision" for name, found in self.devices.items() if not found]
        return [*absent, *(f"efface {fault}" for fault in self.unmet), *idle, *([self.fault] if self.fault else [])]

    def lines(self) -> Iterator[str]:
        yield f"{'python':14}{self.python} on {self.system}"
        yield from (f"{name:14}{version or 'not installed'}" for name, version in self.libraries.items())
        found = [f"{name} ({', '.join(dtypes) or 'no precision'})" for name, dtypes in self.devices.items()]
        yield f"{'devices':14}{'; '.join(found) or self.fault}"
        yield f"{'threads':14}{self.threads}"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
