"""Token anchors of a frame: the patches that receive most attention, locally and globally (Sec. 3.2, Eq. 6-8)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# Scores of one chunk of frames are held at a time; see `attention_received`.
MAX_SCORE_BYTES = 64 * 2**20


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

    The mean over heads and queries of `softmax(scale * q k^T)` in the patch's column, accumulated in float32. It ranks
    patches and nothing else, so no gradient is kept.

    The scores are computed for a few frames at a time: beyond inputs and result, this needs at most twice
    `MAX_SCORE_BYTES` (64 MiB), or twice one frame's scores (heads * N * N * 4 bytes) where those alone are larger.

    Args:
        queries, keys: (F, heads, N, d).
        scale: usually d ** -0.5.

    Returns:
        (F, N) float32; each row sums to 1.
    """
    with torch.no_grad():
        _, num_heads, num_patches, _ = queries.shape
        chunk = max(1, MAX_SCORE_BYTES // (4 * num_heads * num_patches * num_patches))
        received = [
            torch.softmax((q * scale) @ k.transpose(-1, -2), dim=-1, dtype=torch.float32).mean(dim=(1, 2))
            for q, k in zip(queries.split(chunk), keys.split(chunk))
        ]
        return torch.cat(received)


def select_token_anchors(
    local_attention: Tensor,
    global_attention: Tensor,
    num_anchors: int,
    window_size: int,
    local_ratio: float,
    fill_up: bool = True,
) -> TokenAnchors:
    """Chooses M anchors a frame: the best of each local window, then the best of the rest (Eq. 8).

    Equal scores: the patch of lower index wins.

    Args:
        local_attention: (F, N) scores that rank the patches of a window; N must be a square number.
        global_attention: (F, N) scores that rank all patches.
        num_anchors: M, from 1 to N.
        window_size: side of the non-overlapping windows; those at the edge are smaller where the grid does not divide.
        local_ratio: share of the anchors that is chosen locally.
        fill_up: give the places that the windows leave over (M * local_ratio does not divide by their number, or a
            window is too small) to global anchors, so that a frame has exactly M; the released program does not.
    """
    grid = math.isqrt(local_attention.shape[-1])
    local_budget = math.floor(num_anchors * local_ratio)
    per_window = local_budget // math.ceil(grid / window_size) ** 2
    num_local = _count_local_anchors(grid, window_size, per_window)
    num_global = num_anchors - (num_local if fill_up else local_budget)
    local = _best_of_each_window(local_attention, grid, window_size, per_window)
    global_ = best(global_attention.masked_fill(local, -math.inf), num_global)
    return TokenAnchors(local=local, global_=global_, count=num_local + num_global)


def random_token_anchors(
    num_frames: int, num_patches: int, num_anchors: int, seed: int, device: torch.device | str = "cpu"
) -> TokenAnchors:
    """Draws M patches of each frame uniformly, the same ones on every device (Sec. 9, Table 8)."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(num_frames, num_patches, generator=generator).to(device)
    chosen = best(scores, num_anchors)
    return TokenAnchors(local=torch.zeros_like(chosen), global_=chosen, count=num_anchors)


def best(scores: Tensor, count: int) -> Tensor:
    """Marks the `count` greatest scores of each row; of equal ones the first. (..., n) -> (..., n) bool."""
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order[..., :count], True)


def true_positions(mask: Tensor, count: int) -> Tensor:
    """Ascending positions of the true entries of each row, all of which have `count` or fewer (then padded).

    (..., n) -> (..., count). Unlike `nonzero`, it does not make the host wait for a GPU.
    """
    return mask.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices[..., :count]


def _best_of_each_window(scores: Tensor, grid: int, window_size: int, per_window: int) -> Tensor:
    num_frames, side = scores.shape[0], math.ceil(grid / window_size)
    missing = side * window_size - grid
    padded = functional.pad(scores.view(-1, grid, grid), (0, missing, 0, missing), value=-math.inf)
    windows = padded.view(num_frames, side, window_size, side, window_size).transpose(2, 3)
    chosen = best(windows.flatten(3), per_window) & windows.flatten(3).isfinite()
    chosen = chosen.view(windows.shape).transpose(2, 3).reshape(padded.shape)
    return chosen[:, :grid, :grid].flatten(1)


def _count_local_anchors(grid: int, window_size: int, per_window: int) -> int:
    sides = [min(window_size, grid - start) for start in range(0, grid, window_size)]
    return sum(min(per_window, height * width) for height in sides for width in sides)
