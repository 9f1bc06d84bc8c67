"""The devices of this machine."""

from __future__ import annotations

from efface.errors import EffaceError, unknown


def devices() -> list[str]:
    """`cpu`, and each accelerator that torch can use here."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    return ["cpu", *(f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))]


def checked_device(name: str) -> str:
    """The name, if this machine has such a device; an accelerator may be named without its number."""
    known = devices()
    if name not in known and not any(device.startswith(f"{name}:") for device in known):
        raise EffaceError(unknown("device", name, known, "this machine has"))
    return name
