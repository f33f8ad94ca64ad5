"""Runs for each video with pixels: reads the attention at a few layers of a tower that keeps its own, fast kernel.

Fast kernels return no attention weights, and the eager one would compute them for every layer. Here the scores of the
wanted layers alone are computed, a few frames at a time, from their queries and keys, which hooks take while the tower
runs: 0.4 % of the FLOPs of the tower of LLaVA-OneVision-7B.

A compiled tower runs only hooks that it was traced with, so there are two kinds of hooks (`compiled_tower.py`). vLLM's
never looks again whether hooks are to keep anything: it hands queries and keys out itself (`served_vision_tower.py`).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from .compiled_tower import VisionPart, is_compiled, run_as_compiled
from .kept_outputs import KeptCall, run_and_keep
from .served_vision_tower import ServedVisionTower
from .token_anchors import attention_received
from .vllm_serving import mean_over_ranks


def run_and_read_attention(
    vision_tower: nn.Module, pixel_values: Tensor, layers: Sequence[int], **kwargs
) -> VisionPart:
    """Runs the vision tower, compiled or not.

    Args:
        vision_tower: of transformers, with attention as `capture_attention_received` says.
        pixel_values: (F, channels, height, width).
        layers: indices of the wanted layers, counted from 0 or, if negative, from the end.
        kwargs: more arguments of the vision tower.

    Returns:
        The tower's output, and for each of `layers` the attention received there, (F, N).

    Raises:
        RuntimeError: if the tower is compiled in a way that shows nothing of what it computes.
    """
    if isinstance(vision_tower, ServedVisionTower):
        return _run_served(vision_tower, pixel_values, layers, **kwargs)
    call = (vision_tower, pixel_values, layers)
    return run_as_compiled(
        vision_tower, layers, partial(_run_watched, *call, **kwargs), partial(run_compiled, *call, **kwargs)
    )


@contextmanager
def capture_attention_received(vision_tower: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Yields a dict that, once the vision tower has run, maps each layer to the attention received there, (F, N).

    The extra memory is that of `attention_received` for one layer at a time: little beside the queries and keys. The
    hooks serve the calling thread alone, so several threads may run the same vision tower at once, and they are gone
    when the block is left. Where the tower runs more than once in the block, the dict tells of the last run; of a
    compiled tower it tells nothing.

    Args:
        vision_tower: a model whose attention modules have `q_proj`, `k_proj`, `head_dim` and `scale`, as SigLIP's; or,
            as vLLM makes them of those, one fused `qkv_proj`, which may be split among ranks.
        layers: indices of the wanted layers, counted from 0 or, if negative, from the end.
    """
    attention = _self_attentions(vision_tower)
    received: dict[int, Tensor] = {}
    thread = threading.get_ident()
    handles = []

    def watch(layer: int) -> None:
        projections = _projections(attention[layer])
        projected: dict[nn.Module, Tensor] = {}

        def take(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            if torch.compiler.is_dynamo_compiling() or threading.get_ident() != thread:
                return
            projected[module] = output
            if len(projected) == len(projections):
                received[layer] = _received(attention[layer], *(projected.pop(module) for module in projections))

        handles.extend(projection.register_forward_hook(take) for projection in projections)

    try:
        for layer in set(layers):
            watch(layer)
        yield received
    finally:
        for handle in handles:
            handle.remove()


def _run_watched(vision_tower: nn.Module, pixel_values: Tensor, layers: Sequence[int], **kwargs) -> VisionPart:
    with capture_attention_received(vision_tower, layers) as received:
        outputs = vision_tower(pixel_values, **kwargs)
    return outputs, received


@torch.compiler.disable(recursive=False)
def run_compiled(vision_tower: nn.Module, pixel_values: Tensor, layers: Sequence[int], **kwargs) -> VisionPart:
    """Runs a vision tower that is compiled, or that is traced in this call; arguments as in `run_and_read_attention`.

    Returns:
        The same; without any attention where the tower was traced before it had hooks.
    """
    modules, kept, wanted = _prepare_compiled(vision_tower, layers, kwargs)
    outputs, kept_values = run_and_keep(vision_tower, modules, kept, pixel_values, **kwargs)
    return _read_compiled(vision_tower, layers, outputs, kept_values, wanted)


@torch.compiler.disable
def _prepare_compiled(
    vision_tower: nn.Module, layers: Sequence[int], kwargs: dict[str, Any]
) -> tuple[list[nn.Module], set[nn.Module], list[int]]:
    """Which modules have hooks, whose outputs are kept, and the hidden states to be made of these."""
    encoder_layers, attention = _encoder_layers(vision_tower), _self_attentions(vision_tower)
    # transformers collects hidden states in a list that grows from layer to layer: layers that are compiled one by one
    # would need a graph each, more than torch makes of one function.
    makes_states = _are_compiled_one_by_one(encoder_layers, vision_tower)
    wanted = _state_indices(kwargs.pop("output_hidden_states", None), len(encoder_layers)) if makes_states else []
    if not makes_states:  # transformers would do so at the first call, under a lock, which breaks a graph
        maybe_install_capturing_hooks(getattr(vision_tower, "_orig_mod", vision_tower))
    modules = [*chain.from_iterable(map(_projections, attention)), *encoder_layers]
    kept = {projection for layer in layers for projection in _projections(attention[layer])}
    kept |= {encoder_layers[max(index - 1, 0)] for index in wanted}
    return modules, kept, wanted


@torch.compiler.disable
def _read_compiled(
    vision_tower: nn.Module,
    layers: Sequence[int],
    outputs: ModelOutput,
    kept: dict[nn.Module, KeptCall | None],
    wanted: list[int],
) -> VisionPart:
    if None in kept.values():
        return outputs, {}
    encoder_layers, attention = _encoder_layers(vision_tower), _self_attentions(vision_tower)
    if wanted:
        states: list[Tensor | None] = [None] * (len(encoder_layers) + 1)
        for index in wanted:  # the first is what the first layer reads, each other one what a layer gives
            args, _, output = kept[encoder_layers[max(index - 1, 0)]]
            states[index] = output if index else args[0]
        outputs["hidden_states"] = tuple(states)
    return outputs, {
        layer: _received(attention[layer], *(kept[projection][-1] for projection in _projections(attention[layer])))
        for layer in layers
    }


def _run_served(vision_tower: ServedVisionTower, pixel_values: Tensor, layers: Sequence[int], **kwargs) -> VisionPart:
    outputs = vision_tower(pixel_values, **kwargs)
    received = {layer: _received_by(*vision_tower.queries_and_keys(outputs, layer)) for layer in layers}
    return type(outputs)(**{name: value for name, value in outputs.items() if name != "attentions"}), received


def _encoder_layers(vision_tower: nn.Module) -> list[nn.Module]:
    return [module for module in vision_tower.modules() if "self_attn" in module._modules]


def _state_indices(asked: bool | Sequence[int] | None, num_layers: int) -> list[int]:
    states = range(num_layers + 1)
    return [states[index] for index in (asked if isinstance(asked, Sequence) else states if asked else [])]


@torch.no_grad()
def _received(attention: nn.Module, *projected: Tensor) -> Tensor:
    """What the patches receive by the outputs of `_projections`: queries and keys, or the two beside the values."""
    queries_and_keys = projected if len(projected) == 2 else projected[0].chunk(3, dim=-1)[:2]
    queries, keys = (
        values.detach().unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for values in queries_and_keys
    )
    return _received_by(attention, queries, keys)


@torch.no_grad()
def _received_by(attention: nn.Module, queries: Tensor, keys: Tensor) -> Tensor:
    """The same by queries and keys of (F, heads, N, d)."""
    return mean_over_ranks(attention_received(queries, keys, attention.scale), _projections(attention)[0])


def _self_attentions(vision_tower: nn.Module) -> list[nn.Module]:
    return [module for module in vision_tower.modules() if _projections(module) and hasattr(module, "scale")]


def _projections(attention: nn.Module) -> list[nn.Module]:
    """The modules that give queries and keys: two, or the fused one, or none where it is no attention module."""
    children = attention._modules
    if "qkv_proj" in children:
        return [children["qkv_proj"]]
    return [children["q_proj"], children["k_proj"]] if {"q_proj", "k_proj"} <= children.keys() else []


def _are_compiled_one_by_one(layers: list[nn.Module], vision_tower: nn.Module) -> bool:
    compiled = filter(is_compiled, vision_tower.modules())
    return any(module in layers or module._modules.get("_orig_mod") in layers for module in compiled)
