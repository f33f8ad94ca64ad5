"""Binds Triton kernels to the plain formulas that they compute: sinkhorn_kernel, attention_kernels.

The plain formula stays the truth, and takes over where a kernel cannot run: on a CPU, without Triton, where a gradient
is asked for, or where the kernel fails.

The bound pairs are custom operators of PyTorch, so that `torch.compile` and serving engines see one node each.
"""

import re
import warnings
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr
except ImportError:  # not every build of PyTorch brings it
    triton = tl = constexpr = None

# Each copy of this module, as those that come from the Hub, registers operators of its own.
NAMESPACE = re.sub(r"\W", "_", __name__)

# What an operator puts on the GPU.
LAUNCHES = {"sinkhorn": 1, "attention_received": 2}

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def with_kernel(name: str, launch: Callable[..., Tensor], empty_result: Callable[..., Tensor]) -> Callable:
    """Binds a kernel to the plain formula that is decorated.

    Args:
        name: of the operator.
        launch: runs the kernel; takes what the formula takes, by position, and returns what it returns.
        empty_result: takes the same and makes a tensor with the shape, dtype and device of the result.

    Returns:
        A decorator. The formula's arguments must be annotated, and the first must be a tensor.
    """

    def bind(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        has_failed = False

        @wraps(plain)
        def run(*args):
            nonlocal has_failed
            if not has_failed:
                try:
                    # Triton launches on the current GPU, and a model may be spread over several.
                    with torch.cuda.device_of(args[0]):
                        return launch(*args)
                except torch.OutOfMemoryError:
                    raise
                except Exception as error:
                    has_failed = True
                    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                    warnings.warn(
                        f"The Triton kernel of {name} failed. Its plain formula is used instead, which is slower "
                        f"({reason}).",
                        RuntimeWarning,
                        stacklevel=2,
                    )
            return plain(*args)

        operator = torch.library.custom_op(f"{NAMESPACE}::{name}", run, mutates_args=())
        operator.register_fake(empty_result)

        @wraps(plain)
        def choose(*args):
            return operator(*args) if can_run_kernels(args) else plain(*args)

        choose.operator, choose.plain = operator, plain
        return choose

    return bind


def can_run_kernels(args: tuple) -> bool:
    """Whether a kernel, rather than its plain formula, serves a call with these arguments."""
    tensors = [value for value in args if isinstance(value, Tensor)]
    return (
        triton is not None
        and all(tensor.is_cuda for tensor in tensors)
        and tensors[0].dtype in KERNEL_DTYPES
        and tensors[0].numel() > 0
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )


def jit(function: Callable) -> Callable:
    """Compiles a kernel when it is first launched. Without Triton none is."""
    return function if triton is None else triton.jit(function)
