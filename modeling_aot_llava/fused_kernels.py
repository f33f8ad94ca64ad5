"""Runs on GPUs: binds Triton kernels to the plain formulas that they compute (sinkhorn_kernel, attention_kernels).

The plain formula stays the truth. It runs on a CPU, without Triton, where a gradient is asked for and on GPUs that the
kernels are not for (`OLDEST_CAPABILITY`), and it takes over where a kernel fails: for that card, dtype and kind of
shape alone. What is not the kernel's failure is raised: memory that is not there, and errors of the GPU, after which
no formula runs either.

The bound pairs are custom operators of PyTorch, so that `torch.compile` and serving engines see one node each.
"""

import re
import warnings
from collections.abc import Callable, Hashable
from functools import cache, wraps

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

KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# NVIDIA's compute capability from which the kernels are used. On 7.5 they spill their registers, and ask for all of
# the shared memory.
OLDEST_CAPABILITY = (8, 0)

OF_THE_GPU = re.compile(
    "CUDA error|illegal (memory access|instruction|address)|misaligned address|unspecified launch failure|"
    "device-side assert|uncorrectable|launch timed out"
)


def with_kernel(
    name: str,
    launch: Callable[..., Tensor],
    empty_result: Callable[..., Tensor],
    variant: Callable[..., Hashable] | None = None,
) -> Callable:
    """Binds a kernel to the plain formula that is decorated.

    Args:
        name: of the operator.
        launch: runs the kernel; takes what the formula takes, by position, and returns what it returns.
        empty_result: takes the same and makes a tensor with the shape, dtype and device of the result, contiguous.
        variant: takes the same and tells what kinds of shape the kernel is compiled for one by one; by default these
            are the tensors' shapes.

    Returns:
        A decorator. The formula's arguments must be annotated, and the first must be a tensor.
    """
    variant = variant or _shapes

    def bind(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        failed: set[Hashable] = set()

        @wraps(plain)
        def run(*args):
            first = args[0]
            kind = first.device, first.dtype, variant(*args)
            if kind not in failed:
                try:
                    # Triton launches on the current GPU, and a model may be spread over several.
                    with torch.cuda.device_of(first):
                        return launch(*args)
                except Exception as error:
                    _raise_unless_of_the_kernel(error)
                    failed.add(kind)
                    _warn_of_failure(name, first, error)
            return plain(*args).contiguous()

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
        and has_kernels(tensors[0].device)
    )


@torch.compiler.assume_constant_result
def has_kernels(device: torch.device) -> bool:
    """Whether the kernels are for this GPU. Where they are not, that is said once."""
    try:
        capability = torch.cuda.get_device_capability(device)
    except (RuntimeError, AssertionError):  # no GPU is here: PyTorch's fake tensors ask, to see what one would do
        return True
    return _is_supported(capability, is_nvidia=torch.version.hip is None)


def jit(**options) -> Callable:
    """A decorator that compiles a kernel when it is first launched. Without Triton none is.

    Args:
        options: of `triton.jit`.
    """
    return (lambda function: function) if triton is None else triton.jit(**options)


def power_of_2_from(number: int) -> int:
    """The smallest power of 2 that is not less than `number`."""
    return 1 << (number - 1).bit_length()


@cache
def _is_supported(capability: tuple[int, int], is_nvidia: bool) -> bool:
    if is_nvidia and capability >= OLDEST_CAPABILITY:
        return True
    found = f"this one has {_text(capability)}" if is_nvidia else "this one is another maker's"
    warnings.warn(
        f"AOT's Triton kernels are for NVIDIA GPUs from compute capability {_text(OLDEST_CAPABILITY)}, but {found}: "
        "their plain formulas are used instead, which are slower.",
        RuntimeWarning,
        stacklevel=2,
    )
    return False


def _raise_unless_of_the_kernel(error: Exception) -> None:
    text = str(error)
    if isinstance(error, torch.OutOfMemoryError) or OF_THE_GPU.search(text):
        raise error
    if "Triton Error [CUDA]: out of memory" in text:
        raise torch.OutOfMemoryError(text) from error


def _warn_of_failure(name: str, first: Tensor, error: Exception) -> None:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    warnings.warn(
        f"The Triton kernel of {name} failed. Its plain formula is used instead, which is slower, for "
        f"{str(first.dtype).removeprefix('torch.')} of {tuple(first.shape)} and its like ({reason}).",
        RuntimeWarning,
        stacklevel=3,
    )


def _shapes(*args) -> Hashable:
    return tuple(value.shape for value in args if isinstance(value, Tensor))


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))


def _launch_options() -> dict[str, bool]:
    # Triton 3.10 changes what it does by default: without fusion a kernel computes what its interpreter computes. The
    # products of `tl.dot` are fused in any case.
    try:
        from triton.backends.nvidia.compiler import CUDAOptions
    except ImportError:
        return {}
    return {"enable_fp_fusion": False} if hasattr(CUDAOptions, "enable_fp_fusion") else {}


# What every launch is given.
LAUNCH_OPTIONS = _launch_options()
