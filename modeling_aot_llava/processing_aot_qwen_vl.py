"""Processors of the Qwen-VL family that write as many video placeholders as AOT keeps tokens. Experimental."""

from typing import TYPE_CHECKING

from transformers import Qwen2_5_VLProcessor, Qwen2VLProcessor, Qwen3VLProcessor
from transformers.processing_utils import ProcessingKwargs

from .qwen_vl_placeholders import AOTQwenVLProcessor, AOTQwenVLVideosKwargs
from .qwen_vl_releases import processor_defaults
from .required_transformers import check_transformers

if TYPE_CHECKING:  # transformers too old for this code copies the modules named in this file alone; it shall say so
    from .aot_fields import COMMON_FIELDS as COMMON_FIELDS
    from .call_videos import merged as merged
    from .encoded_in_prompt import check_ratio as check_ratio
    from .encoded_video import EncodedVideo as EncodedVideo
    from .error_texts import show as show
    from .frame_preparation import PreparedFrames as PreparedFrames
    from .keyword_check import check_keywords as check_keywords
    from .parallel_decoding import decode_frames as decode_frames
    from .plain_numbers import plain as plain
    from .qwen_vl_call_videos import KEPT_VIDEO_TOKENS as KEPT_VIDEO_TOKENS
    from .qwen_vl_encoded_in_prompt import check_is_asked_for as check_is_asked_for
    from .qwen_vl_encoded_video import QwenVLEncodedVideo as QwenVLEncodedVideo
    from .qwen_vl_kept_video import KeptVideo as KeptVideo
    from .qwen_vl_reading import read_videos as read_videos
    from .qwen_vl_resizing import resizing_store as resizing_store
    from .token_budget import TokenBudget as TokenBudget
    from .unread_videos import as_strings as as_strings
    from .upright_frames import UprightFrames as UprightFrames
    from .video_contents import is_text as is_text
    from .video_decoding import decode_run as decode_run
    from .video_download import download as download
    from .video_index import FrameIndex as FrameIndex
    from .video_limits import VideoLimits as VideoLimits
    from .video_marks import marks_of as marks_of
    from .video_reading import read_video as read_video
    from .video_sources import Source as Source
    from .video_stream import Video as Video
    from .weights_fingerprint import fingerprint as fingerprint

check_transformers()


class AOTQwen3VLProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = processor_defaults(Qwen3VLProcessor)

    videos_kwargs: AOTQwenVLVideosKwargs


class AOTQwen3VLProcessor(AOTQwenVLProcessor, Qwen3VLProcessor):
    r"""
    The processor of [`AOTQwen3VLForConditionalGeneration`], and of the MoE's. Experimental.

    Changes to the parent class:
    - each frame of a video gets as many placeholders as it keeps tokens under `retention_ratio`, between the marks and
      behind the time that the parent writes; a frame may keep none. Times and marks are not counted by the ratio.
    - `kept_video_tokens`, (videos,), is returned where the call names a ratio or a video keeps all its tokens. It
      tells AOT's model that this count was asked for: a full prompt without it is taken for the stock processor's, and
      cut down to the model's own ratio.
    - videos that are not decoded yet are read with PyAV; the stock video processor says which of their frames. They
      may be given as all that [`~video_reading.read_video`] takes: path, `file://`, `http(s)://` or `data:` address,
      bytes, `io.BytesIO`, folder of frame pictures; here and in a conversation alike. So may an encoded video, which
      `model.encode_video` makes, or the path of its file.
    - the video processor's `cap_pixels_per_frame` is `False` where nobody set it: releases announce another default.

    Args:
        image_processor, tokenizer, video_processor, chat_template: as in the parent class.
        retention_ratio (`float`, *optional*, defaults to 0.1):
            Share of the video tokens to keep, 1 or more for all; also a keyword of each call.
        num_clips (`int`, *optional*, defaults to 8):
            `num_clips` of the model's config.
        num_anchors (`int`, *optional*):
            `num_anchors` of the model's config, on which it depends how many tokens each frame keeps.
        video_limits (`dict`, *optional*):
            What is refused of videos that are read, as `{"max_bytes": 10**8, "public_addresses_only": True}`: the
            fields of [`~video_limits.VideoLimits`]; also a keyword of each call.
    """

    valid_processor_kwargs = AOTQwen3VLProcessorKwargs
    has_span_a_frame = True


class AOTQwen2VLProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = processor_defaults(Qwen2VLProcessor)

    videos_kwargs: AOTQwenVLVideosKwargs


class AOTQwen2VLProcessor(AOTQwenVLProcessor, Qwen2VLProcessor):
    """The processor of [`AOTQwen2VLForConditionalGeneration`], like [`AOTQwen3VLProcessor`]; it writes no times.

    A video has one run of placeholders, exactly as many as it keeps tokens under `retention_ratio`. Experimental.
    """

    valid_processor_kwargs = AOTQwen2VLProcessorKwargs
    has_span_a_frame = False


class AOTQwen2_5_VLProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = processor_defaults(Qwen2_5_VLProcessor)

    videos_kwargs: AOTQwenVLVideosKwargs


class AOTQwen2_5_VLProcessor(AOTQwenVLProcessor, Qwen2_5_VLProcessor):
    """The processor of [`AOTQwen2_5_VLForConditionalGeneration`], like [`AOTQwen3VLProcessor`]; it writes no times.

    A video has one run of placeholders, exactly as many as it keeps tokens under `retention_ratio`. Experimental.
    """

    valid_processor_kwargs = AOTQwen2_5_VLProcessorKwargs
    has_span_a_frame = False


for _processor in (AOTQwen2VLProcessor, AOTQwen2_5_VLProcessor, AOTQwen3VLProcessor):
    _processor.register_for_auto_class("AutoProcessor")

__all__ = ["AOTQwen2VLProcessor", "AOTQwen2_5_VLProcessor", "AOTQwen3VLProcessor"]
