"""Runs for each video with pixels: in which of two ways the vision tower is run and its attention read.

A compiled tower runs only hooks that it was traced with. So there are two kinds of hooks, which give the same:

- in a tower that is not compiled they serve one thread, and are gone after the run;
- in a compiled one they stay (`kept_outputs.py`), and one thread at a time runs it.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput, logging

logger = logging.get_logger(__name__)

# What a vision tower gives for some frames, and the attention received at each of the wanted layers.
VisionPart: TypeAlias = tuple[ModelOutput, dict[int, Tensor]]


def run_as_compiled(
    vision_tower: nn.Module,
    layers: Sequence[int],
    watched: Callable[[], VisionPart],
    compiled: Callable[[], VisionPart],
) -> VisionPart:
    """Runs a vision tower in the one way or the other, whichever the tower's kind runs hooks in.

    Args:
        vision_tower: of any kind.
        layers: whose attention is wanted.
        watched: runs it with hooks that are gone afterwards.
        compiled: runs it with hooks that are traced with it.

    Raises:
        RuntimeError: if the tower is compiled in a way that shows nothing of what it computes.
    """
    outputs, received = compiled() if _may_be_compiled(vision_tower) else watched()
    if received.keys() == set(layers):
        return outputs, received
    logger.warning_once(
        "The vision tower was compiled, and run, before AOT could read its attention, so it runs without being "
        "compiled: compile it before its first run, or call `torch.compiler.reset()`."
    )
    with torch.compiler.set_stance("force_eager"):
        outputs, received = watched()
    if received.keys() != set(layers):
        raise RuntimeError(
            "The vision tower is compiled in a way that lets nobody read its attention, by which AOT ranks patches: "
            "compile it by its own `compile()`, as in `model.model.vision_tower.compile()`."
        )
    return outputs, received


def _may_be_compiled(vision_tower: nn.Module) -> bool:
    """Whether some part of the tower may run no hooks."""
    return any(map(is_compiled, vision_tower.modules()))


def is_compiled(module: nn.Module) -> bool:
    """`torch.compile(module)` wraps the module, `module.compile()` keeps the compiled call in it, and others put a
    `forward` of their own into it.

    accelerate's, with which a module keeps its hooks, is none of these: it may place weights for the time of its call.
    """
    return (
        "_orig_mod" in module._modules
        or getattr(module, "_compiled_call_impl", None) is not None
        or ("forward" in vars(module) and not hasattr(module, "_hf_hook"))
    )
