"""Transport along time: later frames' tokens go into the first frame of their clip (Sec. 3.3, Algorithm 2).

A step takes one frame of every clip that is long enough, so the frames are laid out by step first. What a step needs
is then a slice, and all places are known on the host before the first one.
"""

import math

import torch
from torch import Tensor

from .exact_products import exact_product
from .frame_clips import StepOrder
from .optimal_transport import aggregate, directions_of, nearest_anchor
from .paper_recipe import PaperRecipe
from .token_anchors import true_positions
from .token_budget import TokenBudget

# A row of the plan that is less has underflowed; what is left of it would say nothing about where the token goes.
SMALLEST_ROW_SUM = 1e-30


def merge_along_time(
    tokens: Tensor, token_mask: Tensor | None, budget: TokenBudget, config, recipe: PaperRecipe
) -> tuple[Tensor, Tensor]:
    """Inter-frame transport (Eq. 13-16, Algorithm 2): one transport a step for all clips at once.

    Args:
        tokens: (F, n, D), the tokens of each frame.
        token_mask: (F, n), false where a row is padding; None where none is.

    Returns:
        The video's tokens (B, D) clip by clip, and which tokens of later frames were kept as they are, (F, n) bool.
    """
    order = StepOrder.of(budget.clip_lengths)
    by_step, by_frame, output_rows, quotas = _on_device(
        [order.frames, order.places, recipe.output_rows(order), [budget.kept_per_frame[i] for i in order.frames]],
        tokens.device,
    )
    tokens = tokens[by_step]
    token_mask = None if token_mask is None else token_mask[by_step]
    directions = directions_of(tokens)
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
    recipe: PaperRecipe,
    merged_ranks: Tensor | None = None,
    step: int = 1,
    anchor_mask: Tensor | None = None,
    source_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of Algorithm 2 (lines 6-11): the next frame of each clip against the clip's anchors.

    Args:
        anchors: (K, A, D).
        sources: (K, S, D), the next frame's tokens.
        source_directions: (K, S, D), the same with norm 1.
        merged_ranks: (K, S), by rank of q: false for as many as the frame keeps, where the recipe has an exact budget.
        step: distance in frames to the clips' first frames.
        anchor_mask, source_mask: (K, A) and (K, S), false where a row is padding.

    Returns:
        The updated anchors (K, A, D), and which sources went into them (K, S); the others changed and are kept.
    """
    similarity = exact_product(source_directions, directions_of(anchors).transpose(-1, -2))
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


def _on_device(lists: list[list[int]], device: torch.device) -> tuple[Tensor, ...]:
    # One copy, which a GPU's host does not wait for.
    together = torch.tensor([number for numbers in lists for number in numbers], dtype=torch.int64, device="cpu")
    return together.to(device, non_blocking=True).split([len(numbers) for numbers in lists])
