"""Transport along time: later frames' tokens go into the first frame of their clip (Sec. 3.3, Algorithm 2)."""

import math

import torch
from torch import Tensor

from .frame_clips import first_frames
from .optimal_transport import aggregate, cosine_similarity, nearest_anchor
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
    clip_lengths = budget.clip_lengths
    starts = first_frames(clip_lengths)
    anchors = tokens[starts]
    anchor_mask = None if token_mask is None else token_mask[starts]
    changed = torch.zeros_like(tokens[..., 0], dtype=torch.bool)
    for step in range(1, max(clip_lengths)):
        clips = [clip for clip, length in enumerate(clip_lengths) if length > step]
        frames = [starts[clip] + step for clip in clips]
        updated, changed[frames] = merge_next_frame(
            anchors[clips],
            tokens[frames],
            config,
            recipe,
            quota=tokens.new_tensor([budget.kept_per_frame[frame] for frame in frames]),
            step=step,
            anchor_mask=None if anchor_mask is None else anchor_mask[clips],
            source_mask=None if token_mask is None else token_mask[frames],
        )
        anchors = anchors.index_copy(0, torch.tensor(clips, device=anchors.device), updated)
    rows, kept = recipe.arrange(tokens, token_mask, anchors, changed, clip_lengths)
    count = budget.num_video_tokens if config.has_fixed_token_count else int(kept.sum())
    return rows.flatten(0, 1)[true_positions(kept.flatten(), count)], changed


def merge_next_frame(
    anchors: Tensor,
    sources: Tensor,
    config,
    recipe: PaperRecipe,
    quota: Tensor | None = None,
    step: int = 1,
    anchor_mask: Tensor | None = None,
    source_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of Algorithm 2 (lines 6-11): the next frame of each clip against the clip's anchors.

    Args:
        anchors: (K, A, D).
        sources: (K, S, D), the next frame's tokens.
        quota: (K,), tokens that each frame keeps, where the recipe has an exact budget.
        step: distance in frames to the clips' first frames.
        anchor_mask, source_mask: (K, A) and (K, S), false where a row is padding.

    Returns:
        The updated anchors (K, A, D), and which sources changed and are kept as they are (K, S).
    """
    similarity = cosine_similarity(sources, anchors)
    cost = recipe.inter_frame_cost(similarity, step, source_mask, anchor_mask)
    plan = recipe.transport(cost, source_mask, anchor_mask)
    assignment = plan / plan.sum(-1, keepdim=True).clamp(min=SMALLEST_ROW_SUM)  # p_ij, Eq. 15
    confidence = assignment.detach().amax(-1)  # q_i
    changed = recipe.choose_changed(confidence, quota, source_mask)
    merged = ~changed if source_mask is None else ~changed & source_mask
    if config.inter_frame_aggregation == "none":
        return anchors, changed
    if config.inter_frame_aggregation == "cosine":
        if anchor_mask is not None:
            similarity = similarity.masked_fill(~anchor_mask.unsqueeze(-2), -math.inf)
        return aggregate(anchors, sources, nearest_anchor(similarity) * merged.unsqueeze(-1), 1.0), changed
    return aggregate(anchors, sources, assignment * merged.unsqueeze(-1), config.inter_frame_weight), changed
