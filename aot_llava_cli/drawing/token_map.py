"""What becomes of each frame's patches and tokens: all that a picture of the compression shows."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from modeling_aot_llava.spatiotemporal_pruning import VideoTokens
from modeling_aot_llava.token_budget import FrameGrid


@dataclass(frozen=True)
class FrameMap:
    """One frame; (G, G) stands for height and width of its patch grid, (S, S) for those of its pooled grid.

    Attributes:
        clip: the clip that it is in, from 0.
        opens_clip: whether it is the first frame of its clip.
        local_anchors, global_anchors: (G, G) bool, on the patch grid.
        kept: (S, S) bool, the pooled positions whose tokens the language model reads.
        merged_along_time: (S, S) bool, the positions whose tokens went into the first frame of the clip.
        times_read: how often the language model reads a kept token. In the released recipe a first frame comes as it
            is and, where the clip has later frames, once more with those merged in.
    """

    clip: int
    opens_clip: bool
    local_anchors: np.ndarray
    global_anchors: np.ndarray
    kept: np.ndarray
    merged_along_time: np.ndarray
    times_read: int

    @property
    def anchors(self) -> np.ndarray:
        """(G, G) bool, all of them."""
        return self.local_anchors | self.global_anchors

    @property
    def num_tokens(self) -> int:
        """Tokens of this frame that the language model reads; over all frames they sum to the video's."""
        return int(self.kept.sum()) * self.times_read


def map_frames(video: VideoTokens, config, grid: FrameGrid | None = None) -> list[FrameMap]:
    """Maps every frame of a compressed video.

    Args:
        video: what `compress_videos` returned for it.
        config: the model's AOT config at that time.
        grid: of its frames, where these are not square.
    """
    patches, pooled = (None, None) if grid is None else (grid.patches, grid.pooled)
    clips = [(clip, step, length) for clip, length in enumerate(video.clip_lengths) for step in range(length)]
    masks = zip(
        _as_grids(video.anchors.local, patches),
        _as_grids(video.anchors.global_, patches),
        _as_grids(video.pooled_kept, pooled),
        _as_grids(video.temporal_kept, pooled),
    )
    return [
        FrameMap(
            clip=clip,
            opens_clip=step == 0,
            local_anchors=local,
            global_anchors=global_,
            kept=before_time if step == 0 else along_time,
            merged_along_time=np.zeros_like(before_time) if step == 0 else before_time & ~along_time,
            times_read=2 if step == 0 and length > 1 and config.recipe == "released" else 1,
        )
        for (clip, step, length), (local, global_, before_time, along_time) in zip(clips, masks)
    ]


def _as_grids(masks: Tensor, sides: tuple[int, int] | None) -> np.ndarray:
    square = math.isqrt(masks.shape[1])
    return masks.cpu().numpy().reshape(-1, *(sides or (square, square)))
