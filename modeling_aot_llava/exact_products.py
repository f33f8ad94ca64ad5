"""Products in float32's own precision, whatever the process allows for its others.

AOT ranks tokens by what comes out of products: costs, coverage, attention. PyTorch can be told to shorten the factors
of float32 products, to TF32 on a GPU and to bfloat16 on a CPU, and autocast does so, too; another token would win.
Those switches belong to whoever set them, so they are read and never set: where they are on, the products are made in
float64. Where they are off nothing is different.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def exact_dtype(values: Tensor) -> torch.dtype:
    """In which such values are to be multiplied: in float32 or better, and in float64 where float32 is shortened."""
    if values.dtype == torch.float64 or _shortens_float32(values.device.type):
        return torch.float64
    return torch.float32


def exact_product(left: Tensor, right: Tensor) -> Tensor:
    """`left @ right`, in the dtype of the factors."""
    with without_autocast(left.device):
        if not _is_shortened(left):
            return left @ right
        return _in_float64(torch.matmul, left, right)


def exact_sum_with_product(added: Tensor, left: Tensor, right: Tensor, alpha: float = 1.0) -> Tensor:
    """`added + alpha * left @ right` of batches of matrices, in the dtype of the factors."""
    with without_autocast(left.device):
        if not _is_shortened(left):
            return torch.baddbmm(added, left, right, alpha=alpha)
        return _in_float64(lambda *terms: torch.baddbmm(*terms, alpha=alpha), added, left, right)


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Within it, operations on this device compute in the dtype of their inputs."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _in_float64(operation: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    if any(values.dim() != 3 or len(values) != len(tensors[0]) for values in tensors):
        return operation(*(values.double() for values in tensors)).float()
    # One matrix of a batch at a time: a copy of all in float64 would be larger than what the vision tower needs.
    of_batch = zip(*(values.split(1) for values in tensors))
    return torch.cat([operation(*(matrix.double() for matrix in matrices)).float() for matrices in of_batch])


def _is_shortened(values: Tensor) -> bool:
    return values.dtype == torch.float32 and _shortens_float32(values.device.type)


@torch.compiler.assume_constant_result
def _shortens_float32(device_type: str) -> bool:
    if device_type not in ("cuda", "cpu"):
        return False
    backend = torch.backends.cuda if device_type == "cuda" else torch.backends.mkldnn
    # PyTorch from 2.9 has a switch for each device; the older ones cannot be read where both kinds were used.
    precision = getattr(getattr(backend, "matmul", None), "fp32_precision", None)
    if precision is None:
        return torch.get_float32_matmul_precision() != "highest"
    return precision not in ("none", "ieee")
