"""Noise for training: each video token with a share of another one of its frame.

So the model learns to read tokens that are not quite what the tower says, but never misses one. Manifold Mixup (Verma
et al. 2019) mixes hidden states of two examples in the same way.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# In frames, rows and columns.
NEARBY = (1, 2, 2)


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
    draw: np.random.Generator, clips: int, frames: int, grid: int, largest_share: float, nearby: bool
) -> Mixing:
    """Draws a partner for every token, and a share for every clip, from 0 to the largest.

    Args:
        grid: rows and columns of a frame's tokens.
        nearby: partners are at most two rows, two columns and a frame away; otherwise anywhere in the frame.
    """
    partner = _nearby(draw, clips, frames, grid) if nearby else _anywhere(draw, clips, frames, grid)
    share = draw.uniform(0, largest_share, clips)
    return Mixing(torch.from_numpy(partner), torch.tensor(share, dtype=torch.float32))


def _anywhere(draw: np.random.Generator, clips: int, frames: int, grid: int) -> np.ndarray:
    within = draw.permuted(np.tile(np.arange(grid**2), (clips * frames, 1)), axis=1)
    first = np.tile(np.arange(frames) * grid**2, clips)
    return (within + first[:, None]).reshape(clips, -1)


def _nearby(draw: np.random.Generator, clips: int, frames: int, grid: int) -> np.ndarray:
    shape = (frames, grid, grid)
    steps = [draw.integers(-reach, reach + 1, (clips, *shape)) for reach in NEARBY]
    place = [(here + step).clip(0, size - 1) for here, step, size in zip(np.indices(shape), steps, shape)]
    return np.ravel_multi_index(place, shape).reshape(clips, -1)
