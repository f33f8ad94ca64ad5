"""Transport along time: later frames' tokens go into the first frame of their clip (Sec. 3.3, Algorithm 2).

A step takes the next frame of every clip that has one, against that clip's anchors. So the frames are laid out step by
step, the longest clips first: then the frames of a step are a slice, its clips are the first ones of the anchors, and
all places are known on the host before the first step. With clips of 3, 1 and 2 frames, numbered 012 3 45, the order
is 0 4 3 (first frames), 1 5, 2.
"""

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from .exact_products import exact_product
from .optimal_transport import aggregate, directions_of, nearest_anchor
from .recipe import Recipe
from .token_anchors import true_positions
from .token_budget import TokenBudget

# A row of the plan that is less has underflowed; what is left of it would say nothing about where the token goes.
SMALLEST_ROW_SUM = 1e-30


@dataclass(frozen=True)
class StepOrder:
    """The frames of a video by their distance to the first frame of their clip; of one distance, longer clips first.

    So the clips that still have a frame at some distance are always the first ones.

    Attributes:
        frames: (F) the frames in this order.
        places: (F) where each frame stands in it.
        clips_at: how many clips have a frame at distance 0, 1, ...
        clip_places: (K) where the first frame of each clip stands, in the order of the video.
    """

    frames: list[int]
    places: list[int]
    clips_at: list[int]
    clip_places: list[int]

    @classmethod
    def of(cls, clip_lengths: tuple[int, ...]) -> "StepOrder":
        """The order of a video whose clips have these lengths."""
        starts = [0, *accumulate(clip_lengths)]
        longest_first = sorted(range(len(clip_lengths)), key=lambda clip: -clip_lengths[clip])
        at = [[clip for clip in longest_first if clip_lengths[clip] > step] for step in range(max(clip_lengths))]
        frames = [starts[clip] + step for step, clips in enumerate(at) for clip in clips]
        places = sorted(range(len(frames)), key=frames.__getitem__)
        return cls(frames, places, list(map(len, at)), [places[start] for start in starts[:-1]])


def merge_along_time(
    tokens: Tensor,
    token_mask: Tensor | None,
    budget: TokenBudget,
    config,
    recipe: Recipe,
    num_compared: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Inter-frame transport (Eq. 13-16, Algorithm 2): one transport a step for all clips at once.

    Args:
        tokens: (F, n, D), the tokens of each frame.
        token_mask: (F, n), false where a row is padding; None where none is.
        num_compared: the first channels, by which tokens are compared; None for all.

    Returns:
        The video's tokens (B, D) clip by clip, and which tokens of later frames were kept as they are, (F, n) bool.
    """
    order = StepOrder.of(budget.clip_lengths)
    wanted_rows = recipe.output_rows(order.places, order.clip_places, budget.clip_lengths)
    by_step, by_frame, output_rows, quotas = numbers_on_device(
        [order.frames, order.places, wanted_rows, [budget.kept_per_frame[i] for i in order.frames]],
        tokens.device,
    )
    tokens = tokens[by_step]
    token_mask = None if token_mask is None else token_mask[by_step]
    directions = directions_of(tokens[..., :num_compared])
    merged_ranks = torch.arange(tokens.shape[1], device=tokens.device) >= quotas.unsqueeze(1)

    num_clips = order.clips_at[0]
    anchors, anchor_mask = tokens[:num_clips], None if token_mask is None else token_mask[:num_clips]
    merged = [torch.ones_like(merged_ranks[:num_clips])]
    start = num_clips
    for step, num_clips in enumerate(order.clips_at[1:], start=1):
        frames = slice(start, start + num_clips)
        updated, merged_now = merge_next_frame(
            anchors[:num_clips],
            tokens[frames],
            directions[frames],
            config,
            recipe,
            merged_ranks=merged_ranks[frames],
            step=step,
            anchor_mask=None if anchor_mask is None else anchor_mask[:num_clips],
            source_mask=None if token_mask is None else token_mask[frames],
        )
        merged.append(merged_now)
        anchors = updated if num_clips == len(anchors) else torch.cat([updated, anchors[num_clips:]])
        start += num_clips
    changed = ~torch.cat(merged) if token_mask is None else ~torch.cat(merged) & token_mask

    rows, kept = recipe.output(tokens, token_mask, anchors, changed)
    kept = kept[output_rows].flatten()
    count = budget.num_video_tokens if config.has_fixed_token_count else int(kept.sum())
    return rows[output_rows].flatten(0, 1)[true_positions(kept, count)], changed[by_frame]


def merge_next_frame(
    anchors: Tensor,
    sources: Tensor,
    source_directions: Tensor,
    config,
    recipe: Recipe,
    merged_ranks: Tensor | None = None,
    step: int = 1,
    anchor_mask: Tensor | None = None,
    source_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of Algorithm 2 (lines 6-11): the next frame of each clip against the clip's anchors.

    Args:
        anchors: (K, A, D).
        sources: (K, S, D), the next frame's tokens.
        source_directions: (K, S, D), the same with norm 1; or of the first channels alone, where only these are
            compared.
        merged_ranks: (K, S), by rank of q: false for as many as the frame keeps, where the recipe has an exact budget.
        step: distance in frames to the clips' first frames.
        anchor_mask, source_mask: (K, A) and (K, S), false where a row is padding.

    Returns:
        The updated anchors (K, A, D), and which sources went into them (K, S); the others changed and are kept.
    """
    compared = anchors[..., : source_directions.shape[-1]]
    similarity = exact_product(source_directions, directions_of(compared).transpose(-1, -2))
    cost = recipe.inter_frame_cost(similarity, step, source_mask, anchor_mask)
    plan = recipe.transport(cost, source_mask, anchor_mask)
    assignment = plan / plan.sum(-1, keepdim=True).clamp(min=SMALLEST_ROW_SUM)  # p_ij, Eq. 15
    confidence = assignment.detach().amax(-1)  # q_i
    merged = recipe.choose_merged(confidence, merged_ranks, source_mask)
    if config.inter_frame_aggregation == "none":
        return anchors, merged
    if config.inter_frame_aggregation == "cosine":
        if anchor_mask is not None:
            similarity = similarity.masked_fill(~anchor_mask.unsqueeze(-2), -math.inf)
        return aggregate(anchors, sources, nearest_anchor(similarity) * merged.unsqueeze(-1), 1.0), merged
    return aggregate(anchors, sources, assignment * merged.unsqueeze(-1), config.inter_frame_weight), merged


def numbers_on_device(lists: list[list[int]], device: torch.device) -> tuple[Tensor, ...]:
    """Lists of integers as tensors (n,), without a wait of the host."""
    numbers = [number for numbers in lists for number in numbers]
    if device.type == "cuda":
        # As arguments of a kernel. A copy would make the host wait or, from pinned memory, be made again whenever a
        # CUDA graph is replayed, whatever lies there then.
        together = torch.zeros(len(numbers), dtype=torch.int64, device=device)
        torch._foreach_add_(together.unbind(), numbers)
    else:
        together = torch.tensor(numbers, dtype=torch.int64, device=device)
    return together.split([len(numbers) for numbers in lists])
