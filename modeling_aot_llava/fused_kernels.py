"""Sinkhorn-Knopp and attention received as Triton kernels, for tensors on a GPU.

Made of PyTorch's operations the one is hundreds of short launches and the other writes all scores to memory. Here they
are one launch and two. `with_kernel` binds a kernel to the plain formula, which stays the truth and takes over where a
kernel cannot run: on a CPU, without Triton, where a gradient is asked for, or where the kernel fails.

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

# Costs of a problem that its program holds at a time. More would not stay in the registers.
SINKHORN_TILE = 8192


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
            return operator(*args) if _can_run_kernels(args) else plain(*args)

        choose.operator, choose.plain = operator, plain
        return choose

    return bind


def _can_run_kernels(args: tuple) -> bool:
    tensors = [value for value in args if isinstance(value, Tensor)]
    return (
        triton is not None
        and all(tensor.is_cuda for tensor in tensors)
        and tensors[0].dtype in KERNEL_DTYPES
        and tensors[0].numel() > 0
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
    )


def _jit(function: Callable) -> Callable:
    return function if triton is None else triton.jit(function)


# ------------------------------------------------------------------------------------ Sinkhorn-Knopp


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
    block_anchors = triton.next_power_of_2(num_anchors)
    block_sources = min(triton.next_power_of_2(num_sources), max(1, SINKHORN_TILE // block_anchors))
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
        num_warps=8 if block_sources * block_anchors >= SINKHORN_TILE else 4,
    )
    return plan


def _as_bytes(mask: Tensor | None, shape: tuple[int, ...]) -> Tensor | None:
    return None if mask is None else mask.expand(shape).contiguous().view(torch.uint8)


@_jit
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
            tl.store(log_source_scaling + rows, scaling, mask=rows < num_sources)
            change += tl.sum(tl.where(is_source, tl.abs(tl.exp(scaling) - tl.exp(previous)), 0.0))
            largest, total = _add_to_log_sum(largest, total, exponent + scaling[:, None])
        tl.debug_barrier()
        iteration += 1
        is_running = (iteration < max_iterations) & (change >= tolerance * count)
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


@_jit
def _is_token(mask, problem, places, count):
    is_token = places < count
    if mask is not None:
        is_token = is_token & (tl.load(mask + problem * count + places, mask=is_token, other=0) != 0)
    return is_token


@_jit
def _log_marginal(is_token, count):
    return tl.where(is_token, -tl.log(tl.maximum(count, 1.0)), -1e30)


@_jit
def _exponent(cost, rows, columns, num_sources, num_anchors, is_source, is_anchor, epsilon):
    # -1e30 stands for the logarithm of 0, as in the plain formula.
    inside = is_source[:, None] & is_anchor[None, :]
    values = tl.load(cost + rows[:, None] * num_anchors + columns[None, :], mask=inside, other=0.0)
    return tl.where(inside, -values.to(tl.float32) / epsilon, -1e30)


@_jit
def _add_to_log_sum(largest, total, exponent):
    # The running logarithm of a sum of exponentials, down the columns.
    new_largest = tl.maximum(largest, tl.max(exponent, axis=0))
    return new_largest, total * tl.exp(largest - new_largest) + tl.sum(tl.exp(exponent - new_largest[None, :]), axis=0)


# -------------------------------------------------------------------------------- attention received


def launch_attention_received(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """`token_anchors.attention_received` in two launches, without a score in memory.

    The first finds each query's largest score and the sum of its exponentials, the second sums the weights of each
    key over heads and queries. Both compute the scores, in float32.
    """
    num_frames, num_heads, num_patches, width = queries.shape
    queries, keys = (values if values.stride(-1) == 1 else values.contiguous() for values in (queries, keys))
    largest, total = torch.empty(
        2, num_frames, num_heads, num_patches, dtype=torch.float32, device=queries.device
    ).unbind()
    received = torch.empty(num_frames, num_patches, dtype=torch.float32, device=queries.device)
    # Blocks of queries and keys, with as many warps as keep them in the registers.
    block, num_warps = (32, 8) if queries.dtype == torch.float32 else (64, 4)
    blocks = triton.cdiv(num_patches, block)
    shape = {
        "num_heads": num_heads,
        "num_patches": num_patches,
        "width": width,
        "scale": scale,
        "BLOCK": block,
        "BLOCK_WIDTH": max(16, triton.next_power_of_2(width)),
        "num_warps": num_warps,
    }
    tensors = queries, keys, *queries.stride()[:3], *keys.stride()[:3], largest, total
    _softmax_sums_kernel[(blocks, num_frames * num_heads)](*tensors, **shape)
    _column_means_kernel[(blocks, num_frames)](*tensors, received, **shape)
    return received


@_jit
def _softmax_sums_kernel(
    queries,
    keys,
    query_frame,
    query_head,
    query_patch,
    key_frame,
    key_head,
    key_patch,
    largest_out,
    total_out,
    num_heads,
    num_patches,
    width,
    scale,
    BLOCK: constexpr,  # noqa: N803
    BLOCK_WIDTH: constexpr,  # noqa: N803
):
    frame_and_head = tl.program_id(1).to(tl.int64)
    frame, head = frame_and_head // num_heads, frame_and_head % num_heads
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    queries += frame * query_frame + head * query_head
    keys += frame * key_frame + head * key_head
    query = _load_rows(queries, rows, query_patch, num_patches, width, BLOCK_WIDTH)
    largest = tl.full([BLOCK], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for start in range(0, num_patches, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        key = _load_rows(keys, columns, key_patch, num_patches, width, BLOCK_WIDTH)
        scores = _scores(query, key, scale)
        scores = tl.where((columns < num_patches)[None, :], scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, axis=1))
        total = total * tl.exp(largest - new_largest) + tl.sum(tl.exp(scores - new_largest[:, None]), axis=1)
        largest = new_largest
    tl.store(largest_out + frame_and_head * num_patches + rows, largest, mask=rows < num_patches)
    tl.store(total_out + frame_and_head * num_patches + rows, total, mask=rows < num_patches)


@_jit
def _column_means_kernel(
    queries,
    keys,
    query_frame,
    query_head,
    query_patch,
    key_frame,
    key_head,
    key_patch,
    largest_in,
    total_in,
    received,
    num_heads,
    num_patches,
    width,
    scale,
    BLOCK: constexpr,  # noqa: N803
    BLOCK_WIDTH: constexpr,  # noqa: N803
):
    frame = tl.program_id(1).to(tl.int64)
    columns = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    means = tl.zeros([BLOCK], tl.float32)
    for head in range(num_heads):
        of_head = (frame * num_heads + head) * num_patches
        query_base = queries + frame * query_frame + head * query_head
        key_base = keys + frame * key_frame + head * key_head
        key = _load_rows(key_base, columns, key_patch, num_patches, width, BLOCK_WIDTH)
        for start in range(0, num_patches, BLOCK):
            rows = start + tl.arange(0, BLOCK)
            is_row = rows < num_patches
            query = _load_rows(query_base, rows, query_patch, num_patches, width, BLOCK_WIDTH)
            largest = tl.load(largest_in + of_head + rows, mask=is_row, other=0.0)
            total = tl.load(total_in + of_head + rows, mask=is_row, other=1.0)
            weights = tl.exp(_scores(query, key, scale) - largest[:, None]) / total[:, None]
            means += tl.sum(tl.where(is_row[:, None], weights, 0.0), axis=0)
    tl.store(received + frame * num_patches + columns, means / (num_heads * num_patches), mask=columns < num_patches)


@_jit
def _load_rows(base, rows, stride, num_patches, width, BLOCK_WIDTH: constexpr):  # noqa: N803
    channels = tl.arange(0, BLOCK_WIDTH)
    inside = (rows < num_patches)[:, None] & (channels < width)[None, :]
    return tl.load(base + rows[:, None] * stride + channels[None, :], mask=inside, other=0.0)


@_jit
def _scores(query, key, scale):
    # "ieee": float32 is multiplied as float32, not in the shorter format of the tensor cores.
    return tl.dot(query, tl.trans(key), input_precision="ieee") * scale
