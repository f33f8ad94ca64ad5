"""Dynamic clips: cut a video where its content changes (Sec. 8; FastVID's DySeg).

Uniform clips need no features: `token_budget` plans them.
"""

from torch import Tensor
from torch.nn import functional


def dynamic_clip_lengths(
    frame_features: Tensor, num_clips: int, similarity_threshold: float, max_clips: int
) -> tuple[int, ...]:
    """Cuts between frames t and t + 1 where they are least similar.

    A cut is made where the cosine similarity of the two frames' global features is among the `num_clips - 1` smallest
    or below `similarity_threshold`, but never more than `max_clips - 1` cuts: the least dissimilar give way first. Of
    equally similar places the earlier one is cut first.

    Args:
        frame_features: (F, Dv), one global feature a frame.
        num_clips: K, from 1 to F.
        similarity_threshold: from -1 to 1.
        max_clips: the number of clips that the token budget can anchor, at least `num_clips`.

    Returns:
        The frames of each clip, in order; they sum to F.
    """
    features = frame_features.detach().float()
    # The number of steps along time follows from this, so here the host has to wait for a GPU.
    similarities = functional.cosine_similarity(features[:-1], features[1:], dim=-1).cpu().tolist()
    most_dissimilar_first = sorted(range(len(similarities)), key=lambda place: similarities[place])
    num_below = sum(similarity < similarity_threshold for similarity in similarities)
    num_cuts = min(max(num_clips - 1, num_below), max_clips - 1)
    starts = [0, *sorted(place + 1 for place in most_dissimilar_first[:num_cuts])]
    return tuple(end - start for start, end in zip(starts, [*starts[1:], len(features)]))
