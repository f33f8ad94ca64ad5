"""Each kernel against its plain formula, over sizes and types: how far apart they are, and which is faster."""

import statistics
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.measure import seconds
from modeling_aot_llava import fused_kernels
from modeling_aot_llava.optimal_transport import sinkhorn
from modeling_aot_llava.token_anchors import attention_received

# Problems, sources, anchors: tiles of all sizes, the paper's among them (a frame's patches; a clip's pooled tokens).
TRANSPORTS = ((1, 1, 1), (3, 8, 8), (5, 9, 3), (7, 65, 17), (32, 603, 126), (8, 34, 34), (64, 162, 34), (70_000, 4, 2))
# Frames, heads, patches, width of a head.
ATTENTIONS = ((1, 1, 1, 16), (2, 3, 65, 72), (1, 16, 729, 72), (32, 16, 729, 72), (70_000, 1, 4, 16))
SMALL = 10_000  # values of the inputs that a CPU computes at once
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# Of scores that are rounded to these types before the softmax.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}


def compare_kernels(device: torch.device, repeats: int, is_small: bool) -> dict[str, Any]:
    """Every size and type: the largest relative difference, seconds of both, and whether a kernel ran at all."""
    rows = []
    for shape in TRANSPORTS:
        cost = 2 * torch.rand(shape, device=device)
        if not (is_small and cost.numel() > SMALL):
            rows.append(_compare("sinkhorn", shape, cost.dtype, (cost,), sinkhorn, repeats))
    for shape in ATTENTIONS:
        for dtype in DTYPES:
            queries, keys = torch.randn(2, *shape, device=device).to(dtype).unbind()
            if not (is_small and queries.numel() > SMALL):
                given = queries, keys, shape[-1] ** -0.5
                rows.append(_compare("attention_received", shape, dtype, given, attention_received, repeats))
    wrong = [row for row in rows if row["largest_difference"] > TOLERANCES[getattr(torch, row["dtype"])]]
    ran = [row for row in rows if row["kernel_ran"]]
    faster = [row["plain_seconds"] / row["kernel_seconds"] for row in ran]
    says = f"{len(rows)} sizes, kernels ran in {len(ran)}, wrong in {len(wrong)}"
    if ran:
        says += f"; {statistics.median(faster):.2f} times as fast as the formulas (median)"
    section: dict[str, Any] = {"rows": rows, "says": says}
    return {**section, "error": f"wrong: {wrong}"} if wrong else section


def _compare(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, given: tuple, function: Callable[..., Tensor], repeats: int
) -> dict[str, Any]:
    device = given[0].device
    with_kernel = function(*given)
    kernel_seconds, plain_seconds = [], []
    with patch.object(fused_kernels, "can_run_kernels", return_value=False):
        plain = function(*given)
    for _ in range(repeats):
        kernel_seconds.append(seconds(lambda: function(*given), device))
        with patch.object(fused_kernels, "can_run_kernels", return_value=False):
            plain_seconds.append(seconds(lambda: function(*given), device))
    return {
        "kernel": name,
        "shape": list(shape),
        "dtype": str(dtype).removeprefix("torch."),
        "kernel_ran": fused_kernels.can_run_kernels(given),
        "largest_difference": float(((with_kernel - plain).abs() / plain.abs().clamp(min=plain.abs().mean())).max()),
        "kernel_seconds": statistics.median(kernel_seconds),
        "plain_seconds": statistics.median(plain_seconds),
    }
