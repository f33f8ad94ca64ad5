"""What the paper says where its authors' released program does otherwise: `config.recipe = "paper"`.

F frames, N patches, P pooled positions, D channels, M anchors of which a frame keeps M_p on the pooled grid, K clips;
S sources and A anchors of a transport.
"""

import torch
from torch import Tensor

from .exact_products import exact_product
from .recipe import Recipe
from .spatial_pooling import coverage_of
from .token_anchors import true_positions


class PaperRecipe(Recipe):
    """Algorithms 1 and 2 as printed, under an exact budget."""

    sources_first = False
    fills_up_anchors = True
    nearest_share = 0.0
    largest_cost = 2.01

    def intra_frame_cost(
        self, similarity: Tensor, source_index: Tensor, anchor_index: Tensor, num_patches: int
    ) -> Tensor:
        """Eq. 9, of the similarity (F, N - M, M)."""
        return 1 - similarity

    def choose_pooled_positions(self, is_anchor: Tensor, global_attention: Tensor, pooling: Tensor) -> Tensor:
        """The M_p positions that the anchors cover most: (F, N) -> (F, P) bool.

        Of equally covered ones those of greater pooled global score, then of lower index.
        """
        by_score = exact_product(global_attention, pooling.T).sort(dim=-1, descending=True, stable=True).indices
        coverage = coverage_of(is_anchor, pooling)
        by_coverage = coverage.gather(1, by_score).sort(dim=-1, descending=True, stable=True).indices
        chosen = by_score.gather(1, by_coverage[:, : self.budget.pooled_anchors])
        return torch.zeros_like(coverage, dtype=torch.bool).scatter(1, chosen, True)

    def positions(self, kept: Tensor) -> tuple[Tensor, None]:
        """Where the kept positions are, in raster order: (F, P) bool -> (F, M_p), none of them padding."""
        return true_positions(kept, self.budget.pooled_anchors), None

    def inter_frame_cost(
        self, similarity: Tensor, step: int, source_mask: Tensor | None, anchor_mask: Tensor | None
    ) -> Tensor:
        """Eq. 13, of the similarity (K, S, A)."""
        return 1 - similarity

    def choose_merged(self, confidence: Tensor, merged_ranks: Tensor, source_mask: Tensor | None) -> Tensor:
        """All tokens but those of lowest q, its quota in number; with a threshold those that reach it."""
        if self.config.temporal_threshold is not None:
            return confidence >= self.config.temporal_threshold
        lowest_first = confidence.sort(dim=-1, stable=True).indices
        return torch.empty_like(merged_ranks).scatter_(1, lowest_first, merged_ranks)

    def output_rows(self, places: list[int], clip_places: list[int], clip_lengths: tuple[int, ...]) -> list[int]:
        """The frames one after the other."""
        return places

    def output(
        self, tokens: Tensor, token_mask: Tensor | None, anchors: Tensor, changed: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The final anchors take the place of the clips' first frames."""
        num_clips = len(anchors)
        kept = torch.cat([torch.ones_like(changed[:num_clips]), changed[num_clips:]])
        return torch.cat([anchors, tokens[num_clips:]]), kept
