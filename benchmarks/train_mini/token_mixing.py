"""Noise for training: each video token with a share of another one of its frame.

So the model learns to read tokens that are not quite what the tower says, but never misses one. Manifold Mixup (Verma
et al. 2019) mixes hidden states of two examples in the same way.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass
class Mixing:
    """What is mixed into the video tokens of each clip.

    Attributes:
        partner: (C, T), the token whose share each one gets.
        share: (C,), of the partner, between 0 and 1.
    """

    partner: Tensor
    share: Tensor

    def to(self, device: torch.device) -> "Mixing":
        """The same on another device."""
        return Mixing(self.partner.to(device), self.share.to(device))

    def of(self, video: Tensor) -> Tensor:
        """(C, T, width) -> the same, mixed."""
        other = video.gather(1, self.partner.unsqueeze(-1).expand_as(video))
        return torch.lerp(video, other, self.share[:, None, None])


def draw_mixing(
    draw: np.random.Generator, clips: int, frames: int, tokens_a_frame: int, largest_share: float
) -> Mixing:
    """Draws a partner for every token, within its frame, and a share for every clip, from 0 to the largest."""
    within = draw.permuted(np.tile(np.arange(tokens_a_frame), (clips * frames, 1)), axis=1)
    first = np.tile(np.arange(frames) * tokens_a_frame, clips)
    partner = (within + first[:, None]).reshape(clips, frames * tokens_a_frame)
    share = draw.uniform(0, largest_share, clips)
    return Mixing(torch.from_numpy(partner), torch.tensor(share, dtype=torch.float32))
