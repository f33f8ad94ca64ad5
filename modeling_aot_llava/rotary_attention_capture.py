"""Runs for each Qwen-VL video with pixels: reads the attention at a few layers of a tower with packed frames.

Such towers project queries, keys and values at once (`qkv`), rotate queries and keys inside the attention module, and
run all frames, or all windows of them, as pieces of one sequence. The tower runs with its own attention kernel; the
scores of the wanted layers alone are computed here, from what the hooks see.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from .compiled_tower import VisionPart, run_as_compiled
from .kept_outputs import run_and_keep
from .token_anchors import attention_received


def run_and_read_rotary_attention(
    vision_tower: nn.Module, run: Callable[[], ModelOutput], layers: Sequence[int]
) -> VisionPart:
    """Runs a vision tower, compiled or not.

    Args:
        vision_tower: as `capture_rotary_attention` says.
        run: calls it.
        layers: indices of the wanted layers, counted from 0 or, if negative, from the end.

    Returns:
        The tower's output, and for each of `layers` the attention received there, (patches,).

    Raises:
        RuntimeError: if the tower is compiled in a way that shows nothing of what it computes.
    """
    call = (vision_tower, run, layers)
    return run_as_compiled(vision_tower, layers, partial(_run_watched, *call), partial(_run_compiled, *call))


@contextmanager
def capture_rotary_attention(vision_tower: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Yields a dict that, once the vision tower has run, maps each layer to the attention received there, (patches,).

    A patch's attention is the mean over heads and queries of its piece, times the piece's length: so it is 1 on
    average in every piece, and patches of small windows and of large ones compare. The patches are in the order in
    which the tower runs them. The hooks serve the calling thread alone, and are gone when the block is left.

    Args:
        vision_tower: with `blocks`, whose `attn` has `qkv`, `num_heads` and `scaling` and is called with `cu_seqlens`
            and `position_embeddings`, as those of Qwen's vision towers.
        layers: indices of the wanted layers, counted from 0 or, if negative, from the end.
    """
    received: dict[int, Tensor] = {}
    thread = threading.get_ident()
    handles = []

    def watch(layer: int, attention: nn.Module) -> None:
        call: dict = {}

        def is_foreign() -> bool:
            return torch.compiler.is_compiling() or threading.get_ident() != thread

        def note_call(module: nn.Module, args: tuple, kwargs: dict) -> None:
            if not is_foreign():
                call.update(kwargs)

        def take(module: nn.Module, inputs: tuple, projected: Tensor) -> None:
            if not is_foreign():
                received[layer] = _received(attention, projected.detach(), **call)

        handles.append(attention.register_forward_pre_hook(note_call, with_kwargs=True))
        handles.append(attention.qkv.register_forward_hook(take))

    try:
        for layer in set(layers):
            watch(layer, vision_tower.blocks[layer].attn)
        yield received
    finally:
        for handle in handles:
            handle.remove()


def _run_watched(vision_tower: nn.Module, run: Callable[[], ModelOutput], layers: Sequence[int]) -> VisionPart:
    with capture_rotary_attention(vision_tower, layers) as received:
        outputs = run()
    return outputs, received


def _run_compiled(vision_tower: nn.Module, run: Callable[[], ModelOutput], layers: Sequence[int]) -> VisionPart:
    attention = [block.attn for block in vision_tower.blocks]
    modules = [*attention, *(module.qkv for module in attention)]
    wanted = [attention[layer] for layer in layers]
    outputs, kept = run_and_keep(run, modules, {*wanted, *(module.qkv for module in wanted)})
    if None in kept.values():
        return outputs, {}
    received = {}
    for layer, module in zip(layers, wanted):
        _, called_with, _ = kept[module]
        received[layer] = _received(module, kept[module.qkv][-1].detach(), **called_with)
    return outputs, received


@torch.no_grad()
def _received(
    attention: nn.Module,
    projected: Tensor,
    *,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **kwargs,
) -> Tensor:
    queries, keys, _ = projected.unflatten(-1, (3, attention.num_heads, -1)).unbind(1)
    queries, keys = (_rotated(states, *position_embeddings) for states in (queries, keys))
    starts, lengths = cu_seqlens[:-1], cu_seqlens.diff()
    received = torch.empty(len(projected), dtype=torch.float32, device=projected.device)
    for length in lengths.unique().tolist():  # pieces of one length at once: all frames, or all windows of a size
        pieces = starts[lengths == length].unsqueeze(1) + torch.arange(length, device=starts.device)
        pieces = pieces.to(projected.device)
        of_pieces = (states[pieces].transpose(1, 2) for states in (queries, keys))
        received[pieces] = attention_received(*of_pieces, attention.scaling) * length
    return received


def _rotated(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions as the towers apply them: (patches, heads, d), in float32 and back."""
    first, second = states.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (states.float() * cos.unsqueeze(-2).float() + turned * sin.unsqueeze(-2).float()).to(states.dtype)
