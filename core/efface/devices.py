"""The devices of this machine."""

from __future__ import annotations

from typing import Literal, get_args

from efface.errors import EffaceError, unknown

PRECISIONS = ("float32", "float16", "bfloat16")

Offload = Literal["model", "sequential"]


def devices() -> list[str]:
    """`cpu`, and each accelerator that torch can use here."""
    import torch

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    return ["cpu", *(f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count()))]


def precisions(device: str) -> list[str]:
    """The precisions in which a device computes what a U-Net is made of: a convolution and a linear layer."""
    return [name for name in PRECISIONS if _computes(device, name)]


def _computes(device: str, precision: str) -> bool:
    import torch
    from torch.nn import functional

    try:
        x = torch.ones(1, 1, 4, 4, device=device, dtype=getattr(torch, precision))
        y = functional.linear(functional.conv2d(x, x[..., :3, :3], padding=1), x[0, 0])
        return bool(y.isfinite().all())
    except (RuntimeError, TypeError):
        return False


def checked_device(name: str) -> str:
    """The name, if this machine has such a device; an accelerator may be named without its number."""
    known = devices()
    if name not in known and not any(device.startswith(f"{name}:") for device in known):
        raise EffaceError(unknown("device", name, known, "this machine has"))
    return name


def placed(device: object | None, offload: str | None) -> str:
    """The name of the device to compute on: the CPU unless given, with `offload` the accelerator unless given.

    EffaceError for a device that this machine does not have, and for an offload that there is none of.
    """
    if offload is None:
        return checked_device("cpu" if device is None else str(device))
    if offload not in get_args(Offload):
        raise EffaceError(unknown("offload", str(offload), get_args(Offload), "there are"))
    known = devices()
    name = checked_device(str(device)) if device is not None else [*known[1:], "cpu"][0]
    if name == "cpu":
        raise EffaceError(
            "Offloading (offload=..., --offload) moves weights to a device (device=..., --device) and back; "
            f"on cpu there is nowhere to go (this machine has: {', '.join(known)})"
        )
    return name
