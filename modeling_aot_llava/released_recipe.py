"""What the authors' released program does otherwise than the paper says: `config.recipe = "released"`.

Their published accuracy came from that program. The paper does not print its constants.

F frames, N patches, P pooled positions, D channels, M anchors, K clips; n tokens of the frame that keeps most, others
are padded.
"""

import math
from itertools import islice

import torch
from torch import Tensor

from .exact_products import exact_dtype
from .recipe import Recipe
from .spatial_pooling import coverage_of, coverage_steps
from .token_anchors import true_positions
from .token_budget import TokenBudget, released_keep_ratio

POSITION_WEIGHT = 0.5
NEAREST_SHARE = 0.1
MIN_COVERAGE = 0.5
TIME_SCALE = 1.5
COSINE_MARGIN = 1e-6


class ReleasedRecipe(Recipe):
    """The released program's choices: which tokens are kept, and so how many, depends on the video."""

    sources_first = True
    fills_up_anchors = False
    nearest_share = NEAREST_SHARE
    largest_cost = 2.01 + POSITION_WEIGHT * math.sqrt(2)

    def __init__(self, config, budget: TokenBudget):
        super().__init__(config, budget)
        self.keep_ratio = released_keep_ratio(budget) if config.keep_ratio is None else config.keep_ratio

    def intra_frame_cost(
        self, similarity: Tensor, source_index: Tensor, anchor_index: Tensor, num_patches: int
    ) -> Tensor:
        """1 - cosine, and half the distance of the patches on the unit square: (F, N - M, M)."""
        side = torch.linspace(0, 1, math.isqrt(num_patches), dtype=torch.float32, device=similarity.device)
        positions = torch.cartesian_prod(side, side).view(num_patches, 2)
        positions = positions.to(exact_dtype(positions))  # the distances are made of products
        distances = torch.cdist(positions[source_index], positions[anchor_index]).to(similarity.dtype)
        return 1 - similarity + POSITION_WEIGHT * distances

    def choose_pooled_positions(self, is_anchor: Tensor, global_attention: Tensor, pooling: Tensor) -> Tensor:
        """All positions that the anchors cover by half or more, (F, P) bool; a frame may have none."""
        return coverage_of(is_anchor, pooling) >= MIN_COVERAGE * coverage_steps(len(pooling))

    def positions(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Where the kept positions are, in raster order, and which of these are no padding: (F, n) each."""
        counts = kept.sum(-1, keepdim=True)
        largest = max(1, int(counts.max()))
        return true_positions(kept, largest), torch.arange(largest, device=kept.device) < counts

    def inter_frame_cost(
        self, similarity: Tensor, step: int, source_mask: Tensor | None, anchor_mask: Tensor | None
    ) -> Tensor:
        """1 - cosine less its smallest value, weakened for frames that are near the clip's first: (K, S, A)."""
        cost = 1 - similarity.clamp(-1 + COSINE_MARGIN, 1 - COSINE_MARGIN)
        padding = torch.zeros_like(cost, dtype=torch.bool)
        if source_mask is not None and anchor_mask is not None:
            padding = ~(source_mask.unsqueeze(-1) & anchor_mask.unsqueeze(-2))
        smallest = cost.masked_fill(padding, math.inf).amin(dim=(-2, -1), keepdim=True)
        closeness_in_time = math.exp(-(step**2) / (2 * TIME_SCALE**2))
        return (cost - smallest).masked_fill(padding, 0) * (1 - closeness_in_time)

    def choose_merged(self, confidence: Tensor, merged_ranks: Tensor | None, source_mask: Tensor | None) -> Tensor:
        """The tokens whose q reaches the keep-ratio quantile of their frame: (K, S) bool, no padding."""
        # In float64, so that a quantile that is one of the values is not rounded past it.
        valid = (confidence if source_mask is None else confidence.masked_fill(~source_mask, math.nan)).double()
        return valid >= valid.nanquantile(self.keep_ratio, dim=-1, keepdim=True)

    def output_rows(self, places: list[int], clip_places: list[int], clip_lengths: tuple[int, ...]) -> list[int]:
        """Clip by clip: the original first frame, the later ones, then the final anchors.

        A clip of one frame has nothing to fold into its anchors: that frame comes once.
        """
        rows: list[int] = []
        frames = iter(places)
        for first, length in zip(clip_places, clip_lengths):
            rows += islice(frames, length)
            if length > 1:
                rows.append(len(places) + first)
        return rows

    def output(self, tokens: Tensor, token_mask: Tensor, anchors: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        """The final anchors come behind all frames."""
        num_clips = len(anchors)
        first_mask = token_mask[:num_clips]
        kept = torch.cat([first_mask, changed[num_clips:], first_mask])
        return torch.cat([tokens, anchors]), kept
