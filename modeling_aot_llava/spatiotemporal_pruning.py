"""AOT from patch features to video tokens (arXiv 2603.01400, Sec. 3.3, Algorithms 1 and 2).

1. Token anchors of each frame on the patch grid            token_anchors
2. Intra-frame transport: the other patches' information    intra_frame_transport
   goes into the anchors
3. Spatial pooling as the base model does it; the pooled    spatial_pooling
   positions that the anchors cover stay
4. Frame clips                                              token_budget, frame_clips
5. Inter-frame transport: later frames' tokens that stay    inter_frame_transport
   the same go into the clip's first frame, those that
   change are kept

Where the authors' released program does otherwise than the paper, a recipe decides: paper_recipe, released_recipe.

F frames, N patches, P pooled positions, D channels, M anchors, K clips; n is the number of tokens that a frame
keeps in step 3 (M_p; padded to the largest frame in the released recipe).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional

from .exact_products import without_autocast
from .frame_clips import dynamic_clip_lengths
from .inter_frame_transport import merge_along_time, numbers_on_device
from .intra_frame_transport import aggregate_within_frames
from .paper_recipe import PaperRecipe
from .recipe import Recipe
from .released_recipe import ReleasedRecipe
from .spatial_pooling import insert_newlines, pool_kept_positions, pooling_matrix
from .token_anchors import (
    TokenAnchors,
    random_token_anchors,
    select_token_anchors,
    true_positions,
    true_positions_first,
)
from .token_budget import FrameGrid, TokenBudget, newline_places, plan_token_budget


@dataclass
class VideoTokens:
    """What is left of a video, and what a picture of it needs.

    Attributes:
        tokens: (B, D), without newline tokens; the row count depends on the video where
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

    @property
    def places(self) -> Tensor:
        """(B,): where each token stands, frame * P + position, ascending.

        Not in the released recipe with clips of several frames, which has tokens twice.
        """
        (starts,) = numbers_on_device([[0, *accumulate(self.clip_lengths[:-1])]], self.temporal_kept.device)
        kept = self.temporal_kept.clone()
        kept[starts] = self.pooled_kept[starts]
        return true_positions(kept.flatten(), len(self.tokens))


@dataclass
class FrameTokens:
    """What steps 1 to 3 leave of some frames. No frame depends on another, so a long video is read in parts.

    Attributes:
        tokens: (F, n, D) float32, the tokens of each frame, in raster order; a frame that keeps fewer is padded.
        anchors: token anchors on the patch grid, masks of (F, N).
        pooled_kept: (F, P) bool, the pooled positions of the tokens.
        dtype: that of the patch features, which the video's tokens will have again.
        num_compared: the first channels, by which tokens are compared; None for all.
    """

    tokens: Tensor
    anchors: TokenAnchors
    pooled_kept: Tensor
    dtype: torch.dtype
    num_compared: int | None = None

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
        pooled_kept = torch.cat([part.pooled_kept for part in parts])
        return replace(parts[0], tokens=torch.cat(padded), anchors=anchors, pooled_kept=pooled_kept)


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
    frames = config.frames_at_once
    parts = [
        compress_frames(
            patch_features[first : first + frames],
            local_attention[first : first + frames],
            global_attention[first : first + frames],
            budget,
            config,
            first_frame=first,
        )
        for first in range(0, len(patch_features), frames)
    ]
    return compress_along_time(FrameTokens.join(parts), budget, config, frame_features)


def compress_frames(
    patch_features: Tensor,
    local_attention: Tensor,
    global_attention: Tensor,
    budget: TokenBudget,
    config,
    first_frame: int = 0,
    num_compared: int | None = None,
) -> FrameTokens:
    """Steps 1 to 3: what some frames of a video keep before they are compared with each other.

    Args:
        patch_features, local_attention, global_attention: as in `compress_video_features`, of these frames.
        budget: that of the whole video.
        first_frame: where these frames begin in the video.
        num_compared: channels beyond so many ride along: they are folded with the same weights, but say nothing of
            how alike tokens are. By default all are compared.

    Raises:
        ValueError: if the config does not fit the shapes.
    """
    _check_shapes(patch_features, local_attention, global_attention, budget.grid)
    with without_autocast(patch_features.device):
        features, global_attention = patch_features.float(), global_attention.float()
        recipe = recipe_of(config, budget)
        anchors = _choose_anchors(local_attention.float(), global_attention, budget, config, recipe, first_frame)
        is_anchor = anchors.all
        anchor_index, source_index = true_positions_first(is_anchor).tensor_split([anchors.count], dim=1)
        old_anchors = _take(features, anchor_index)
        new_anchors = aggregate_within_frames(
            features, old_anchors, anchor_index, source_index, config, recipe, num_compared
        )

        pooling = pooling_matrix(budget.grid.patches, features.device, budget.grid.pooling)
        kept = recipe.choose_pooled_positions(is_anchor, global_attention, pooling)
        index, _ = recipe.positions(kept)
        tokens = pool_kept_positions(features, new_anchors - old_anchors, anchor_index, index, pooling)
    return FrameTokens(tokens, anchors, pooled_kept=kept, dtype=patch_features.dtype, num_compared=num_compared)


