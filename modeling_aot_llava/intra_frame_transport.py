"""Transport within each frame: the other patches' information goes into the anchors (Sec. 3.3, Algorithm 1)."""

from torch import Tensor

from .optimal_transport import aggregate, cosine_similarity, nearest_anchor
from .recipe import Recipe


def aggregate_within_frames(
    features: Tensor,
    anchors: Tensor,
    anchor_index: Tensor,
    source_index: Tensor,
    config,
    recipe: Recipe,
    num_compared: int | None = None,
) -> Tensor:
    """Intra-frame transport (Eq. 9-12, Algorithm 1): the anchors after the other patches were folded into them.

    Args:
        features: (F, N, D).
        anchors: (F, M, D), those of `features` at `anchor_index`.
        anchor_index, source_index: (F, M) and (F, N - M), which patches are anchors and which are not, ascending.
        num_compared: the first channels, by which patches are compared; None for all.

    Returns:
        (F, M, D).
    """
    num_frames, num_patches, _ = features.shape
    num_anchors = anchor_index.shape[1]
    if config.intra_frame_aggregation == "none" or num_anchors == num_patches:
        return anchors
    source_rows = source_index.unsqueeze(-1).expand(-1, -1, num_anchors)
    similarity = cosine_similarity(features[..., :num_compared], anchors[..., :num_compared]).gather(1, source_rows)

    def fold(weights: Tensor, strength: float) -> Tensor:
        # The sources are never gathered: an anchor's own row in the grid gets weight zero instead.
        on_grid = weights.new_zeros(num_frames, num_patches, num_anchors).scatter(1, source_rows, weights)
        return aggregate(anchors, features, on_grid, strength)

    if config.intra_frame_aggregation == "cosine":
        return fold(nearest_anchor(similarity), 1.0)
    cost = recipe.intra_frame_cost(similarity, source_index, anchor_index, num_patches)
    transported = fold(recipe.transport(cost), config.intra_frame_weight)
    if not recipe.nearest_share:
        return transported
    nearest = fold(nearest_anchor(similarity), 1.0)
    return (1 - recipe.nearest_share) * transported + recipe.nearest_share * nearest
