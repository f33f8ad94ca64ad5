"""Token anchors of a frame: the patches that receive most attention, locally and globally (Sec. 3.2, Eq. 6-8)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .attention_kernels import attention_variant, launch_attention_received
from .exact_products import exact_dtype, without_autocast
from .fused_kernels import with_kernel

# Scores are made and used up in chunks: on a CPU such as stay in its cache (4 times faster than one frame's 34 MB at
# once), on a GPU such as keep it busy.
MAX_SCORE_BYTES = {"cpu": 8 * 2**20, "cuda": 64 * 2**20}


@dataclass
class TokenAnchors:
    """Which patches of each frame are anchors: two disjoint boolean masks, (F, N), and how many a frame has."""

    local: Tensor
    global_: Tensor
    count: int

    @property
    def all(self) -> Tensor:
        """(F, N), true for every anchor."""
        return self.local | self.global_


def attention_received(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    """The attention each patch receives (Eq. 6-7 without a [CLS] token).

    The mean over heads and queries of `softmax(scale * q k^T)` in the patch's column; the scores, too, are float32,
    whatever the dtype of queries and keys. It ranks patches and nothing else, so no gradient is kept.

    The scores are computed for a few frames at a time, or for a few heads of one frame: beyond inputs and result, this
    needs at most twice `MAX_SCORE_BYTES`, or twice one head's scores (N * N * 4 bytes) where those alone are larger,
    and as many of the queries and keys in float32, where they are not.

    Args:
        queries, keys: (F, heads, N, d).
        scale: usually d ** -0.5.

    Returns:
        (F, N) float32; each row sums to 1.
    """
    with without_autocast(queries.device):
        return _attention_received(queries.detach(), keys.detach(), scale)


def _empty_result(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    num_frames, _, num_patches, _ = queries.shape
    return torch.empty(num_frames, num_patches, dtype=torch.float32, device=queries.device)


@with_kernel("attention_received", launch_attention_received, _empty_result, attention_variant)
def _attention_received(queries: Tensor, keys: Tensor, scale: float) -> Tensor:
    _, num_heads, num_patches, _ = queries.shape
    dtype = exact_dtype(queries)
    heads_at_once = max(1, _max_score_bytes(queries.device) // (dtype.itemsize * num_patches * num_patches))
    frames_at_once = max(1, heads_at_once // num_heads)

    def summed_over_heads(q: Tensor, k: Tensor) -> Tensor:
        scores = (q.to(dtype) * scale) @ k.to(dtype).transpose(-1, -2)
        return torch.softmax(scores, dim=-1, dtype=torch.float32).mean(dim=2).sum(dim=1)

    received = [
        sum(
            summed_over_heads(q, k)
            for q, k in zip(frame_queries.split(heads_at_once, dim=1), frame_keys.split(heads_at_once, dim=1))
        )
        for frame_queries, frame_keys in zip(queries.split(frames_at_once), keys.split(frames_at_once))
    ]
    return torch.cat(received) / num_heads


def _max_score_bytes(device: torch.device) -> int:
    return MAX_SCORE_BYTES.get(device.type, MAX_SCORE_BYTES["cuda"])


def select_token_anchors(
    local_attention: Tensor,
    global_attention: Tensor,
    num_anchors: int,
    window_size: int,
    local_ratio: float,
    fill_up: bool = True,
    grid: tuple[int, int] | None = None,
) -> TokenAnchors:
    """Chooses M anchors a frame: the best of each local window, then the best of the rest (Eq. 8).

    Equal scores: the patch of lower index wins.

    Args:
        local_attention: (F, N) scores that rank the patches of a window.
        global_attention: (F, N) scores that rank all patches.
        num_anchors: M, from 1 to N.
        window_size: side of the non-overlapping windows; those at the edge are smaller where the grid does not divide.
        local_ratio: share of the anchors that is chosen locally.
        fill_up: give the places that the windows leave over (M * local_ratio does not divide by their number, or a
            window is too small) to global anchors, so that a frame has exactly M; the released program does not.
        grid: height and width of the patch grid; by default it is square.
    """
    grid = grid or (math.isqrt(local_attention.shape[-1]),) * 2
    local_budget = math.floor(num_anchors * local_ratio)
    per_window = local_budget // math.prod(math.ceil(side / window_size) for side in grid)
    num_local = _count_local_anchors(grid, window_size, per_window)
    num_global = num_anchors - (num_local if fill_up else local_budget)
    local = _best_of_each_window(local_attention, grid, window_size, per_window)
    global_ = best(global_attention.masked_fill(local, -math.inf), num_global)
    return TokenAnchors(local=local, global_=global_, count=num_local + num_global)


def random_token_anchors(
    num_frames: int,
    num_patches: int,
    num_anchors: int,
    seed: int,
    device: torch.device | str = "cpu",
    first_frame: int = 0,
) -> TokenAnchors:
    """Draws M patches of each frame uniformly (Sec. 9, Table 8).

    What frame `first_frame + i` of a video gets depends on the seed alone, not on the device or on the frames around.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    scores = torch.rand(
        (first_frame + num_frames, num_patches),
        generator=generator,
        dtype=torch.float32,
        device="cpu",
        pin_memory=torch.device(device).type == "cuda",  # so that the host need not wait for the copy
    )
    chosen = best(scores[first_frame:].to(device, non_blocking=True), num_anchors)
    return TokenAnchors(local=torch.zeros_like(chosen), global_=chosen, count=num_anchors)


def best(scores: Tensor, count: int) -> Tensor:
    """Marks the `count` greatest scores of each row; of equal ones the first. (..., n) -> (..., n) bool."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order[..., :count], True)


def true_positions(mask: Tensor, count: int) -> Tensor:
    """Ascending positions of the true entries of each row, all of which have `count` or fewer (then padded).

    (..., n) -> (..., count). Unlike `nonzero`, it does not make the host wait for a GPU.
    """
    return true_positions_first(mask)[..., :count]


def true_positions_first(mask: Tensor) -> Tensor:
    """The positions of each row's true entries, then those of its false ones, both ascending: (..., n) -> (..., n)."""
    return mask.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices


def _best_of_each_window(scores: Tensor, grid: tuple[int, int], window_size: int, per_window: int) -> Tensor:
    height, width = grid
    rows, columns = (math.ceil(side / window_size) for side in grid)
    missing = (0, columns * window_size - width, 0, rows * window_size - height)
    padded = functional.pad(scores.view(-1, height, width), missing, value=-math.inf)
    windows = padded.view(-1, rows, window_size, columns, window_size).transpose(2, 3)
    chosen = best(windows.flatten(3), per_window) & (windows.flatten(3) > -math.inf)
    chosen = chosen.view(windows.shape).transpose(2, 3).reshape(padded.shape)
    return chosen[:, :height, :width].flatten(1)


def _count_local_anchors(grid: tuple[int, int], window_size: int, per_window: int) -> int:
    heights, widths = ([min(window_size, side - start) for start in range(0, side, window_size)] for side in grid)
    return sum(min(per_window, height * width) for height in heights for width in widths)
