"""AOT from patch features to video tokens (arXiv 2603.01400, Sec. 3.3, Algorithms 1 and 2).

1. Token anchors of each frame on the patch grid            token_anchors
2. Intra-frame transport: the other patches' information    `aggregate_within_frames`
   goes into the anchors
3. Spatial pooling as the base model does it; the pooled    `choose_pooled_positions`, `pool_kept_positions`
   positions that the anchors cover stay
4. Frame clips                                              token_budget, frame_clips
5. Inter-frame transport: later frames' tokens that stay    `merge_along_time`
   the same go into the clip's first frame, those that
   change are kept

F frames, N = G * G patches, P pooled positions, D channels, M anchors, K clips; n is the number of tokens that a frame
keeps in step 3 (M_p; padded to the largest frame in the released recipe).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from .frame_clips import dynamic_clip_lengths
from .optimal_transport import aggregate, cosine_similarity, nearest_anchor, sinkhorn
from .token_anchors import TokenAnchors, best, random_token_anchors, select_token_anchors, true_positions
from .token_budget import TokenBudget, plan_token_budget, released_keep_ratio

# As many frames as the paper samples are encoded and compressed at a time: a longer video takes no more memory for it.
FRAMES_AT_ONCE = 32

# The released program's constants, which the paper does not print.
RELEASED_POSITION_WEIGHT = 0.5
RELEASED_NEAREST_SHARE = 0.1
RELEASED_MIN_COVERAGE = 0.5
RELEASED_TIME_SCALE = 1.5
RELEASED_COSINE_MARGIN = 1e-6

# 1 - cosine is at most 2, and the released program adds half a distance on the unit square. Rounding is allowed for.
LARGEST_COST = 2 + RELEASED_POSITION_WEIGHT * math.sqrt(2) + 0.01

# A row of the plan that is less has underflowed; what is left of it would say nothing about where the token goes.
SMALLEST_ROW_SUM = 1e-30

# Coverages that differ by less are rounding of the same number: bilinear weights are multiples of 1 / (G + 1)**2.
COVERAGE_STEP = 1e-5


@dataclass
class VideoTokens:
    """What is left of a video, and what a picture of it needs.

    Attributes:
        tokens: (B, D), without the newline token; the row count depends on the video where
            `config.has_fixed_token_count` is false.
        anchors: token anchors on the patch grid, masks of (F, N).
        pooled_kept: (F, P) bool, the pooled positions that each frame keeps before the frames are compared.
        temporal_kept: (F, P) bool, the positions of later frames whose tokens are kept as they are.
        clip_lengths: frames of each clip.
    """

    tokens: Tensor
    anchors: TokenAnchors
    pooled_kept: Tensor
    temporal_kept: Tensor
    clip_lengths: tuple[int, ...]


@dataclass
class FrameTokens:
    """What steps 1 to 3 leave of some frames. No frame depends on another, so a long video is read in parts.

    Attributes:
        tokens: (F, n, D) float32, the tokens of each frame, in raster order; a frame that keeps fewer is padded.
        anchors: token anchors on the patch grid, masks of (F, N).
        pooled_kept: (F, P) bool, the pooled positions of the tokens.
        dtype: that of the patch features, which the video's tokens will have again.
    """

    tokens: Tensor
    anchors: TokenAnchors
    pooled_kept: Tensor
    dtype: torch.dtype

    @classmethod
    def join(cls, parts: Sequence["FrameTokens"]) -> "FrameTokens":
        """The parts of a video, one after the other."""
        if len(parts) == 1:
            return parts[0]
        longest = max(part.tokens.shape[1] for part in parts)
        padded = [functional.pad(part.tokens, (0, 0, 0, longest - part.tokens.shape[1])) for part in parts]
        anchors = TokenAnchors(
            local=torch.cat([part.anchors.local for part in parts]),
            global_=torch.cat([part.anchors.global_ for part in parts]),
            count=parts[0].anchors.count,
        )
        return cls(torch.cat(padded), anchors, torch.cat([part.pooled_kept for part in parts]), parts[0].dtype)


def compress_video_features(
    patch_features: Tensor,
    local_attention: Tensor,
    global_attention: Tensor,
    config,
    frame_features: Tensor | None = None,
    num_video_tokens: int | None = None,
) -> VideoTokens:
    """Compresses one video. Runs in float32 whatever the input's dtype, and is differentiable.

    Args:
        patch_features: (F, N, D), patch tokens after the multimodal projector.
        local_attention, global_attention: (F, N), attention received at the two layers.
        config: an `AOTLlavaOnevisionConfig`.
        frame_features: (F, Dv), one global feature a frame; needed for dynamic clips only.
        num_video_tokens: B as the prompt has it; by default B follows from `config.retention_ratio`.

    Returns:
        `VideoTokens`; `.tokens` has `plan_token_budget(config, F, num_video_tokens).num_video_tokens` rows where
        `config.has_fixed_token_count`, and the dtype of `patch_features`.

    Raises:
        ValueError: if the config is invalid or does not fit the shapes.
    """
    budget = plan_token_budget(config, len(patch_features), num_video_tokens)
    _check_frame_features(frame_features, len(patch_features), config)
    parts = [
        compress_frames(
            patch_features[first : first + FRAMES_AT_ONCE],
            local_attention[first : first + FRAMES_AT_ONCE],
            global_attention[first : first + FRAMES_AT_ONCE],
            budget,
            config,
            first_frame=first,
        )
        for first in range(0, len(patch_features), FRAMES_AT_ONCE)
    ]
    return compress_along_time(FrameTokens.join(parts), budget, config, frame_features)


def compress_frames(
    patch_features: Tensor,
    local_attention: Tensor,
    global_attention: Tensor,
    budget: TokenBudget,
    config,
    first_frame: int = 0,
) -> FrameTokens:
    """Steps 1 to 3: what some frames of a video keep before they are compared with each other.

    Args:
        patch_features, local_attention, global_attention: as in `compress_video_features`, of these frames.
        budget: that of the whole video.
        first_frame: where these frames begin in the video.

    Raises:
        ValueError: if the config does not fit the shapes.
    """
    _check_shapes(patch_features, local_attention, global_attention, config)
    with torch.autocast(patch_features.device.type, enabled=False):
        features, global_attention = patch_features.float(), global_attention.float()
        anchors = _choose_anchors(local_attention.float(), global_attention, budget, config, first_frame)
        anchor_index = true_positions(anchors.all, anchors.count)
        old_anchors = _take(features, anchor_index)
        new_anchors = aggregate_within_frames(features, old_anchors, anchor_index, config)

        pooling = pooling_matrix(config.patch_grid_size, features.device)
        kept = choose_pooled_positions(anchors.all, global_attention, pooling, budget, config)
        index, _ = _positions(kept, budget, config)
        tokens = pool_kept_positions(features, new_anchors - old_anchors, anchor_index, index, pooling)
    return FrameTokens(tokens=tokens, anchors=anchors, pooled_kept=kept, dtype=patch_features.dtype)


def compress_along_time(
    frames: FrameTokens, budget: TokenBudget, config, frame_features: Tensor | None = None
) -> VideoTokens:
    """Steps 4 and 5 on all frames of a video.

    Args:
        frames: of `compress_frames`, with the same budget.
        frame_features: (F, Dv); needed for dynamic clips only.
    """
    with torch.autocast(frames.tokens.device.type, enabled=False):
        if config.clip_segmentation == "dynamic":
            budget = budget.with_clips(_dynamic_clips(frame_features, budget, config))
        index, token_mask = _positions(frames.pooled_kept, budget, config)
        video_tokens, changed = merge_along_time(frames.tokens, token_mask, budget, config)
    return VideoTokens(
        tokens=video_tokens.to(frames.dtype),
        anchors=frames.anchors,
        pooled_kept=frames.pooled_kept,
        temporal_kept=torch.zeros_like(frames.pooled_kept).scatter(1, index, changed),
        clip_lengths=budget.clip_lengths,
    )


def aggregate_within_frames(features: Tensor, anchors: Tensor, anchor_index: Tensor, config) -> Tensor:
    """Intra-frame transport (Eq. 9-12, Algorithm 1): the anchors after the other patches were folded into them.

    Args:
        features: (F, N, D).
        anchors: (F, M, D), those of `features` at `anchor_index`.
        anchor_index: (F, M), ascending.

    Returns:
        (F, M, D).
    """
    num_frames, num_patches, _ = features.shape
    num_anchors = anchor_index.shape[1]
    if config.intra_frame_aggregation == "none" or num_anchors == num_patches:
        return anchors
    is_source = torch.ones_like(features[..., 0], dtype=torch.bool).scatter(1, anchor_index, False)
    source_index = true_positions(is_source, num_patches - num_anchors)
    source_rows = source_index.unsqueeze(-1).expand(-1, -1, num_anchors)
    similarity = cosine_similarity(features, anchors).gather(1, source_rows)

    def fold(weights: Tensor, strength: float) -> Tensor:
        # The sources are never gathered: an anchor's own row in the grid gets weight zero instead.
        on_grid = weights.new_zeros(num_frames, num_patches, num_anchors).scatter(1, source_rows, weights)
        return aggregate(anchors, features, on_grid, strength)

    if config.intra_frame_aggregation == "cosine":
        return fold(nearest_anchor(similarity), 1.0)
    if config.recipe == "paper":
        return fold(_transport(1 - similarity, config), config.intra_frame_weight)
    cost = 1 - similarity + RELEASED_POSITION_WEIGHT * _patch_distances(source_index, anchor_index, num_patches)
    transported = fold(_transport(cost, config), config.intra_frame_weight)
    nearest = fold(nearest_anchor(similarity), 1.0)
    return (1 - RELEASED_NEAREST_SHARE) * transported + RELEASED_NEAREST_SHARE * nearest


def pooling_matrix(grid: int, device: torch.device | str = "cpu") -> Tensor:
    """The base model's spatial pooling as a matrix (P, N): bilinear, to half the grid's side rounded up."""
    one_hot_patches = torch.eye(grid * grid, device=device).view(grid * grid, 1, grid, grid)
    side = math.ceil(grid / 2)
    return functional.interpolate(one_hot_patches, size=(side, side), mode="bilinear").flatten(1).T


def choose_pooled_positions(
    is_anchor: Tensor, global_attention: Tensor, pooling: Tensor, budget: TokenBudget, config
) -> Tensor:
    """The pooled positions that a frame keeps, by how much of them the anchors cover: (F, N) -> (F, P) bool.

    `paper`: the M_p positions of greatest coverage; of equally covered ones those of greater pooled global score, then
    of lower index. `released`: all that are covered by half or more.
    """
    coverage = (is_anchor.float() @ pooling.T / COVERAGE_STEP).round()
    if config.recipe == "released":
        return coverage * COVERAGE_STEP >= RELEASED_MIN_COVERAGE - COVERAGE_STEP / 2
    by_score = (global_attention @ pooling.T).sort(dim=-1, descending=True, stable=True).indices
    chosen = best(coverage.gather(1, by_score), budget.pooled_anchors)
    return torch.zeros_like(chosen).scatter(1, by_score, chosen)


def pool_kept_positions(
    features: Tensor, anchor_changes: Tensor, anchor_index: Tensor, kept_index: Tensor, pooling: Tensor
) -> Tensor:
    """Pools the grid, with its anchors updated, at the kept positions alone.

    The updated grid itself is never made: pooling is linear, so the anchors' changes are pooled by themselves.

    Args:
        features: (F, N, D), the grid before the update.
        anchor_changes: (F, M, D), new anchors minus old ones; their places are `anchor_index`, (F, M).
        kept_index: (F, n), positions on the pooled grid.
        pooling: (P, N).

    Returns:
        (F, n, D).
    """
    weights = pooling[kept_index]
    anchor_columns = anchor_index.unsqueeze(1).expand(-1, weights.shape[1], -1)
    return weights @ features + weights.gather(2, anchor_columns) @ anchor_changes


def merge_along_time(tokens: Tensor, token_mask: Tensor | None, budget: TokenBudget, config) -> tuple[Tensor, Tensor]:
    """Inter-frame transport (Eq. 13-16, Algorithm 2): one transport a step for all clips at once.

    Args:
        tokens: (F, n, D), the tokens of each frame.
        token_mask: (F, n), false where a row is padding; None where none is.

    Returns:
        The video's tokens (B, D) clip by clip, and which tokens of later frames were kept as they are, (F, n) bool.
    """
    clip_lengths = budget.clip_lengths
    starts = [sum(clip_lengths[:clip]) for clip in range(len(clip_lengths))]
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
            quota=tokens.new_tensor([budget.kept_per_frame[frame] for frame in frames]),
            keep_ratio=released_keep_ratio(budget) if config.keep_ratio is None else config.keep_ratio,
            step=step,
            anchor_mask=None if anchor_mask is None else anchor_mask[clips],
            source_mask=None if token_mask is None else token_mask[frames],
        )
        anchors = anchors.index_copy(0, torch.tensor(clips, device=anchors.device), updated)
    if config.recipe == "released":
        rows, kept = _first_frames_and_final_anchors(tokens, token_mask, anchors, anchor_mask, changed, clip_lengths)
    else:
        rows = tokens.index_copy(0, torch.tensor(starts, device=tokens.device), anchors)
        kept = changed.index_fill(0, torch.tensor(starts, device=tokens.device), True)
    count = budget.num_video_tokens if config.has_fixed_token_count else int(kept.sum())
    return rows.flatten(0, 1)[true_positions(kept.flatten(), count)], changed


def merge_next_frame(
    anchors: Tensor,
    sources: Tensor,
    config,
    quota: Tensor | None = None,
    keep_ratio: float | None = None,
    step: int = 1,
    anchor_mask: Tensor | None = None,
    source_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of Algorithm 2 (lines 6-11): the next frame of each clip against the clip's anchors.

    Args:
        anchors: (K, A, D).
        sources: (K, S, D), the next frame's tokens.
        quota: (K,), tokens that each frame keeps: `paper` without `config.temporal_threshold`.
        keep_ratio: share of the tokens that a frame keeps: `released`.
        step: distance in frames to the clips' first frames.
        anchor_mask, source_mask: (K, A) and (K, S), false where a row is padding.

    Returns:
        The updated anchors (K, A, D), and which sources changed and are kept as they are (K, S).
    """
    plan = inter_frame_plan(anchors, sources, config, step, anchor_mask, source_mask)
    assignment = plan / plan.sum(-1, keepdim=True).clamp(min=SMALLEST_ROW_SUM)  # p_ij, Eq. 15
    confidence = assignment.detach().amax(-1)  # q_i
    if config.recipe == "released":
        # In float64, so that a quantile that is one of the values is not rounded past it.
        valid = (confidence if source_mask is None else confidence.masked_fill(~source_mask, math.nan)).double()
        changed = valid < valid.nanquantile(keep_ratio, dim=-1, keepdim=True)
    elif config.temporal_threshold is not None:
        changed = confidence < config.temporal_threshold
    else:
        rank = confidence.sort(dim=-1, stable=True).indices.argsort(dim=-1)
        changed = rank < quota.unsqueeze(-1)
    merged = ~changed if source_mask is None else ~changed & source_mask
    if config.inter_frame_aggregation == "none":
        return anchors, changed
    if config.inter_frame_aggregation == "cosine":
        similarity = cosine_similarity(sources, anchors)
        if anchor_mask is not None:
            similarity = similarity.masked_fill(~anchor_mask.unsqueeze(-2), -math.inf)
        return aggregate(anchors, sources, nearest_anchor(similarity) * merged.unsqueeze(-1), 1.0), changed
    return aggregate(anchors, sources, assignment * merged.unsqueeze(-1), config.inter_frame_weight), changed


