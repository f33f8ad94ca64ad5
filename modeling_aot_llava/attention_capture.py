"""Reads the attention received at a few layers while the vision tower runs with its own, fast attention kernel.

Fast kernels return no attention weights, and the eager one would compute them for every layer. Here forward hooks take
the queries and keys of the wanted layers alone; the scores are computed from those, a few frames at a time.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from .token_anchors import attention_received
from .vllm_serving import mean_over_ranks


@contextmanager
def capture_attention_received(vision_tower: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Yields a dict that, once the vision tower has run, maps each layer to the attention received there, (F, N).

    The extra memory is that of `attention_received` for one layer at a time: little beside the queries and keys. The
    hooks serve the calling thread alone, so several threads may run the same vision tower at once, and they are gone
    when the block is left. Where the tower runs more than once in the block, the dict tells of the last run.

    Args:
        vision_tower: a model whose attention modules have `q_proj`, `k_proj`, `head_dim` and `scale`, as SigLIP's; or,
            as vLLM makes them of those, one fused `qkv_proj`, which may be split among ranks.
        layers: indices of the wanted layers, counted from 0 or, if negative, from the end.

    Raises:
        RuntimeError: if the vision tower, or a part of it, is compiled: compiled modules do not run hooks.
    """
    _refuse_compiled(vision_tower)
    attention_modules = [module for module in vision_tower.modules() if _is_self_attention(module)]
    received: dict[int, Tensor] = {}
    thread = threading.get_ident()
    handles = []

    def watch(layer: int, attention: nn.Module) -> None:
        projected: dict[str, Tensor] = {}

        def take(module: nn.Module, **outputs: Tensor) -> None:
            if threading.get_ident() != thread:
                return
            for name, output in outputs.items():
                projected[name] = output.detach().unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            if len(projected) == 2:
                received[layer] = mean_over_ranks(attention_received(**projected, scale=attention.scale), module)
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


def _refuse_compiled(vision_tower: nn.Module) -> None:
    # `torch.compile(module)` wraps the module, `module.compile()` keeps the compiled call in it.
    for name, module in vision_tower.named_modules():
        if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
            raise RuntimeError(
                f"The vision tower{name and ' at ' + name} is compiled, and so its attention, which AOT ranks patches "
                "by, cannot be read: compile the language model instead (`model.model.language_model.compile()`)."
            )


def _is_self_attention(module: nn.Module) -> bool:
    is_split = hasattr(module, "q_proj") and hasattr(module, "k_proj")
    return (is_split or _is_fused(module)) and hasattr(module, "head_dim") and hasattr(module, "scale")


def _is_fused(module: nn.Module) -> bool:
    return hasattr(module, "qkv_proj")
