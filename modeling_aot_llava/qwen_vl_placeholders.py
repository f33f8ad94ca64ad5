"""What the processors of the Qwen-VL family share: as many video placeholders as AOT keeps tokens.

Frames, their sizes, times and marks stay the stock processor's business: in the text that it writes for a video, each
run of placeholders gets its new length. Videos that are yet to be read are read with the project's reader.
"""

import inspect
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.processing_utils import VideosKwargs
from transformers.video_utils import VideoInput, VideoMetadata

from .call_videos import ENCODED_LENGTHS, merged
from .keyword_check import check_keywords, keywords_of_call
from .plain_numbers import plain
from .qwen_vl_call_videos import KEPT_VIDEO_TOKENS, OF_ENCODED, as_tensors
from .qwen_vl_encoded_in_prompt import check_is_asked_for, metadata_of
from .qwen_vl_encoded_video import QwenVLEncodedVideo
from .qwen_vl_reading import read_videos
from .token_budget import (
    FrameGrid,
    TokenBudget,
    check_num_clips,
    check_retention_ratio,
    count_video_tokens,
    plan_token_budget,
)
from .unread_videos import as_strings, encoded_among, unencoded_among
from .video_limits import VideoLimits

# The settings that are this processor's own, and none of its tokenizer's or its video processor's.
SETTINGS = ("retention_ratio", "num_clips", "num_anchors", "video_limits")
# Seconds between the frames of each video, of hosts whose positions depend on them.
SECOND_PER_GRID = "second_per_grid_ts"


class AOTQwenVLVideosKwargs(VideosKwargs, total=False):
    """
    retention_ratio (`float`, *optional*):
        Share of the video tokens to keep in this call, instead of the processor's; 1 or more keeps all.
    video_limits (`dict`, *optional*):
        What is refused of the videos of this call, instead of the processor's.
    """

    retention_ratio: Any
    video_limits: Any


@dataclass(frozen=True)
class PlanSettings:
    """What the plan of a video's tokens reads of a config, as the processor knows it."""

    retention_ratio: float
    num_clips: int
    num_anchors: int | None
    recipe: str = "paper"
    clip_segmentation: str = "uniform"

    def validate_aot(self) -> None:
        """Raises `ValueError` where a setting is out of range."""
        check_retention_ratio(self.retention_ratio)
        check_num_clips(self.num_clips)