def inter_frame_plan(
    anchors: Tensor,
    sources: Tensor,
    config,
    step: int = 1,
    anchor_mask: Tensor | None = None,
    source_mask: Tensor | None = None,
) -> Tensor:
    """The transport plan between frames (Eq. 13-14): (K, A, D), (K, S, D) -> (K, S, A).

    The released program takes the smallest cost as zero and lets costs grow with the distance in time.
    """
    similarity = cosine_similarity(sources, anchors)
    if config.recipe == "paper":
        return _transport(1 - similarity, config, source_mask, anchor_mask)
    cost = 1 - similarity.clamp(-1 + RELEASED_COSINE_MARGIN, 1 - RELEASED_COSINE_MARGIN)
    padding = torch.zeros_like(cost, dtype=torch.bool)
    if source_mask is not None and anchor_mask is not None:
        padding = ~(source_mask.unsqueeze(-1) & anchor_mask.unsqueeze(-2))
    smallest = cost.masked_fill(padding, math.inf).amin(dim=(-2, -1), keepdim=True)
    closeness_in_time = math.exp(-(step**2) / (2 * RELEASED_TIME_SCALE**2))
    cost = (cost - smallest).masked_fill(padding, 0) * (1 - closeness_in_time)
    return _transport(cost, config, source_mask, anchor_mask)


