"""Dynamic clips: cut a video where its content changes (Sec. 8; FastVID's DySeg).

Uniform clips need no features: `token_budget` plans them. `StepOrder` lays out the frames of either for the transport
along time.
"""

from dataclasses import dataclass
from itertools import accumulate

from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class StepOrder:
    """The frames of a video by their distance to the first frame of their clip; of one distance, longer clips first.

    So the clips that still have a frame at some distance are always the first ones.

    Attributes:
        frames: (F) the frames in this order.
        places: (F) where each frame stands in it.
        clips_at: how many clips have a frame at distance 0, 1, ...
        clip_ranks: (K) where the first frame of each clip stands, in the order of the video.
        clip_lengths: (K) frames of each clip, in the order of the video.
    """

    frames: list[int]
    places: list[int]
    clips_at: list[int]
    clip_ranks: list[int]
    clip_lengths: tuple[int, ...]

    @classmethod
    def of(cls, clip_lengths: tuple[int, ...]) -> "StepOrder":
        """The order of a video whose clips have these lengths."""
        starts = [0, *accumulate(clip_lengths)]
        longest_first = sorted(range(len(clip_lengths)), key=lambda clip: -clip_lengths[clip])
        at = [[clip for clip in longest_first if clip_lengths[clip] > step] for step in range(max(clip_lengths))]
        frames = [starts[clip] + step for step, clips in enumerate(at) for clip in clips]
        places = sorted(range(len(frames)), key=frames.__getitem__)
        return cls(frames, places, list(map(len, at)), [places[start] for start in starts[:-1]], clip_lengths)


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
