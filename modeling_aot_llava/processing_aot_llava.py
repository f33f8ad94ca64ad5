"""A LLaVA-OneVision processor that writes as many video placeholders as AOT keeps tokens."""

import math
from typing import Any

from transformers import LlavaOnevisionProcessor
from transformers.processing_utils import MultiModalData, ProcessingKwargs, VideosKwargs
from transformers.video_utils import VideoInput, make_batched_videos

from .token_budget import check_num_clips, check_retention_ratio, count_video_tokens, pooled_grid_size
from .video_reading import read_video


class AOTLlavaOnevisionVideosKwargs(VideosKwargs, total=False):
    """
    retention_ratio (`float`, *optional*):
        Share of the video tokens to keep in this call, instead of the processor's.
    """

    retention_ratio: Any


class AOTLlavaOnevisionProcessorKwargs(ProcessingKwargs, total=False):
    # transformers until 5.19 keeps the parent's defaults here.
    _defaults = getattr(LlavaOnevisionProcessor.valid_processor_kwargs, "_defaults", {})

    videos_kwargs: AOTLlavaOnevisionVideosKwargs


class AOTLlavaOnevisionProcessor(LlavaOnevisionProcessor):
    r"""
    The processor of [`AOTLlavaOnevisionForConditionalGeneration`].

    Changes to the parent class:
    - a video gets exactly B + 1 placeholders, B tokens and the newline, where B follows from `retention_ratio`; the
      model keeps as many tokens as the prompt has placeholders for. With `retention_ratio >= 1` it gets all of them,
      which tells the model to use its own config's ratio.
    - videos given as files are read with PyAV: `num_frames` frames, uniformly from the first to the last.

    Args:
        image_processor, tokenizer, video_processor, num_image_tokens, vision_feature_select_strategy, chat_template,
        image_token, video_token, vision_aspect_ratio:
            as in the parent class.
        retention_ratio (`float`, *optional*, defaults to 0.1):
            Share of the video tokens to keep; also a keyword of each call.
        num_clips (`int`, *optional*, defaults to 8):
            `num_clips` of the model's config: B is never less than the number of clips.
        num_frames (`int`, *optional*, defaults to 32):
            Frames read from a video file, all of a shorter one; also a keyword of each call, as are `fps` and
            `do_sample_frames=False` (every frame).
    """

    valid_processor_kwargs = AOTLlavaOnevisionProcessorKwargs

    def __init__(
        self,
        image_processor=None,
        tokenizer=None,
        video_processor=None,
        num_image_tokens=None,
        vision_feature_select_strategy=None,
        chat_template=None,
        image_token="<image>",
        video_token="<video>",
        vision_aspect_ratio="anyres_max_9",
        retention_ratio=0.1,
        num_clips=8,
        num_frames=32,
        **kwargs,
    ):
        self.retention_ratio = retention_ratio
        self.num_clips = num_clips
        self.num_frames = num_frames
        super().__init__(
            image_processor,
            tokenizer,
            video_processor,
            num_image_tokens=num_image_tokens,
            vision_feature_select_strategy=vision_feature_select_strategy,
            chat_template=chat_template,
            image_token=image_token,
            video_token=video_token,
            vision_aspect_ratio=vision_aspect_ratio,
            **kwargs,
        )

    def _process_videos(self, videos: VideoInput, retention_ratio: float | None = None, **kwargs):
        self._count_placeholders(1, retention_ratio)  # raises before any video is read
        num_videos = len(make_batched_videos(videos))
        videos, kwargs = self._read_video_files(videos, kwargs)
        processed_videos = self.video_processor(videos, **kwargs)
        replacements = [
            self.replace_video_token(processed_videos, video_idx, retention_ratio=retention_ratio)
            for video_idx in range(num_videos)
        ]
        return processed_videos, replacements

    def replace_video_token(
        self, video_inputs: dict, video_idx: int, retention_ratio: float | None = None, **kwargs
    ) -> str:
        num_frames = len(video_inputs["pixel_values_videos"][video_idx])
        return self.video_token * self._count_placeholders(num_frames, retention_ratio)

    def _get_num_multimodal_tokens(
        self, image_sizes=None, video_sizes=None, retention_ratio: float | None = None, **kwargs
    ) -> MultiModalData:
        counts = super()._get_num_multimodal_tokens(image_sizes=image_sizes, **kwargs)
        if video_sizes is not None:
            counts.num_video_tokens = [
                self._count_placeholders(num_frames, retention_ratio) for num_frames, _, _ in video_sizes
            ]
        return counts

    def _count_placeholders(self, num_frames: int, retention_ratio: float | None) -> int:
        retention_ratio = self.retention_ratio if retention_ratio is None else retention_ratio
        check_retention_ratio(retention_ratio)
        check_num_clips(self.num_clips)
        tokens_per_frame = pooled_grid_size(math.isqrt(self.num_image_tokens)) ** 2
        newline = 1
        return count_video_tokens(num_frames, retention_ratio, tokens_per_frame, self.num_clips) + newline

    def _read_video_files(self, videos: VideoInput, kwargs: dict[str, Any]) -> tuple[VideoInput, dict[str, Any]]:
        # Frames that the caller has already decoded are the parent's business, and so are lists of picture files.
        flat = make_batched_videos(videos)
        if not any(_is_file(video) for video in flat):
            return videos, kwargs
        if not all(_is_file(video) for video in flat):
            raise ValueError("Some videos of the call are files and some are decoded frames: pass one or the other.")
        num_frames, fps = kwargs.pop("num_frames", None), kwargs.pop("fps", None)
        sample_frames = kwargs.pop("do_sample_frames", None) is not False
        if sample_frames and num_frames is None and fps is None:
            num_frames = self.num_frames
        kwargs.pop("video_metadata", None)
        frames, metadata = zip(*(read_video(video, num_frames, fps) for video in flat))
        return list(frames), {**kwargs, "video_metadata": list(metadata), "do_sample_frames": False}


def _is_file(video: Any) -> bool:
    return isinstance(video, str)


AOTLlavaOnevisionProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["AOTLlavaOnevisionProcessor"]
