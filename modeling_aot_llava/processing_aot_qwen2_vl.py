"""A Qwen2-VL processor that writes as many video placeholders as AOT keeps tokens. Experimental."""

from typing import TYPE_CHECKING

from transformers import Qwen2VLProcessor
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


class AOTQwen2VLProcessorKwargs(ProcessingKwargs, total=False):
    _defaults = processor_defaults(Qwen2VLProcessor)

    videos_kwargs: AOTQwenVLVideosKwargs


class AOTQwen2VLProcessor(AOTQwenVLProcessor, Qwen2VLProcessor):
    """The processor of [`AOTQwen2VLForConditionalGeneration`]. Experimental.

    Arguments, and what changes to the parent class, are those of [`AOTQwen2_5_VLProcessor`].
    """

    valid_processor_kwargs = AOTQwen2VLProcessorKwargs
    has_span_a_frame = False


AOTQwen2VLProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["AOTQwen2VLProcessor"]
