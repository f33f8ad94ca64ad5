"""Noise for training: each video token with a share of the mean of a few others, of its frame or the next one.

So the model learns to read tokens that are averages, as pooling and merging make them, but never misses one. Manifold
Mixup (Verma et al. 2019) mixes hidden states of two examples in the same way.

Of five kinds that were tried (Gaussian; one token of the frame; near ones; the most alike of the next frame; this one)
AOT at its defaults kept most with this one, on clips of no other use.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

MOST_PARTNERS = 8


@dataclass
class Mixing:
    """What is mixed into the video tokens of each clip.

    Attributes:
        partners: (C, T, k), the tokens of whose mean each one gets a share.
        share: (C,), of that mean, between 0 and 1.
    """

    partners: Tensor
    share: Tensor

    def to(self, device: torch.device) -> "Mixing":
        """The same on another device."""
        return Mixing(self.partners.to(device), self.share.to(device))

    def of(self, video: Tensor) -> Tensor:
        """(C, T, width) -> the same, mixed."""
        index = self.partners.flatten(1).unsqueeze(-1).expand(-1, -1, video.shape[-1])
        others = video.gather(1, index).unflatten(1, self.partners.shape[1:]).mean(2)
        return torch.lerp(video, others, self.share[:, None, None])


def draw_mixing(
    draw: np.random.Generator, clips: int, frames: int, tokens_a_frame: int, largest_share: float
) -> Mixing:
    """Draws as many partners for every token, and a share for every clip, from 0 to the largest."""
    partners_a_token = draw.integers(1, MOST_PARTNERS + 1)
    frame = np.arange(frames)[:, None, None] + draw.integers(0, 2, (clips, frames, 1, 1))
    place = draw.integers(0, tokens_a_frame, (clips, frames, tokens_a_frame, partners_a_token))
    partners = frame.clip(max=frames - 1) * tokens_a_frame + place
    share = draw.uniform(0, largest_share, clips)
    return Mixing(torch.from_numpy(partners).flatten(1, 2), torch.tensor(share, dtype=torch.float32))
