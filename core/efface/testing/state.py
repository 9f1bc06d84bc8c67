"""All that an erasure must leave as it was, as values that compare."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

HOOK_TABLES = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_backward_pre_hooks",
    "_backward_hooks",
)
SHOWN = 3


@dataclass(frozen=True)
class State:
    """A pipeline's weights and their keys, hooks, modules, modes and parts, and the process's random generators."""

    weights: Mapping[str, str]
    keys: Mapping[str, str]
    hooks: Mapping[str, tuple[int, ...]]
    modules: Mapping[str, str]
    modes: Mapping[str, str]
    parts: Mapping[str, str]
    random: Mapping[str, str]

    @classmethod
    def of(cls, pipe: Any) -> State:
        return cls(
            weights={name: _digest(tensor) for name, tensor in _tensors(pipe)},
            keys=dict.fromkeys(_keys(pipe), ""),
            hooks={name: _hooks(module) for name, module in _modules(pipe)},
            modules={name: _kind(module) for name, module in _modules(pipe)},
            modes=dict(_modes(pipe)),
            parts=dict(_parts(pipe)),
            random=dict(_random()),
        )

    def changed(self, now: State) -> str:
        """What is different now, in words; "" if nothing is."""
        found = [
            f"{what} ({_shortened(names)})"
            for what in self.__dataclass_fields__
            if (names := _different(getattr(self, what), getattr(now, what)))
        ]
        return ", ".join(found)


def marks(pipe: Any) -> tuple[object, ...]:
    """What cannot stay the same when weights, hooks or modes change; quick to take, as torch counts all writes."""
    modules = [module for _, module in _modules(pipe)]
    tensors = [tensor for module in modules for tensor in (*module._parameters.values(), *module._buffers.values())]
    return (
        [(id(one), one._version, one.requires_grad, one.grad is None) for one in tensors if one is not None],
        [(id(module), module.training, _hooks(module), "forward" in vars(module)) for module in modules],
        list(_parts(pipe)),
    )


def _modules(pipe: Any) -> Iterator[tuple[str, nn.Module]]:
    for part, root in sorted(pipe.components.items()):
        if isinstance(root, nn.Module):
            for path, module in root.named_modules():
                yield f"{part}.{path}".rstrip("."), module


def _tensors(pipe: Any) -> Iterator[tuple[str, Tensor]]:
    for name, module in _modules(pipe):
        for own, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            yield f"{name}.{own}", tensor


def _keys(pipe: Any) -> Iterator[str]:
    """What a module saves, which may be less than it has, or go by other names."""
    for part, root in sorted(pipe.components.items()):
        if isinstance(root, nn.Module):
            yield from (f"{part}.{key}" for key in root.state_dict())


def _digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    return f"{tensor.dtype} {tensor.device} {tuple(tensor.shape)} {hashlib.sha256(raw.data).hexdigest()}"


def _hooks(module: nn.Module) -> tuple[int, ...]:
    return tuple(len(getattr(module, table)) for table in HOOK_TABLES)


def _kind(module: nn.Module) -> str:
    """Its class, and what people replace on an instance: its `forward`, its attention processor."""
    processor = type(getattr(module, "processor", None)).__name__
    return f"{type(module).__qualname__} {processor} {'forward' in vars(module)}"


def _modes(pipe: Any) -> Iterator[tuple[str, str]]:
    yield from ((f"{name} training", str(module.training)) for name, module in _modules(pipe))
    for name, module in _modules(pipe):
        for own, weight in module.named_parameters(recurse=False):
            yield f"{name}.{own} gradient", f"{weight.requires_grad} {weight.grad is None}"
    yield "torch's gradients", str(torch.is_grad_enabled())
    yield "torch's default dtype", str(torch.get_default_dtype())


def _parts(pipe: Any) -> Iterator[tuple[str, str]]:
    yield from ((name, str(id(part))) for name, part in sorted(pipe.components.items()))
    yield from ((f"attribute {name}", "") for name in sorted(vars(pipe)))
    # what begins with an underscore is where the settings come from, and saving a pipeline changes that
    settings = sorted((key, value) for key, value in pipe.scheduler.config.items() if not key.startswith("_"))
    yield "scheduler's settings", repr(settings)


def _random() -> Iterator[tuple[str, str]]:
    import numpy as np

    yield "torch", hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
    yield "numpy", repr(np.random.get_state())
    yield "random", str(hash(random.getstate()))


def _different(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    return [name for name in {**before, **now} if before.get(name, ...) != now.get(name, ...)]


def _shortened(names: list[str]) -> str:
    more = f", ... {len(names)} in all" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