def _transport(cost: Tensor, config, source_mask: Tensor | None = None, anchor_mask: Tensor | None = None) -> Tensor:
    return sinkhorn(
        cost,
        epsilon=config.sinkhorn_epsilon,
        max_iterations=config.sinkhorn_iterations,
        tolerance=config.sinkhorn_tolerance,
        source_mask=source_mask,
        anchor_mask=anchor_mask,
        sources_first=config.recipe == "released",
        largest_cost=LARGEST_COST,
    )


def _choose_anchors(
    local_attention: Tensor, global_attention: Tensor, budget: TokenBudget, config, first_frame: int
) -> TokenAnchors:
    if config.anchor_selection == "random":
        return random_token_anchors(
            *local_attention.shape, budget.patch_anchors, config.anchor_seed, local_attention.device, first_frame
        )
    return select_token_anchors(
        local_attention,
        global_attention,
        num_anchors=budget.patch_anchors,
        window_size=config.local_window_size,
        local_ratio=config.local_anchor_ratio,
        fill_up=config.recipe == "paper",
    )


def _positions(kept: Tensor, budget: TokenBudget, config) -> tuple[Tensor, Tensor | None]:
    # Kept positions stay in raster order. The released recipe keeps more in one frame than in another: pad.
    if config.recipe == "paper":
        return true_positions(kept, budget.pooled_anchors), None
    counts = kept.sum(-1, keepdim=True)
    largest = max(1, int(counts.max()))
    return true_positions(kept, largest), torch.arange(largest, device=kept.device) < counts


