"""Runs in each call with Qwen-VL videos: pixels and grids, or what was encoded before, as tensors.

The processor writes them, whatever moves, pins, collates or splits tensors does so with these, and the model reads
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .call_videos import ENCODED_LENGTHS, ENCODED_MARKS, ENCODED_TOKENS
from .call_videos import as_tensors as tokens_as_tensors
from .qwen_vl_encoded_video import CONFIG_FIELDS, PARTS, QwenVLEncodedVideo
from .qwen_vl_kept_video import KeptVideo
from .video_marks import check_marks

# (videos,) how many tokens of each video to keep. It tells that a full count was asked for; without it, a full prompt
# is the stock processor's.
KEPT_VIDEO_TOKENS = "kept_video_tokens"
# (encoded videos, longest n): where in their videos the tokens stand, frame * P + place; -1 behind the last.
ENCODED_PLACES = "encoded_video_places"
OF_ENCODED = (ENCODED_TOKENS, ENCODED_PLACES, ENCODED_LENGTHS, ENCODED_MARKS)
# Arguments of a call of the model that the stock one does not know.
NAMES = (KEPT_VIDEO_TOKENS, *OF_ENCODED)


@dataclass(frozen=True)
class QwenVLCallVideos:
    """What a call of the model brings of its videos; None where it brings nothing.

    Attributes:
        pixel_values_videos: (patches, values of a patch), of the videos that come as pixels, one after the other.
        video_grid_thw: (all videos of the call, 3): frames, height and width in patches.
        kept_video_tokens: (all videos of the call,), by which the processor says that the count was asked for.
        encoded_video_tokens: (encoded videos, longest n, D (1 + layers of DeepStack)), padded behind.
        encoded_video_places: (encoded videos, longest n), frame * P + place, padded behind.
        encoded_video_lengths: (all videos of the call,): n of the encoded ones, 0 of those that come as pixels.
        encoded_video_marks: (encoded videos, marks): what made them.
    """

    pixel_values_videos: Tensor | None = None
    video_grid_thw: Tensor | None = None
    kept_video_tokens: Tensor | Sequence[int] | None = None
    encoded_video_tokens: Tensor | None = None
    encoded_video_places: Tensor | None = None
    encoded_video_lengths: Tensor | None = None
    encoded_video_marks: Tensor | None = None

    @classmethod
    def taken_from(
        cls, kwargs: dict[str, Any], pixel_values_videos: Tensor | None, video_grid_thw: Tensor | None
    ) -> "QwenVLCallVideos":
        """What `NAMES` call is taken out of the keywords of a call, for the stock model does not know it."""
        own = {name: kwargs.pop(name, None) for name in NAMES}
        return cls(pixel_values_videos, video_grid_thw, **own)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self.pixel_values_videos is not None or self.encoded_video_tokens is not None

    def check_are_alone(self, mm_encoder_outputs: Mapping[str, Any] | None) -> None:
        """Raises `ValueError` where tokens of the videos came as `mm_encoder_outputs`, too: which are meant?"""
        if self.encoded_video_tokens is not None and (mm_encoder_outputs or {}).get("video") is not None:
            raise ValueError(
                f"`{ENCODED_TOKENS}` and `mm_encoder_outputs` both bring tokens of videos: pass one of them alone."
            )

    def check_made_by(self, model) -> None:
        """Raises `ValueError` where an encoded video is not of this model and its config."""
        if self.encoded_video_marks is not None:
            check_marks(self.encoded_video_marks, model, CONFIG_FIELDS, PARTS)

    def checked_grids(self, config) -> list[tuple[int, int, int]]:
        """The rows of `video_grid_thw`; raises `ValueError` where the tensors do not belong together."""
        if self.video_grid_thw is None:
            raise ValueError("`video_grid_thw` is None beside a video: pass all that the processor returned.")
        rows = [tuple(row) for row in self.video_grid_thw.tolist()]
        lengths = self._checked_lengths(len(rows))
        num_patches = sum(frames * height * width for (frames, height, width), n in zip(rows, lengths) if not n)
        pixels = self.pixel_values_videos
        if num_patches if pixels is None else pixels.ndim != 2 or len(pixels) != num_patches:
            raise ValueError(
                f"`pixel_values_videos` has the shape {None if pixels is None else tuple(pixels.shape)}, but "
                f"`video_grid_thw` tells of {num_patches} patches of videos that are not encoded: pass both as the "
                "processor gives them."
            )
        asked = self.kept_video_tokens
        if asked is not None and len(asked) != len(rows):
            raise ValueError(
                f"`{KEPT_VIDEO_TOKENS}` has {len(asked)} counts, but there are {len(rows)} videos: pass it as the "
                "processor gives it."
            )
        return rows

    def pixels(self, rows: Sequence[tuple[int, int, int]]) -> list[Tensor | None]:
        """Of each video its own rows of `pixel_values_videos`; None of those that were encoded before."""
        sizes = [0 if n else t * h * w for (t, h, w), n in zip(rows, self._lengths(len(rows)))]
        if self.pixel_values_videos is None:
            return [None] * len(rows)
        return [part if size else None for part, size in zip(self.pixel_values_videos.split(sizes), sizes)]

    def encoded(self, model, rows: Sequence[tuple[int, int, int]]) -> list[KeptVideo | None]:
        """Of each video of the call what is left of it, if it was encoded before, else None.

        Args:
            model: without the language-model head.
            rows: of `checked_grids`.

        Raises:
            ValueError: if tokens or places are none of this model's and this grid's.
        """
        lengths = self._lengths(len(rows))
        if self.encoded_video_tokens is None:
            return [None] * len(rows)
        of_encoded = zip(self.encoded_video_tokens, self.encoded_video_places)
        return [
            _kept(model, grid, *(part[:n] for part in next(of_encoded))) if n else None
            for grid, n in zip(rows, lengths)
        ]

    def _lengths(self, num_videos: int) -> list[int]:
        return (
            [0] * num_videos if self.encoded_video_lengths is None else self.encoded_video_lengths.flatten().tolist()
        )

    def _checked_lengths(self, num_videos: int) -> list[int]:
        given = {name: getattr(self, name) for name in OF_ENCODED}
        missing = [name for name, tensor in given.items() if tensor is None]
        lengths = self._lengths(num_videos)
        if len(missing) == len(given):
            return lengths
        if missing:
            raise ValueError(
                f"`{missing[0]}` is None, but there are encoded videos: pass all that the processor returned; a data "
                "collator must keep it, too."
            )
        tokens, places, num_encoded = given[ENCODED_TOKENS], given[ENCODED_PLACES], sum(n > 0 for n in lengths)
        if (
            tokens.ndim != 3
            or places.shape != tokens.shape[:2]
            or len(tokens) != num_encoded
            or len(given[ENCODED_MARKS]) != num_encoded
            or len(lengths) != num_videos
            or not all(0 <= n <= tokens.shape[1] for n in lengths)
        ):
            raise ValueError(
                f"`{ENCODED_TOKENS}` has the shape {tuple(tokens.shape)}, `{ENCODED_PLACES}` {tuple(places.shape)} "
                f"and `{ENCODED_MARKS}` {tuple(given[ENCODED_MARKS].shape)}, but `{ENCODED_LENGTHS}` is {lengths} "
                f"for {num_videos} videos: pass them as the processor gives them."
            )
        return lengths


def as_tensors(videos: Sequence[QwenVLEncodedVideo | None]) -> dict[str, Tensor]:
    """The encoded videos of a call, None for the others, as tensors: they travel where nested values would not."""
    encoded = [video.places for video in videos if video is not None]
    longest = max(map(len, encoded))
    padded = [functional.pad(places, (0, longest - len(places)), value=-1) for places in encoded]
    return {**tokens_as_tensors(videos, CONFIG_FIELDS), ENCODED_PLACES: torch.stack(padded)}


def _kept(model, grid_thw: tuple[int, int, int], tokens: Tensor, places: Tensor) -> KeptVideo:
    shape = (grid_thw[0], model.config.grid_of(grid_thw).num_pooled)
    size = model.config.text_config.hidden_size
    num_parts = 1 + model.num_deepstack_layers
    if tokens.shape[1] != size * num_parts:
        raise ValueError(
            f"`{ENCODED_TOKENS}` has tokens of {tokens.shape[1]} numbers, but this model's are of {size * num_parts}: "
            "encode the video with this model."
        )
    if bool((places[0] < 0) | (places[-1] >= shape[0] * shape[1]) | (places.diff() <= 0).any()):
        raise ValueError(
            f"`{ENCODED_PLACES}` are not ascending places among {shape[0] * shape[1]}, as `video_grid_thw` tells of: "
            "pass both as the processor gives them."
        )
    is_kept = torch.zeros(shape, dtype=torch.bool, device=places.device)
    is_kept.view(-1)[places] = True
    # Where the tower's tokens would be: whoever moves or casts a call's tensors does so with pixels, too.
    first, *deepstack = tokens.to(model.visual.device, model.visual.dtype).split(size, dim=-1)
    return KeptVideo(first, tuple(deepstack), is_kept)