class AOTQwenVLProcessor:
    """The part of a processor that the family shares; a subclass is a stock processor as well.

    Attributes:
        has_span_a_frame: whether the text of a video has a run of placeholders for each frame.
    """

    has_span_a_frame: bool
    # They are tensors, of dtypes that NumPy may not know.
    skip_tensor_conversion = (*ProcessorMixin.skip_tensor_conversion, *OF_ENCODED)

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        video_processor=None,
        chat_template=None,
        retention_ratio=0.1,
        num_clips=8,
        num_anchors=None,
        video_limits=None,
        **kwargs,
    ):
        self.retention_ratio = retention_ratio
        self.num_clips = num_clips
        self.num_anchors = num_anchors
        VideoLimits.of(video_limits)  # raises before a video is read
        self.video_limits = video_limits
        super().__init__(image_processor, tokenizer, video_processor, chat_template=chat_template, **kwargs)
        if getattr(self.video_processor, "cap_pixels_per_frame", False) is None:
            # Releases announce another default, with which the same video would have another number of tokens.
            self.video_processor.cap_pixels_per_frame = False

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """Like the parent's, but the settings of this class reach this class alone.

        Raises:
            TypeError: if a keyword is unknown and much like a setting of this class.
        """
        check_keywords(kwargs, {*inspect.signature(cls).parameters, *keywords_of_call(cls)}, SETTINGS)
        settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded  # with `return_unused_kwargs=True`
        for name, value in settings.items():
            setattr(processor, name, value)
        return loaded

    def to_dict(self) -> dict[str, Any]:
        """Like the parent's, with NumPy's numbers as Python's, which can be saved."""
        values = super().to_dict()
        return {**values, **{name: plain(values[name]) for name in SETTINGS}}

    def prepare_inputs_layout(self, images=None, text=None, videos: VideoInput | None = None, **kwargs):
        """Like the parent's; what is yet to be read gets the form that the parent's checks let pass."""
        return super().prepare_inputs_layout(images=images, text=text, videos=as_strings(videos), **kwargs)

    def __call__(self, images=None, text=None, videos=None, **kwargs):
        own = AOTQwenVLVideosKwargs.__annotations__.keys() - VideosKwargs.__annotations__
        check_keywords(kwargs, keywords_of_call(self), sorted(own))
        inputs = super().__call__(images=images, text=text, videos=videos, **kwargs)
        if text is None and videos is not None and KEPT_VIDEO_TOKENS not in inputs:
            # Without a prompt, whose placeholders tell, the counts are all that `encode_video` has.
            counts = [self._plan(grid, self.retention_ratio).num_video_tokens for grid in _rows(inputs)]
            counts = [int(n) or count for n, count in zip(inputs.get(ENCODED_LENGTHS, [0] * len(counts)), counts)]
            inputs.update(BatchFeature({KEPT_VIDEO_TOKENS: counts}, tensor_type=kwargs.get("return_tensors")))
        return inputs

    def _process_videos(self, videos: VideoInput, retention_ratio: float | None = None, **kwargs):
        ratio = self.retention_ratio if retention_ratio is None else retention_ratio
        check_retention_ratio(ratio)  # before any video is read
        encoded = encoded_among(videos, QwenVLEncodedVideo)
        if not any(encoded):
            return self._process_unencoded(videos, retention_ratio, **kwargs)
        for video in encoded:
            if video is not None:
                check_is_asked_for(video, self, retention_ratio, kwargs)
        others, kwargs = unencoded_among(videos, encoded, kwargs)
        processed, texts = BatchFeature(), []
        if others:
            processed, texts = self._process_unencoded(others, retention_ratio, **kwargs)
        known = [video and metadata_of(video) for video in encoded]
        own = [video and self._text_of_encoded(video, of_video) for video, of_video in zip(encoded, known)]
        self._add_encoded(processed, encoded, known)
        return processed, merged(own, texts)

    def _text_of_encoded(self, video: QwenVLEncodedVideo, metadata: VideoMetadata) -> str:
        as_processed = {"video_grid_thw": torch.tensor([video.grid]), "video_metadata": [metadata]}
        return self._shortened(self.replace_video_token(as_processed, 0), video.kept_per_frame)

    def _add_encoded(
        self,
        processed: BatchFeature,
        encoded: Sequence[QwenVLEncodedVideo | None],
        known: Sequence[VideoMetadata | None],
    ) -> None:
        """Puts the encoded videos of a call, and what is known of them, between those that have been processed."""
        grids = [video and torch.tensor(video.grid) for video in encoded]
        if KEPT_VIDEO_TOKENS in processed:
            counts = [video and len(video.tokens) for video in encoded]
            processed[KEPT_VIDEO_TOKENS] = merged(counts, processed[KEPT_VIDEO_TOKENS])
        if SECOND_PER_GRID in self.model_input_names:
            size = self.video_processor.temporal_patch_size
            seconds = [of_video and size / of_video.sampled_fps for of_video in known]
            processed[SECOND_PER_GRID] = merged(seconds, processed.get(SECOND_PER_GRID, []))
        processed["video_grid_thw"] = torch.stack(
            merged(grids, map(torch.as_tensor, processed.get("video_grid_thw", [])))
        )
        if "video_metadata" in processed or all(encoded):
            processed["video_metadata"] = merged(known, processed.get("video_metadata", []))
        processed.update(as_tensors(encoded))

    def _process_unencoded(
        self,
        videos: VideoInput,
        retention_ratio: float | None = None,
        video_limits: dict[str, Any] | None = None,
        **kwargs,
    ):
        ratio = self.retention_ratio if retention_ratio is None else retention_ratio
        limits = VideoLimits.of(self.video_limits if video_limits is None else video_limits)
        videos, kwargs = read_videos(self.video_processor, videos, kwargs, limits)
        processed, texts = super()._process_videos(videos, **kwargs)
        budgets = [self._plan(grid, ratio) for grid in _rows(processed)]
        lengths = [budget.kept_per_frame for budget in budgets]
        texts = [self._shortened(text, of_frames) for text, of_frames in zip(texts, lengths)]
        keeps_all = any(
            budget.num_video_tokens == len(budget.kept_per_frame) * budget.grid.num_pooled for budget in budgets
        )
        if retention_ratio is not None or keeps_all:
            processed[KEPT_VIDEO_TOKENS] = [budget.num_video_tokens for budget in budgets]
        return processed, texts

    def _plan(self, grid_thw: Sequence[int], retention_ratio: float) -> TokenBudget:
        merge = self.video_processor.merge_size
        grid = FrameGrid((grid_thw[1] // merge, grid_thw[2] // merge), "none")
        count = count_video_tokens(grid_thw[0], retention_ratio, grid.num_pooled, self.num_clips)
        settings = PlanSettings(self.retention_ratio, self.num_clips, self.num_anchors)
        return plan_token_budget(settings, grid_thw[0], count, grid)

    def _shortened(self, text: str, kept_per_frame: Sequence[int]) -> str:
        """A video's text with as many placeholders in each run as there are tokens."""
        lengths = iter(kept_per_frame if self.has_span_a_frame else [sum(kept_per_frame)])
        return re.sub(f"(?:{re.escape(self.video_token)})+", lambda _: self.video_token * next(lengths), text)


def _rows(inputs: Mapping[str, Any]) -> list[list[int]]:
    """Frames, height and width of each video of a call."""
    return [[int(size) for size in grid] for grid in inputs["video_grid_thw"]]