def _dynamic_clips(frame_features: Tensor, budget: TokenBudget, config) -> tuple[int, ...]:
    return dynamic_clip_lengths(
        frame_features,
        num_clips=len(budget.clip_lengths),
        similarity_threshold=config.dynamic_similarity_threshold,
        max_clips=min(len(frame_features), budget.num_video_tokens // budget.pooled_anchors),
    )


def _first_frames_and_final_anchors(tokens, token_mask, anchors, anchor_mask, changed, clip_lengths):
    # Released output, clip by clip: the original first frame, the kept tokens, then the final anchors.
    row_order: list[int] = []
    for clip, length in enumerate(clip_lengths):
        start = sum(clip_lengths[:clip])
        row_order.extend([*range(start, start + length), len(tokens) + clip])
    starts = [sum(clip_lengths[:clip]) for clip in range(len(clip_lengths))]
    kept = changed.clone()
    kept[starts] = token_mask[starts]
    return torch.cat([tokens, anchors])[row_order], torch.cat([kept, anchor_mask])[row_order]


def _patch_distances(source_index: Tensor, anchor_index: Tensor, num_patches: int) -> Tensor:
    side = torch.linspace(0, 1, math.isqrt(num_patches), device=source_index.device)
    positions = torch.cartesian_prod(side, side).view(num_patches, 2)
    return torch.cdist(positions[source_index], positions[anchor_index])


def _take(features: Tensor, index: Tensor) -> Tensor:
    return features.gather(1, index.unsqueeze(-1).expand(-1, -1, features.shape[-1]))


def _check_shapes(patch_features: Tensor, local_attention: Tensor, global_attention: Tensor, config) -> None:
    num_frames, num_patches = patch_features.shape[:2]
    grid = config.patch_grid_size
    if num_patches != grid * grid:
        raise ValueError(
            f"`patch_features` has {num_patches} patches a frame, but the config's vision tower has {grid} x {grid}."
        )
    for name, attention in (("local_attention", local_attention), ("global_attention", global_attention)):
        if attention.shape != (num_frames, num_patches):
            raise ValueError(
                f"`{name}` has the shape {tuple(attention.shape)}, but must have {(num_frames, num_patches)}, one "
                "score a patch of `patch_features`."
            )


def _check_frame_features(frame_features: Tensor | None, num_frames: int, config) -> None:
    if config.clip_segmentation != "dynamic":
        return
    if frame_features is None or len(frame_features) != num_frames:
        shape = None if frame_features is None else tuple(frame_features.shape)
        raise ValueError(
            f'`frame_features` is {shape}, but clip_segmentation="dynamic" needs ({num_frames}, Dv): one global '
            "feature a frame."
        )
