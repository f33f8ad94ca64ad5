"""STC-Pruner (arXiv 2512.00891, CVPR 2026): of each frame the tokens least like it and like all that was seen before.

Program: `lern-to-write/STC` 9b13ce0, `model/prune.py`, for LLaVA-OneVision as it streams: a fixed number of tokens a
frame, 60 in its configuration. The measure is VidCom2's. The quiet channels are chosen anew for each chunk, so the
memory averages different channels place by place: a slip of the program that is reproduced.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .interface import Baseline, EncodedVideo, ReducedVideo, check_count, take_rows
from .ranking import greatest
from .vidcom2 import likeness, quiet_channels


def stc_pruner(tokens: Tensor, tokens_per_frame: int, chunk_size: int = 1) -> Tensor:
    """Which tokens stay, chunk by chunk.

    Args:
        tokens: (F, P, D), after projector and pooling.
        tokens_per_frame: t, at most P.
        chunk_size: frames that are looked at together.

    Returns:
        (F, t) places, ascending.
    """
    quiet = [quiet_channels(chunk) for chunk in tokens.split(chunk_size)]
    memory = torch.stack([chunk.mean((0, 1)) for chunk in quiet]).cumsum(0)  # only its direction is looked at
    seen = torch.nn.functional.normalize(memory, dim=-1).repeat_interleave(chunk_size, 0)[: len(tokens)]
    units = torch.nn.functional.normalize(torch.cat(quiet), dim=-1)
    scores = likeness(units, seen.unsqueeze(1)) + likeness(units, units.mean(1, keepdim=True))
    return greatest(-scores, tokens_per_frame).sort(-1).values


@dataclass(frozen=True)
class STCPruner(Baseline):
    """STC-Pruner.

    Attributes:
        retention_ratio: share of each frame's tokens, rounded up.
        tokens_per_frame: t instead of the share.
        encode_chunk_size: frames that are looked at together.
    """

    name: ClassVar[str] = "stc_pruner"

    retention_ratio: float = 0.10
    tokens_per_frame: int | None = None
    encode_chunk_size: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_count("encode_chunk_size", self.encode_chunk_size)
        if self.tokens_per_frame is not None:
            check_count("tokens_per_frame", self.tokens_per_frame)

    def kept_of_frame(self, num_places: int) -> int:
        """t of a frame of P tokens."""
        wanted = self.tokens_per_frame or math.ceil(self.retention_ratio * num_places)
        return min(wanted, num_places)

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        kept = self.kept_of_frame(video.tokens.shape[1])
        places = stc_pruner(video.tokens, kept, self.encode_chunk_size)
        return ReducedVideo(take_rows(video.tokens, places).flatten(0, 1))

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        return num_frames * self.kept_of_frame(tokens_per_frame)
