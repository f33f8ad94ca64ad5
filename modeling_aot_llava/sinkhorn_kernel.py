"""Runs on GPUs: Sinkhorn-Knopp in one launch, where PyTorch's operations are a dozen an iteration."""

import torch
from torch import Tensor

from .fused_kernels import LAUNCH_OPTIONS, constexpr, jit, power_of_2_from, tl

# Costs of a problem that its program holds at a time. More would not stay in the registers.
SINKHORN_TILE = 8192
SMALLEST_BLOCK = 16


def sinkhorn_tile(num_sources: int, num_anchors: int) -> tuple[int, int]:
    """Sources and anchors of a problem that its program holds at a time.

    The kernel is compiled for each of them, so there are few: two for a power of 2 of anchors.
    """
    block_anchors = max(SMALLEST_BLOCK, power_of_2_from(num_anchors))
    block_sources = max(1, SINKHORN_TILE // block_anchors)
    return (min(block_sources, block_anchors) if num_sources <= block_anchors else block_sources), block_anchors


def num_warps_of(block_sources: int, block_anchors: int) -> int:
    """As many warps as keep such a tile in the registers."""
    return 8 if 2 * block_sources * block_anchors >= SINKHORN_TILE else 4


def sinkhorn_variant(cost: Tensor, source_mask: Tensor | None, anchor_mask: Tensor | None, *options) -> tuple:
    """What the kernel is compiled for, beside the dtype; takes what `launch_sinkhorn` takes."""
    return *sinkhorn_tile(*cost.shape[-2:]), source_mask is None, anchor_mask is None, options[3]


def launch_sinkhorn(
    cost: Tensor,
    source_mask: Tensor | None,
    anchor_mask: Tensor | None,
    epsilon: float,
    max_iterations: int,
    tolerance: float,
    sources_first: bool,
    largest_cost: float,
) -> Tensor:
    """`optimal_transport.sinkhorn` in one launch: a program a problem, all in logarithms.

    A problem's costs are read once an iteration, from the cache if they fit; no intermediate matrix is written.
    """
    num_sources, num_anchors = cost.shape[-2:]
    cost = cost.contiguous()
    plan = torch.empty_like(cost)
    log_source_scaling = torch.empty(cost.shape[:-1], dtype=torch.float32, device=cost.device)
    block_sources, block_anchors = sinkhorn_tile(num_sources, num_anchors)
    _sinkhorn_kernel[(cost.shape[:-2].numel(),)](
        cost,
        plan,
        log_source_scaling,
        _as_bytes(source_mask, cost.shape[:-1]),
        _as_bytes(anchor_mask, (*cost.shape[:-2], num_anchors)),
        num_sources,
        num_anchors,
        epsilon,
        max_iterations,
        tolerance,
        SOURCES_FIRST=sources_first,
        BLOCK_SOURCES=block_sources,
        BLOCK_ANCHORS=block_anchors,
        num_warps=num_warps_of(block_sources, block_anchors),
        **LAUNCH_OPTIONS,
    )
    return plan


def _as_bytes(mask: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    return None if mask is None else mask.expand(shape).contiguous().view(torch.uint8)


# No number of tokens is compiled in, nor where a mask lies: so videos of other lengths find their kernel compiled.
@jit(
    do_not_specialize=["num_sources", "num_anchors", "max_iterations"],
    do_not_specialize_on_alignment=["source_mask", "anchor_mask"],
)
def _sinkhorn_kernel(
    cost,
    plan,
    log_source_scaling,
    source_mask,
    anchor_mask,
    num_sources,
    num_anchors,
    epsilon,
    max_iterations,
    tolerance,
    SOURCES_FIRST: constexpr,  # noqa: N803
    BLOCK_SOURCES: constexpr,  # noqa: N803
    BLOCK_ANCHORS: constexpr,  # noqa: N803
):
    problem = tl.program_id(0).to(tl.int64)
    cost += problem * num_sources * num_anchors
    plan += problem * num_sources * num_anchors
    log_source_scaling += problem * num_sources
    columns = tl.arange(0, BLOCK_ANCHORS)
    is_anchor = _is_token(anchor_mask, problem, columns, num_anchors)
    log_anchor_marginal = _log_marginal(is_anchor, tl.sum(is_anchor.to(tl.float32)))

    count = tl.full([], 0.0, tl.float32)
    for start in range(0, num_sources, BLOCK_SOURCES):
        rows = start + tl.arange(0, BLOCK_SOURCES)
        count += tl.sum(_is_token(source_mask, problem, rows, num_sources).to(tl.float32))
        tl.store(log_source_scaling + rows, tl.zeros([BLOCK_SOURCES], tl.float32), mask=rows < num_sources)
    tl.debug_barrier()

    log_anchor_scaling = tl.zeros([BLOCK_ANCHORS], tl.float32)
    if not SOURCES_FIRST:
        # The anchors' first scaling answers sources that are all scaled by one.
        largest = tl.full([BLOCK_ANCHORS], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_ANCHORS], tl.float32)
        for start in range(0, num_sources, BLOCK_SOURCES):
            rows = start + tl.arange(0, BLOCK_SOURCES)
            is_source = _is_token(source_mask, problem, rows, num_sources)
            exponent = _exponent(cost, rows, columns, num_sources, num_anchors, is_source, is_anchor, epsilon)
            largest, total = _add_to_log_sum(largest, total, exponent)
        log_anchor_scaling = log_anchor_marginal - (largest + tl.log(total))

    iteration = tl.full([], 0, tl.int32)
    is_running = iteration < max_iterations
    while is_running:
        # One pass over the costs: the sources' scaling, and what the anchors' next one needs of it.
        largest = tl.full([BLOCK_ANCHORS], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_ANCHORS], tl.float32)
        change = tl.full([], 0.0, tl.float32)
        for start in range(0, num_sources, BLOCK_SOURCES):
            rows = start + tl.arange(0, BLOCK_SOURCES)
            is_source = _is_token(source_mask, problem, rows, num_sources)
            exponent = _exponent(cost, rows, columns, num_sources, num_anchors, is_source, is_anchor, epsilon)
            scaled = exponent + log_anchor_scaling[None, :]
            largest_of_row = tl.max(scaled, axis=1)
            log_sum = largest_of_row + tl.log(tl.sum(tl.exp(scaled - largest_of_row[:, None]), axis=1))
            previous = tl.load(log_source_scaling + rows, mask=rows < num_sources, other=0.0)
            scaling = _log_marginal(is_source, count) - log_sum
            # Several warps hold the same rows, and one of them stores: not before all have read.
            tl.debug_barrier()
            tl.store(log_source_scaling + rows, scaling, mask=rows < num_sources)
            change += tl.sum(tl.where(is_source, tl.abs(tl.exp(scaling) - tl.exp(previous)), 0.0))
            largest, total = _add_to_log_sum(largest, total, exponent + scaling[:, None])
        tl.debug_barrier()
        iteration += 1
        # Where scalings overflow the change is no number: go on, as the plain formula does.
        is_running = (iteration < max_iterations) & ((change < tolerance * count) == 0)
        if SOURCES_FIRST or is_running:
            log_anchor_scaling = log_anchor_marginal - (largest + tl.log(total))

    for start in range(0, num_sources, BLOCK_SOURCES):
        rows = start + tl.arange(0, BLOCK_SOURCES)
        is_source = _is_token(source_mask, problem, rows, num_sources)
        exponent = _exponent(cost, rows, columns, num_sources, num_anchors, is_source, is_anchor, epsilon)
        scaling = tl.load(log_source_scaling + rows, mask=rows < num_sources, other=0.0)
        tl.store(
            plan + rows[:, None] * num_anchors + columns[None, :],
            tl.exp(exponent + scaling[:, None] + log_anchor_scaling[None, :]),
            mask=(rows < num_sources)[:, None] & (columns < num_anchors)[None, :],
        )


@jit()
def _is_token(mask, problem, places, count):
    is_token = places < count
    if mask is not None:
        is_token = is_token & (tl.load(mask + problem * count + places, mask=is_token, other=0) != 0)
    return is_token


@jit()
def _log_marginal(is_token, count):
    return tl.where(is_token, -tl.log(tl.maximum(count, 1.0)), -1e30)


@jit()
def _exponent(cost, rows, columns, num_sources, num_anchors, is_source, is_anchor, epsilon):
    # -1e30 stands for the logarithm of 0, as in the plain formula.
    inside = is_source[:, None] & is_anchor[None, :]
    values = tl.load(cost + rows[:, None] * num_anchors + columns[None, :], mask=inside, other=0.0)
    return tl.where(inside, -values.to(tl.float32) / epsilon, -1e30)


@jit()
def _add_to_log_sum(largest, total, exponent):
    # The running logarithm of a sum of exponentials, down the columns.
    new_largest = tl.maximum(largest, tl.max(exponent, axis=0))
    return new_largest, total * tl.exp(largest - new_largest) + tl.sum(tl.exp(exponent - new_largest[None, :]), axis=0)