def compress_along_time(
    frames: FrameTokens, budget: TokenBudget, config, frame_features: Tensor | None = None
) -> VideoTokens:
    """Steps 4 and 5 on all frames of a video.

    Args:
        frames: of `compress_frames`, with the same budget.
        frame_features: (F, Dv); needed for dynamic clips only.
    """
    with without_autocast(frames.tokens.device):
        if config.clip_segmentation == "dynamic":
            budget = budget.with_clips(_dynamic_clips(frame_features, budget, config))
        recipe = recipe_of(config, budget)
        index, token_mask = recipe.positions(frames.pooled_kept)
        video_tokens, changed = merge_along_time(
            frames.tokens, token_mask, budget, config, recipe, frames.num_compared
        )
    return VideoTokens(
        tokens=video_tokens.to(frames.dtype),
        anchors=frames.anchors,
        pooled_kept=frames.pooled_kept,
        temporal_kept=torch.zeros_like(frames.pooled_kept).scatter(1, index, changed),
        clip_lengths=budget.clip_lengths,
    )


def add_newlines(video: VideoTokens, newline: Tensor, config) -> Tensor:
    """The tokens with the newline tokens that `config.compressed_newline_position` asks for: (B + newlines, D).

    All of them, also those of rows and frames that keep no token: so their number is known beforehand, and the n-th
    newline still tells which row or frame ends here. They are outside the budget, and no transport sees them.

    Args:
        newline: (D,).
    """
    position = config.compressed_newline_position
    places = newline_places(len(video.pooled_kept), config.pooled_grid_size, position)
    if position in ("one_token", "no_token"):  # whatever the order of the tokens
        return torch.cat([video.tokens, newline.to(video.tokens).expand(len(places), -1)])
    return insert_newlines(video.tokens, video.places, newline, places)


def with_base_newlines(videos: Tensor, newline: Tensor, config) -> Tensor:
    """Uncompressed videos with the newline tokens of the base model: (videos, F * P, D) -> (videos, n, D)."""
    num_frames = videos.shape[1] // config.pooled_grid_size**2
    ends = newline_places(num_frames, config.pooled_grid_size, config.mm_newline_position)
    places = torch.arange(videos.shape[1], dtype=torch.long, device=videos.device)
    return torch.stack([insert_newlines(tokens, places, newline, ends) for tokens in videos])


def recipe_of(config, budget: TokenBudget) -> Recipe:
    """The recipe that the config names, for one video. Nothing else asks for the name."""
    return (ReleasedRecipe if config.recipe == "released" else PaperRecipe)(config, budget)


def _choose_anchors(
    local_attention: Tensor,
    global_attention: Tensor,
    budget: TokenBudget,
    config,
    recipe: Recipe,
    first_frame: int,
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
        fill_up=recipe.fills_up_anchors,
        grid=budget.grid.patches,
    )


def _dynamic_clips(frame_features: Tensor, budget: TokenBudget, config) -> tuple[int, ...]:
    return dynamic_clip_lengths(
        frame_features,
        num_clips=len(budget.clip_lengths),
        similarity_threshold=config.dynamic_similarity_threshold,
        max_clips=min(len(frame_features), budget.num_video_tokens // budget.pooled_anchors),
    )


def _take(features: Tensor, index: Tensor) -> Tensor:
    return features.gather(1, index.unsqueeze(-1).expand(-1, -1, features.shape[-1]))


def _check_shapes(patch_features: Tensor, local_attention: Tensor, global_attention: Tensor, grid: FrameGrid) -> None:
    num_frames, num_patches = patch_features.shape[:2]
    if num_patches != grid.num_patches:
        height, width = grid.patches
        raise ValueError(
            f"`patch_features` has {num_patches} patches a frame, but the vision tower makes {height} x {width}."
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
