"""Runs where accelerate has moved parameters away: gets those that are needed outside their own modules."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def own_parameters_loaded(module: nn.Module) -> Iterator[None]:
    """Inside, the module's own parameters, those of its submodules not counted, are where they can be computed with.

    accelerate (`cpu_offload`, `disk_offload`, `device_map`) brings them for the module's `forward` alone, by the hook
    that it has left on the module; the videos are encoded before that.
    """
    hook = getattr(module, "_hf_hook", None)
    if hook is None or not any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        yield
        return
    hook.pre_forward(module)
    try:
        yield
    finally:
        hook.post_forward(module, None)
