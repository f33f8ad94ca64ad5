"""Attention received in two launches, where PyTorch's operations write all scores to memory."""

import torch
from torch import Tensor

from .fused_kernels import constexpr, jit, tl, triton


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


@jit
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


@jit
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


@jit
def _load_rows(base, rows, stride, num_patches, width, BLOCK_WIDTH: constexpr):  # noqa: N803
    channels = tl.arange(0, BLOCK_WIDTH)
    inside = (rows < num_patches)[:, None] & (channels < width)[None, :]
    return tl.load(base + rows[:, None] * stride + channels[None, :], mask=inside, other=0.0)


@jit
def _scores(query, key, scale):
    # "ieee": float32 is multiplied as float32, not in the shorter format of the tensor cores.
    return tl.dot(query, tl.trans(key), input_precision="ieee") * scale
