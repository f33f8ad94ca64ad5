"""Reads the attention received at a few layers of a vision tower that runs with its own, fast attention kernel.

Fast kernels return no attention weights, and the eager one would compute them for every layer. Here the scores of the
wanted layers alone are computed, from their queries and keys, a few frames at a time. Those come in one of two ways:

- Forward hooks take them while the tower runs. The scores are then all that is computed: of 32 frames of
  LLaVA-OneVision-7B 0.4 % of the tower's FLOPs.
- A compiled tower runs no hooks. Its hidden states tell what each layer read, and the two projections are made again:
  1.6 % of the tower's FLOPs, and two more hidden states in memory. Where nothing is compiled both give the same bits.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from .token_anchors import attention_received
from .vllm_serving import is_compiled_by_vllm, mean_over_ranks


def run_and_read_attention(
    vision_tower: nn.Module, pixel_values: Tensor, layers: Sequence[int], **kwargs
) -> tuple[ModelOutput, dict[int, Tensor]]:
    """Runs the vision tower, compiled or not.

    Args:
        vision_tower: of transformers, with attention as `capture_attention_received` says. Where it is compiled, its
            layers have a `layer_norm1` before their `self_attn`, as SigLIP's and CLIP's.
        pixel_values: (F, channels, height, width).
        layers: indices of the wanted layers, counted from 0 or, if negative, from the end.
        kwargs: more arguments of the vision tower.

    Returns:
        The tower's output, and for each of `layers` the attention received there, (F, N).

    Raises:
        RuntimeError: if the tower is compiled and its layers are of another kind.
    """
    if not _may_be_compiled(vision_tower):
        with capture_attention_received(vision_tower, layers) as received:
            outputs = vision_tower(pixel_values, **kwargs)
        if received.keys() == set(layers):
            return outputs, received
    return _run_and_read_states(vision_tower, pixel_values, layers, **kwargs)


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
    attention_modules = [module for module in vision_tower.modules() if _is_self_attention(module)]
    received: dict[int, Tensor] = {}
    thread = threading.get_ident()
    handles = []

    def watch(layer: int, attention: nn.Module) -> None:
        projected: dict[str, Tensor] = {}

        def take(module: nn.Module, **outputs: Tensor) -> None:
            if torch.compiler.is_compiling() or threading.get_ident() != thread:
                return
            projected.update(outputs)
            if len(projected) == 2:
                received[layer] = _received(attention, module, **projected)
                projected.clear()

        def take_fused(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            queries, keys, _ = output.chunk(3, dim=-1)
            take(module, queries=queries, keys=keys)

        if _is_fused(attention):
            handles.append(attention.qkv_proj.register_forward_hook(take_fused))
            return
        handles.append(attention.q_proj.register_forward_hook(lambda module, _, output: take(module, queries=output)))
        handles.append(attention.k_proj.register_forward_hook(lambda module, _, output: take(module, keys=output)))

    try:
        for layer in set(layers):
            watch(layer, attention_modules[layer])
        yield received
    finally:
        for handle in handles:
            handle.remove()


def _run_and_read_states(
    vision_tower: nn.Module, pixel_values: Tensor, layers: Sequence[int], **kwargs
) -> tuple[ModelOutput, dict[int, Tensor]]:
    encoder_layers = [
        module for module in vision_tower.modules() if {"self_attn", "layer_norm1"} <= {*module._modules}
    ]
    if not encoder_layers:
        raise RuntimeError(
            "The vision tower is compiled, and its layers are none of SigLIP's kind, so their attention, which AOT "
            "ranks patches by, cannot be read: compile the language model alone "
            "(`model.model.language_model.compile()`)."
        )
    places = {layer: range(len(encoder_layers))[layer] for layer in layers}
    asked = kwargs.get("output_hidden_states") or True
    kwargs["output_hidden_states"] = asked if asked is True else [*asked, *places.values()]
    # transformers would do so at the first call, under a lock, which breaks a graph.
    maybe_install_capturing_hooks(getattr(vision_tower, "_orig_mod", vision_tower))
    outputs = vision_tower(pixel_values, **kwargs)
    states = outputs.hidden_states
    received = {layer: _received_of_state(encoder_layers[place], states[place]) for layer, place in places.items()}
    if asked is not True:
        kept = {range(len(states))[index] for index in asked}
        outputs["hidden_states"] = tuple(state if index in kept else None for index, state in enumerate(states))
    return outputs, received


@torch.no_grad()
def _received_of_state(layer: nn.Module, state: Tensor) -> Tensor:
    device = next(layer.parameters()).device
    if device.type != "meta":  # where the weights are elsewhere; the layer before may be on another GPU
        state = state.to(device)
    attention, state = layer.self_attn, layer.layer_norm1(state)
    if _is_fused(attention):
        queries, keys, _ = attention.qkv_proj(state).chunk(3, dim=-1)
        return _received(attention, attention.qkv_proj, queries, keys)
    return _received(attention, attention.k_proj, attention.q_proj(state), attention.k_proj(state))


def _received(attention: nn.Module, projection: nn.Module, queries: Tensor, keys: Tensor) -> Tensor:
    queries, keys = (
        values.detach().unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for values in (queries, keys)
    )
    return mean_over_ranks(attention_received(queries, keys, attention.scale), projection)


def _may_be_compiled(vision_tower: nn.Module) -> bool:
    """Whether some part of the tower may run no hooks.

    `torch.compile(module)` wraps the module, `module.compile()` keeps the compiled call in it, and others put a
    `forward` of their own into it. accelerate's, with which a module keeps its hooks, is none of these: it may place
    weights for the time of its call alone, when the projections must not be made by themselves.
    """
    return any(
        "_orig_mod" in module._modules
        or getattr(module, "_compiled_call_impl", None) is not None
        or ("forward" in vars(module) and not hasattr(module, "_hf_hook"))
        or is_compiled_by_vllm(module)
        for module in vision_tower.modules()
    )


def _is_self_attention(module: nn.Module) -> bool:
    is_split = hasattr(module, "q_proj") and hasattr(module, "k_proj")
    return (is_split or _is_fused(module)) and hasattr(module, "head_dim") and hasattr(module, "scale")


def _is_fused(module: nn.Module) -> bool:
    return hasattr(module, "qkv_proj")
