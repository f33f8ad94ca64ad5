"""Runs where a vision tower is compiled: outputs of modules inside it, by hooks that are traced with it, and stay.

A compiled graph runs the hooks that it was traced with, and no others. Layers that are compiled one by one share a
graph, so each of them has the same hook, and a mark on the module says whether its output is kept: two graphs serve
any number of layers.
"""

import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any, TypeAlias

import torch
from torch import nn

# What a module was called with, and what it gave.
KeptCall: TypeAlias = tuple[tuple, dict[str, Any], Any]

# What is kept lies in the modules, which all threads share.
_one_run_at_a_time = threading.Lock()


@torch.compiler.disable(recursive=False)  # not this function, but the model may be traced in this very call
def run_and_keep(
    model: Callable[..., Any], modules: Iterable[nn.Module], kept: Collection[nn.Module], *args: Any, **kwargs: Any
) -> tuple[Any, dict[nn.Module, KeptCall | None]]:
    """Runs a model, compiled or not, and takes what some of its modules read and gave.

    Args:
        model: is called with the further arguments.
        modules: all those of the model that are of a kind with the wanted ones. Their hooks stay.
        kept: the wanted ones among them.

    Returns:
        What the model returned, and for each of `kept` its call; None where it was traced before it had a hook, or did
        not run.
    """
    with _one_run_at_a_time:
        _install(modules)
        try:
            for module in kept:
                module._aot_is_kept = True
            returned = _run(model, *args, **kwargs)
            return returned, {module: module._aot_kept for module in kept}
        finally:
            for module in kept:
                module._aot_is_kept, module._aot_kept = False, None


def _run(model: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    # Tracing begins here, not in a wrapper of transformers: those share their code, so that once tracing has failed in
    # one, torch tries none of them again.
    return model(*args, **kwargs)


@torch.compiler.disable
def _install(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if not hasattr(module, "_aot_is_kept"):
            module._aot_is_kept, module._aot_kept = False, None
            module.register_forward_hook(_keep, with_kwargs=True)


def _keep(module: nn.Module, args: tuple, kwargs: dict[str, Any], output: Any) -> None:
    if module._aot_is_kept:
        module._aot_kept = args, kwargs, output
