"""The vision tower of an original LLaVA-Video checkpoint: its config does not tell the sizes, but its weights do."""

import re
from collections.abc import Callable

from .base import Base

_LAYER = re.compile(r"(?:.*\.)?vision_tower\.(?:.*\.)?encoder\.layers\.(\d+)\.(mlp\.fc1\.weight)?.*")


def tower_of(base: Base) -> dict[str, int] | None:
    """Sizes as fields of `vision_config`; None if the config tells them itself, or the weights have no such tower."""
    if not base.is_original:
        return None
    layers, widths = set(), set()
    for name, tensor in base.tensors.items():
        match = _LAYER.fullmatch(name)
        if match:
            layers.add(int(match[1]))
        if match and match[2] and len(tensor.shape) == 2:
            widths.add(tensor.shape)
    if not widths:
        return None
    intermediate_size, hidden_size = min(widths)
    return {
        "num_hidden_layers": max(layers) + 1,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        # No weight depends on it.
        "num_attention_heads": 1,
    }


def check_tower(base: Base, warn: Callable[[str], None]) -> None:
    """Tells if the tower is another than LLaVA-Video's: then whoever loads the variant has to give its sizes."""
    sizes = tower_of(base) or {}
    config = base.config.get("vision_config", {})
    names = ("num_hidden_layers", "hidden_size", "intermediate_size")
    others = {name: sizes[name] for name in names if name in sizes and sizes[name] != config.get(name)}
    if others:
        told = ", ".join(f"{name} {value} in place of {config.get(name)}" for name, value in others.items())
        warn(
            f"the vision tower of {base.location} is not LLaVA-Video's ({told}): the variant loads only where these "
            "sizes are given, as `vision_config`."
        )
