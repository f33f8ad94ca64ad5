"""FastVID (arXiv 2503.11187, NeurIPS 2025): segments by scene; salient tokens of each frame, and density peaks.

Program: `LunarShen/FastVID` a40a109, `fastvid_llavaonevision` and `fastvid_llavavideo`. Settings of its scripts: c 8,
tau 0.9, d 0.4, p 4, beta 0.6. All tokens keep their position ids, and decoding goes on at the unreduced length.

The program reads the output and the attention of SigLIP's pooling head, which LLaVA checkpoints do not have:
`pooling_head.py` loads it. Without it, frame features are the mean over the patches and the attention is that received
at the last layer: a substitute, which a table has to name.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

import torch
from torch import Tensor

from .interface import Baseline, EncodedVideo, ReducedVideo, check_count, check_share, other_rows, take_rows
from .ranking import cosine_similarities, density_peak_scores, greatest

NUM_NEIGHBOURS = 4


def segment_lengths(frame_features: Tensor, num_segments: int, similarity_threshold: float) -> list[int]:
    """DySeg: cuts where neighbouring frames are least alike, at c - 1 places and wherever they are below tau.

    Args:
        frame_features: (F, C).

    Returns:
        The segments' numbers of frames.
    """
    similarity = torch.cosine_similarity(frame_features[:-1].float(), frame_features[1:].float(), dim=-1)
    cuts = set(greatest(-similarity, min(num_segments - 1, len(similarity))).tolist())
    cuts |= set((similarity < similarity_threshold).nonzero().flatten().tolist())
    borders = [0, *(cut + 1 for cut in sorted(cuts)), len(frame_features)]
    return [end - start for start, end in zip(borders, borders[1:])]


def fastvid(
    tokens: Tensor,
    attention: Tensor,
    segments: Sequence[int],
    *,
    retention_ratio: float,
    context_share: float = 0.4,
    frames_per_anchor: int = 4,
    beta: float = 0.6,
) -> tuple[Tensor, Tensor]:
    """The form for LLaVA-OneVision.

    Args:
        tokens: (F, P, D), after projector and pooling.
        attention: (F, P), of the pooling head.
        segments: of `segment_lengths`.

    Returns:
        (n, D), and their places in the video, (n,), in order.
    """
    num_places = tokens.shape[1]
    retained = int(num_places * retention_ratio)
    context = int(retained * context_share)
    salient = greatest(attention, retained - context)
    rest = other_rows(salient, num_places)
    rest_tokens = take_rows(tokens, rest)
    scores = density_peak_scores(rest_tokens, NUM_NEIGHBOURS)
    first_places = torch.arange(len(tokens), device=tokens.device).unsqueeze(1) * num_places

    kept, places = [take_rows(tokens, salient).flatten(0, 1)], [(first_places + salient).flatten()]
    for first, length in zip(accumulate(segments, initial=0), segments):
        anchor_frames = _anchor_frames(first, length, frames_per_anchor)
        per_frame = context * length // len(anchor_frames)
        of_segment = rest_tokens[first : first + length].flatten(0, 1)
        for frame in anchor_frames:
            anchors = greatest(scores[frame], per_frame)
            pool = rest_tokens[frame] if per_frame == context else of_segment
            kept.append(merge_into_anchors(rest_tokens[frame, anchors], pool, beta))
            places.append(first_places[frame] + rest[frame, anchors])
    return _in_order(kept, places)


def fastvid_llava_video(
    tokens: Tensor,
    attention: Tensor,
    segments: Sequence[int],
    newline: Tensor,
    *,
    retention_ratio: float,
    context_share: float = 0.4,
    frames_per_anchor: int = 4,
    beta: float = 0.6,
) -> tuple[Tensor, Tensor]:
    """The form for LLaVA-Video: shares are handed out without a remainder, and rows that keep a token their newline.

    Args:
        tokens, attention, segments: as `fastvid`.
        newline: (D,).

    Returns:
        (n, D), and their places in the video with a newline after each row, (n,), in order.
    """
    num_places = tokens.shape[1]
    side = math.isqrt(num_places)
    retained = int(num_places * retention_ratio)
    kept, places = [], []
    for first, length in zip(accumulate(segments, initial=0), segments):
        frames = range(first, first + length)
        anchor_frames = _anchor_frames(first, length, frames_per_anchor)
        context = int(retained * length * context_share)
        salient_counts = dict(zip(frames, _shares(retained * length - context, length)))
        # The last anchor frame gets the first share.
        anchor_counts = dict(zip(reversed(anchor_frames), _shares(context, len(anchor_frames))))
        of_segment = tokens[first : first + length].flatten(0, 1)
        is_rest = torch.ones(length, num_places, dtype=torch.bool, device=tokens.device)
        for frame in frames:
            salient = greatest(attention[frame], salient_counts[frame])
            is_rest[frame - first, salient] = False
            kept.append(tokens[frame, salient])
            places.append(frame * num_places + salient)
        for frame in anchor_frames:
            rest = is_rest[frame - first].nonzero().flatten()
            scores = density_peak_scores(tokens[frame, rest], NUM_NEIGHBOURS)
            anchors = rest[greatest(scores, anchor_counts[frame])].sort().values
            in_pool = is_rest.clone()
            in_pool[frame - first, anchors] = False
            kept.append(merge_into_anchors(tokens[frame, anchors], of_segment[in_pool.flatten()], beta))
            places.append(frame * num_places + anchors)
    ordered, ordered_places = _in_order(kept, places)
    rows = ordered_places // side
    used_rows = rows.unique()
    newlines = newline.to(ordered).expand(len(used_rows), -1)
    return _in_order([ordered, newlines], [ordered_places + rows, used_rows * (side + 1) + side])


def merge_into_anchors(anchors: Tensor, pool: Tensor, beta: float) -> Tensor:
    """Each pool token joins its most similar anchor, which becomes w * anchor + (1 - w) * mean of its n members.

    w = max(beta, 1 / (n + 1)).

    Args:
        anchors: (A, D); pool: (N, D), which may hold the anchors too.

    Returns:
        (A, D).
    """
    if len(anchors) == 0 or len(pool) == 0:
        return anchors
    nearest = cosine_similarities(pool, anchors).argmax(-1)
    members = torch.nn.functional.one_hot(nearest, len(anchors)).to(pool)
    counts = members.sum(0).unsqueeze(-1)
    weights = (1 / (counts + 1)).clamp(min=beta)
    return weights * anchors + (1 - weights) * (members.T @ pool / counts.clamp(min=1))


def _anchor_frames(first: int, length: int, frames_per_anchor: int) -> list[int]:
    # Counted from the segment's last frame.
    return [first + frame for frame in range(length) if (length - 1 - frame) % frames_per_anchor == 0]


def _shares(total: int, parts: int) -> list[int]:
    each, remainder = divmod(total, parts)
    return [each + (part < remainder) for part in range(parts)]


def _in_order(tokens: Sequence[Tensor], places: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    all_places, order = torch.cat(list(places)).sort()
    return torch.cat(list(tokens))[order], all_places


@dataclass(frozen=True)
class FastVID(Baseline):
    """FastVID.

    Attributes:
        retention_ratio: r; share of each frame's tokens, rounded down, of which a few are lost to rounding.
        num_segments: c, at least.
        similarity_threshold: tau.
        context_share: d.
        frames_per_anchor: p.
        beta: weight of an anchor against those that it stands for.
    """

    name: ClassVar[str] = "fastvid"
    newline_positions: ClassVar[tuple[str, ...]] = ("one_token", "grid")

    retention_ratio: float = 0.10
    num_segments: int = 8
    similarity_threshold: float = 0.9
    context_share: float = 0.4
    frames_per_anchor: int = 4
    beta: float = 0.6

    def __post_init__(self):
        super().__post_init__()
        check_count("num_segments", self.num_segments)
        check_count("frames_per_anchor", self.frames_per_anchor)
        check_share("context_share", self.context_share)
        check_share("beta", self.beta)

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        if not int(video.tokens.shape[1] * self.retention_ratio):
            raise ValueError(
                f"retention_ratio is {self.retention_ratio}, which keeps none of the {video.tokens.shape[1]} tokens "
                "of a frame: set a larger one."
            )
        segments = segment_lengths(video.frame_features, self.num_segments, self.similarity_threshold)
        settings = {
            "retention_ratio": self.retention_ratio,
            "context_share": self.context_share,
            "frames_per_anchor": self.frames_per_anchor,
            "beta": self.beta,
        }
        if video.newline_position == "grid":
            tokens, places = fastvid_llava_video(
                video.tokens, video.frame_attention, segments, video.newline, **settings
            )
            return ReducedVideo(tokens[:-1], places[:-1], end=int(places[-1]))
        tokens, places = fastvid(video.tokens, video.frame_attention, segments, **settings)
        return ReducedVideo(tokens, places, end=len(video.with_newlines()))

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        return num_frames * int(tokens_per_frame * self.retention_ratio)
