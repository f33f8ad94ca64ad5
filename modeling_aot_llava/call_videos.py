"""Runs in each call with videos: as tensors, pixels padded where they are not equally long, or encoded before.

The processor writes them, whatever moves, pins, collates or splits tensors does so with these, and the model reads
them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .encoded_video import EncodedVideo
from .video_marks import CONFIG_FIELDS, check_marks, marks_of

# (videos,) frames of each video that comes as pixels; only where they differ, and the rest is padding.
NUM_FRAMES = "num_video_frames"
# (encoded videos, longest n, D), (all videos of the call,) with n of those that are encoded and 0 of the others, and
# (encoded videos, marks).
ENCODED_TOKENS, ENCODED_LENGTHS, ENCODED_MARKS = "encoded_video_tokens", "encoded_video_lengths", "encoded_video_marks"
NAMES = (NUM_FRAMES, ENCODED_TOKENS, ENCODED_LENGTHS, ENCODED_MARKS)


@dataclass(frozen=True)
class CallVideos:
    """What a call of the model brings of its videos; None where it brings nothing.

    Attributes:
        pixel_values_videos: (videos, longest F, channels, height, width).
        image_sizes_videos: (videos, longest F, 2), by which the processor says that a full count was asked for.
        num_video_frames: (videos,), how many frames of each are no padding; None for all.
        encoded_video_tokens: (encoded videos, longest n, D), padded behind.
        encoded_video_lengths: (all videos of the call,): n of the encoded ones, 0 of those that come as pixels.
        encoded_video_marks: (encoded videos, marks): what made them.
    """

    pixel_values_videos: Tensor | None = None
    image_sizes_videos: Tensor | None = None
    num_video_frames: Tensor | None = None
    encoded_video_tokens: Tensor | None = None
    encoded_video_lengths: Tensor | None = None
    encoded_video_marks: Tensor | None = None

    @classmethod
    def taken_from(
        cls, kwargs: dict[str, Any], pixel_values_videos: Tensor | None, image_sizes_videos: Tensor | None
    ) -> "CallVideos":
        """What `NAMES` call is taken out of the keywords of a call, for the stock model does not know it."""
        own = {name: kwargs.pop(name, None) for name in NAMES}
        return cls(pixel_values_videos, image_sizes_videos, **own)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self.pixel_values_videos is not None or self.encoded_video_tokens is not None

    @property
    def are_plain(self) -> bool:
        """Whether they are those of the stock model: pixels of equally long videos."""
        return self.num_video_frames is None and self.encoded_video_tokens is None

    def check_are_alone(self, mm_encoder_outputs: Mapping[str, Any] | None) -> None:
        """Raises `ValueError` where tokens of the videos came as `mm_encoder_outputs`, too: which are meant?"""
        if self.encoded_video_tokens is not None and (mm_encoder_outputs or {}).get("video") is not None:
            raise ValueError(
                f"`{ENCODED_TOKENS}` and `mm_encoder_outputs` both bring tokens of videos: pass one of them alone."
            )

    def check(self) -> None:
        """Raises `ValueError` where the tensors do not belong together."""
        pixels, num_frames = self.pixel_values_videos, self.num_video_frames
        if pixels is not None and pixels.ndim != 5:
            raise ValueError(
                f"`pixel_values_videos` has the shape {tuple(pixels.shape)}, but it must be (videos, frames, "
                "channels, height, width): pass it as the processor gives it."
            )
        num_pixels = 0 if pixels is None else len(pixels)
        # An exported program cannot look at its input.
        may_look = num_frames is None and pixels is not None and not torch.compiler.is_compiling()
        if may_look and bool(pixels[:, -1, 0, 0, 0].isnan().any()):
            raise ValueError(
                f"`{NUM_FRAMES}` is None, but `pixel_values_videos` is padded, for its videos are not equally long: "
                "pass all that the processor returned; a data collator must keep it, too."
            )
        if num_frames is not None:
            counts = num_frames.flatten().tolist()
            longest = 0 if pixels is None else pixels.shape[1]
            if len(counts) != num_pixels or not all(1 <= count <= longest for count in counts):
                raise ValueError(
                    f"`{NUM_FRAMES}` is {counts}, but there are {num_pixels} videos of at most {longest} frames: pass "
                    "it as the processor gives it, one number from 1 a video."
                )
        encoded = {name: getattr(self, name) for name in (ENCODED_TOKENS, ENCODED_LENGTHS, ENCODED_MARKS)}
        missing = [name for name, tensor in encoded.items() if tensor is None]
        if missing and len(missing) < len(encoded):
            raise ValueError(
                f"`{missing[0]}` is None, but there are encoded videos: pass all that the processor returned; a data "
                "collator must keep it, too."
            )
        if not missing:
            self._check_encoded(num_pixels)

    def _check_encoded(self, num_pixels: int) -> None:
        tokens, lengths = self.encoded_video_tokens, self.encoded_video_lengths.flatten().tolist()
        num_encoded = sum(length > 0 for length in lengths)
        if (
            tokens.ndim != 3
            or len(tokens) != num_encoded
            or len(self.encoded_video_marks) != num_encoded
            or min(lengths, default=0) < 0
            or max(lengths, default=0) > tokens.shape[1]
        ):
            raise ValueError(
                f"`{ENCODED_TOKENS}` has the shape {tuple(tokens.shape)} and `{ENCODED_MARKS}` "
                f"{tuple(self.encoded_video_marks.shape)}, but `{ENCODED_LENGTHS}` is {lengths}: pass them as the "
                "processor gives them."
            )
        if len(lengths) - num_encoded != num_pixels:
            raise ValueError(
                f"`{ENCODED_LENGTHS}` tells of {len(lengths)} videos, {num_encoded} of which are encoded, but "
                f"`pixel_values_videos` brings {num_pixels} more: pass all that the processor returned for the call."
            )

    @property
    def encoded(self) -> list[Tensor | None]:
        """Of each video of the call its tokens, (n, D), if it was encoded before, else None."""
        if self.encoded_video_tokens is None:
            return [None] * len(self.pixel_values_videos)
        tokens = iter(self.encoded_video_tokens)
        lengths = self.encoded_video_lengths.flatten().tolist()
        return [next(tokens)[:length] if length else None for length in lengths]

    @property
    def num_frames(self) -> list[int]:
        """F of each video that comes as pixels."""
        if self.pixel_values_videos is None:
            return []
        if self.num_video_frames is None:
            return [self.pixel_values_videos.shape[1]] * len(self.pixel_values_videos)
        return self.num_video_frames.flatten().tolist()

    def check_made_by(self, model) -> None:
        """Raises `ValueError` where an encoded video is not of this model and its config."""
        if self.encoded_video_marks is not None:
            check_marks(self.encoded_video_marks, model)


def as_tensors(videos: Sequence[EncodedVideo | None], field_names: Sequence[str] = CONFIG_FIELDS) -> dict[str, Tensor]:
    """The encoded videos of a call, None for the others, as tensors: they travel where nested values would not.

    field_names: of the config, of which marks are made.
    """
    encoded = [video for video in videos if video is not None]
    longest, sizes = max(len(video.tokens) for video in encoded), {video.tokens.shape[1] for video in encoded}
    if len(sizes) > 1:
        raise ValueError(
            f"The encoded videos of the call are of different models, for their tokens have {sorted(sizes)} numbers: "
            "encode all with one model."
        )
    dtype, device = _common_type([video.tokens for video in encoded]), encoded[0].tokens.device
    padded = [
        functional.pad(video.tokens.to(device, dtype), (0, 0, 0, longest - len(video.tokens))) for video in encoded
    ]
    lengths = [0 if video is None else len(video.tokens) for video in videos]
    marks = [marks_of(video.fingerprint, video.config, field_names) for video in encoded]
    return {
        ENCODED_TOKENS: torch.stack(padded),
        ENCODED_LENGTHS: torch.tensor(lengths),
        ENCODED_MARKS: torch.tensor(marks),
    }


def padded_frames(videos: Sequence[Any]) -> dict[str, Tensor]:
    """Videos of different lengths, (F, channels, height, width) each, as one tensor, and how many frames each has.

    The padding is NaN, which no video has: so it is noticed where the numbers of frames are lost on the way.
    """
    pixels = [torch.as_tensor(video) for video in videos]
    longest = max(map(len, pixels))
    padding = float("nan") if all(map(torch.is_floating_point, pixels)) else 0
    padded = [
        functional.pad(video, (0, 0) * (video.ndim - 1) + (0, longest - len(video)), value=padding) for video in pixels
    ]
    return {"pixel_values_videos": torch.stack(padded), NUM_FRAMES: torch.tensor([len(video) for video in pixels])}


def merged(some: Sequence[Any], others: Iterable[Any]) -> list[Any]:
    """The others, one after the other, where there is None."""
    left = iter(others)
    return [next(left) if one is None else one for one in some]


def _common_type(tensors: Sequence[Tensor]) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype
