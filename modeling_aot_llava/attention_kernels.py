"""Runs on GPUs: attention received in two launches, where PyTorch's operations write all scores to memory."""

import math

import torch
from torch import Tensor

from .fused_kernels import LAUNCH_OPTIONS, constexpr, jit, power_of_2_from, tl


def launch_attention_received(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """`token_anchors.attention_received` in two launches, without a score in memory.

    The first finds each query's largest score and the sum of its exponentials, the second sums the weights of each
    key over heads and queries. Both compute the scores, in float32.
    """
    num_frames, num_heads, num_patches, width = queries.shape
    queries, keys = (values if values.stride(-1) == 1 else values.contiguous() for values in (queries, keys))
    largest, total = (
        torch.empty(num_frames, num_heads, num_patches, dtype=torch.float32, device=queries.device) for _ in range(2)
    )
    received = torch.empty(num_frames, num_patches, dtype=torch.float32, device=queries.device)
    # Blocks of queries and keys, with as many warps as keep them in the registers.
    block, num_warps = (32, 8) if queries.dtype == torch.float32 else (64, 4)
    blocks = math.ceil(num_patches / block)
    shape = {
        "num_heads": num_heads,
        "num_patches": num_patches,
        "width": width,
        "scale": scale,
        "BLOCK": block,
        "BLOCK_WIDTH": max(16, power_of_2_from(width)),
        "num_warps": num_warps,
        **LAUNCH_OPTIONS,
    }
    tensors = queries, keys, *queries.stride()[:3], *keys.stride()[:3], largest, total
    # One axis, since CUDA allows no more than 65,535 programs along the others.
    _softmax_sums_kernel[(num_frames * num_heads * blocks,)](*tensors, **shape)
    _column_means_kernel[(num_frames * blocks,)](*tensors, received, **shape)
    return received


def attention_variant(queries: Tensor, keys: Tensor, scale: float) -> tuple:
    """What the kernels are compiled for, beside the dtype; takes what `launch_attention_received` takes."""
    return queries.shape[1:]


@jit(do_not_specialize=["num_heads", "num_patches"])
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
    blocks = tl.cdiv(num_patches, BLOCK)
    frame_and_head = (tl.program_id(0) // blocks).to(tl.int64)
    frame, head = frame_and_head // num_heads, frame_and_head % num_heads
    rows = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
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


@jit(do_not_specialize=["num_heads", "num_patches"])
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
    blocks = tl.cdiv(num_patches, BLOCK)
    frame = (tl.program_id(0) // blocks).to(tl.int64)
    columns = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
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


@jit()
def _load_rows(base, rows, stride, num_patches, width, BLOCK_WIDTH: constexpr):  # noqa: N803
    channels = tl.arange(0, BLOCK_WIDTH)
    inside = (rows < num_patches)[:, None] & (channels < width)[None, :]
    return tl.load(base + rows[:, None] * stride + channels[None, :], mask=inside, other=0.0)


@jit()
def _scores(query, key, scale):
    # "ieee": float32 is multiplied as float32, not in the shorter format of the tensor cores.
    return tl.dot(query, tl.trans(key), input_precision="ieee") * scale
