"""A video as a Qwen-VL language model reads it, made once and asked often; also as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .encoded_video import EncodedVideo
from .error_texts import show
from .plain_numbers import is_integer
from .video_marks import FIELDS_OF_ALL

# The parts of a model, and the fields of its config, that decide what the tokens are. DeepStack's mergers are the
# tower's own.
PARTS = ("visual",)
CONFIG_FIELDS = ("model_type", *FIELDS_OF_ALL)
# Places of a whole video that a file may tell of: hours at a size that no language model reads whole.
_MOST_PLACES = 1 << 24


class QwenVLEncodedVideo(EncodedVideo):
    """The tokens of one video, where in it they stand, what they were made of, and what made them.

    It is what `model.encode_video` returns, and it stands wherever the processor takes a video.

    Attributes:
        tokens: (n, D (1 + layers)): beside each token DeepStack's features, of a model that has layers of these.
        places: (n,) int64 on the CPU, ascending: frame * P + place in the frame, of P tokens a frame.
        grid: frames, and a frame's height and width in patches.
        merge_size: a token stands for a square of so many patches a side.
        num_frames: F, the frames of the grid; each is of as many pictures as the processor puts together.
        retention_ratio: the share of the video tokens that was asked for; 1 for all.
        config: the fields of the model's config that decide what the tokens are.
        fingerprint: of the vision tower's weights, mergers included.
        frame_indices: which pictures of the source; None where unknown.
        fps: the source's picture rate in 1/s; None where unknown.
        total_num_frames: pictures of the source.
        source_size: height and width of its pictures; None where unknown.
        source: a name for it, such as the path of its file; nothing is read from there.
    """

    format = "aot-encoded-video-qwen-vl-1"
    tensor_names = ("tokens", "places")

    def __init__(
        self,
        *,
        places: Tensor,
        grid: Sequence[int],
        merge_size: int,
        source_size: Sequence[int] | None = None,
        **of_any_kind: Any,
    ):
        super().__init__(**of_any_kind)
        self.places = places
        self.grid = tuple(grid) if isinstance(grid, (list, tuple)) else grid
        self.merge_size = merge_size
        self.source_size = tuple(source_size) if isinstance(source_size, (list, tuple)) else source_size

    @property
    def tokens_of_frame(self) -> int:
        """P."""
        return self.grid[1] * self.grid[2] // self.merge_size**2

    @property
    def kept_per_frame(self) -> list[int]:
        """F counts that sum to n."""
        return torch.bincount(self.places // self.tokens_of_frame, minlength=self.grid[0]).tolist()

    def find_fault(self) -> str | None:
        """What cannot be of a value that a stranger has put together; None if all can be."""
        return super().find_fault() or self._find_fault_of_grid() or self._find_fault_of_places()

    def _find_fault_of_frames(self) -> str | None:
        indices, total = self.frame_indices, self.total_num_frames
        if not is_integer(total) or total < 1:
            return f"the number of its source's pictures is {show(total)}"
        if self.source_size is not None and not _are_counts(self.source_size, 2):
            return f"the size of its source is {show(self.source_size)}"
        if indices is None:
            return None
        if not isinstance(indices, tuple) or not all(is_integer(index) and 0 <= index < total for index in indices):
            return f"its frame indices are {show(indices)} of {total} pictures"
        return (
            None if len(indices) >= self.num_frames else f"it has {self.num_frames} frames of {len(indices)} pictures"
        )

    def _find_fault_of_grid(self) -> str | None:
        if not _are_counts(self.grid, 3) or self.grid[0] != self.num_frames:
            return f"its grid is {show(self.grid)}, but it has {self.num_frames} frames"
        if not is_integer(self.merge_size) or self.merge_size < 1 or any(s % self.merge_size for s in self.grid[1:]):
            return f"its grid of {show(self.grid)} patches is not of squares of {show(self.merge_size)}"
        if self.grid[0] * self.tokens_of_frame > _MOST_PLACES:
            return f"its grid is {show(self.grid)}, more than any model reads"
        return None

    def _find_fault_of_places(self) -> str | None:
        places, num_places = self.places, self.grid[0] * self.tokens_of_frame
        if places.ndim != 1 or places.dtype != torch.int64 or len(places) != len(self.tokens):
            return f"its places are {places.dtype} of the shape {tuple(places.shape)} for {len(self.tokens)} tokens"
        if bool((places[:1] < 0).any() or (places[-1:] >= num_places).any() or (places.diff() <= 0).any()):
            return f"its places are not ascending ones among {num_places}"
        return None


def _are_counts(values: Any, number: int) -> bool:
    return isinstance(values, tuple) and len(values) == number and all(is_integer(v) and v > 0 for v in values)
