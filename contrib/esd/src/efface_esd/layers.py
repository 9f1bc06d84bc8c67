"""Which layers of a U-Net are trained."""

from __future__ import annotations

from typing import Literal

from torch import nn

import efface

Choice = Literal["x", "x-strict", "u", "full"]
TRAINED = (nn.Linear, nn.Conv2d)


def trained(model: efface.Model, choice: Choice) -> dict[str, str]:
    """The parameter of the U-Net that holds the weight of each trained layer, by the name of its hook point."""
    cross = {point.path for point in model.points("cross_attn.*")}
    strict = {point.path for point in model.points("cross_attn.k", "cross_attn.v")}
    parameters = {id(weight): name for name, weight in model.unet.named_parameters()}
    found = {}
    for path, module in model.unet.named_modules():
        layer = getattr(module, "base_layer", module)  # a LoRA stands around the layer that is trained
        if isinstance(layer, TRAINED) and not inside_adapter(path):
            among = {"x": path in cross, "x-strict": path in strict, "u": path not in cross, "full": True}
            if among[choice]:
                found[f"unet.{path}"] = parameters[id(layer.weight)]
    return found


def inside_adapter(path: str) -> bool:
    """Whether a module is a part of an adapter: the layer it stands around, or its own factors."""
    return any(part == "base_layer" or part.startswith("lora_") for part in path.split("."))
