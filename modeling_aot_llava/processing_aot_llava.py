"""A LLaVA-OneVision processor that writes as many video placeholders as AOT keeps tokens."""

import inspect
import math
import numbers
import os
from collections.abc import Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from transformers import (
    BatchFeature,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Tokenizer,
)
from transformers.processing_utils import MultiModalData, ProcessingKwargs, VideosKwargs
from transformers.video_utils import VideoInput

from .call_videos import ENCODED_TOKENS, as_tensors, merged, padded_frames
from .call_videos import NAMES as NAMES_OF_CALL_VIDEOS
from .encoded_in_prompt import check_is_asked_for
from .encoded_video import EncodedVideo
from .error_texts import show
from .keyword_check import check_keywords, keywords_of_call
from .llava_video_checkpoint import (
    CHAT_TEMPLATE,
    IMAGE_TOKEN_ID,
    VIDEO_TOKEN_ID,
    is_original,
    processor_config_of_original,
)
from .plain_numbers import plain
from .required_transformers import check_transformers
from .time_instruction import time_instruction
from .token_budget import (
    check_num_clips,
    check_retention_ratio,
    count_video_tokens,
    newline_places,
    pooled_grid_size,
)
from .unread_videos import as_strings, encoded_among, unencoded_among
from .video_limits import VideoLimits
from .video_pixel_values import make_pixel_values
from .vllm_serving import is_called_by_vllm, tells_vllm

# Of a folder on this machine transformers before 5.10 copies only the modules that this very file names, looks for all
# that those name, and fails with FileNotFoundError where one is missing: before a line of this file has run, so that
# no code can stand for these names. With them it gets as far as `check_transformers`, which says what is needed.
if TYPE_CHECKING:
    from .aot_fields import AOTFields as AOTFields
    from .frame_preparation import store_maker as store_maker
    from .parallel_decoding import decode_frames as decode_frames
    from .upright_frames import UprightFrames as UprightFrames
    from .video_contents import is_text as is_text
    from .video_decoding import decode_run as decode_run
    from .video_download import download as download
    from .video_index import FrameIndex as FrameIndex
    from .video_marks import marks_of as marks_of
    from .video_reading import read_video as read_video
    from .video_sources import Source as Source
    from .video_stream import Video as Video
    from .weights_fingerprint import fingerprint as fingerprint

check_transformers()

# The settings that are this processor's own, and none of its tokenizer's or its video processor's.
SETTINGS = (
    "retention_ratio",
    "num_clips",
    "num_frames",
    "mm_spatial_pool_mode",
    "mm_newline_position",
    "aot_newline_position",
    "add_time_instruction",
    "video_limits",
)

# How many tokens of each video to keep, newline not counted: an argument of the model's `get_video_features`.
KEPT_VIDEO_TOKENS = "kept_video_tokens"
# Height and width of each frame: an argument that the stock model takes, too, and leaves unread. It tells AOT's that
# the call has asked for as many tokens as there are placeholders; without it, a full prompt is the stock processor's.
FRAME_SIZES = "image_sizes_videos"


class AOTLlavaOnevisionVideosKwargs(VideosKwargs, total=False):
    """
    retention_ratio (`float`, *optional*):
        Share of the video tokens to keep in this call, instead of the processor's; 1 or more keeps all.
    add_time_instruction (`bool`, *optional*):
        Whether the times of the frames follow the video in this call, instead of the processor's.
    video_limits (`dict`, *optional*):
        What is refused of the videos of this call, instead of the processor's.
    """

    retention_ratio: Any
    add_time_instruction: bool | None
    video_limits: Any
    num_frames: numbers.Integral | None
    fps: numbers.Real | None


class AOTLlavaOnevisionProcessorKwargs(ProcessingKwargs, total=False):
    # transformers until 5.19 keeps the parent's defaults here.
    _defaults = getattr(LlavaOnevisionProcessor.valid_processor_kwargs, "_defaults", {})

    videos_kwargs: AOTLlavaOnevisionVideosKwargs


class AOTLlavaOnevisionProcessor(LlavaOnevisionProcessor):
    r"""
    The processor of [`AOTLlavaOnevisionForConditionalGeneration`].

    Changes to the parent class:
    - a video gets exactly as many placeholders as it has tokens, newline tokens included: for LLaVA-OneVision B + 1,
      for LLaVA-Video B and one for each row of each frame. B follows from `retention_ratio`; the model keeps as many
      tokens as the prompt has placeholders for: all of them with `retention_ratio >= 1`, or one that rounds to all.
    - `image_sizes_videos`, (videos, F, 2), height and width of each frame, is returned where the call names a ratio or
      keeps all tokens. It tells the model that this count was asked for; a full prompt without it is taken for the
      stock processor's, and cut down to the model's own ratio. The stock model takes it, too, and leaves it unread.
    - videos that are not decoded yet are read with PyAV: `num_frames` frames, uniformly from the first to the last.
      They may be given as all that [`~video_reading.read_video`] takes: path, `file://`, `http(s)://` or `data:`
      address, bytes, `io.BytesIO`, folder of frame pictures; here and in a conversation alike.
    - videos of different lengths are padded to the longest with NaN, and `num_video_frames`, (videos,), tells how many
      frames of each are its own; the model looks at no other.
    - a video may be an [`~encoded_video.EncodedVideo`], or the path of its file. Then `encoded_video_tokens`, (encoded
      videos, longest n, D), `encoded_video_lengths`, (all videos of the call,), and `encoded_video_marks` are returned
      for it, and no pixels.

    Args:
        image_processor, tokenizer, video_processor, num_image_tokens, vision_feature_select_strategy, chat_template,
        image_token, video_token, vision_aspect_ratio:
            as in the parent class.
        retention_ratio (`float`, *optional*, defaults to 0.1):
            Share of the video tokens to keep, 1 or more for all; also a keyword of each call.
        num_clips (`int`, *optional*, defaults to 8):
            `num_clips` of the model's config: B is never less than the number of clips.
        num_frames (`int`, *optional*, defaults to 32):
            Frames read from a video file, all of a shorter one; also a keyword of each call, as are `fps` and
            `do_sample_frames=False` (every frame, whatever `num_frames` and `fps` say).
        mm_spatial_pool_mode, mm_newline_position, aot_newline_position (`str`, *optional*):
            As in the model's config.
        add_time_instruction (`bool`, *optional*, defaults to `False`):
            Whether LLaVA-Video's sentence about the video's duration and the times of its frames follows the video;
            also a keyword of each call.
        video_limits (`dict`, *optional*):
            What is refused of videos that are read, as `{"max_bytes": 10**8, "public_addresses_only": True}`: the
            fields of [`~video_limits.VideoLimits`]; also a keyword of each call.
    """

    valid_processor_kwargs = AOTLlavaOnevisionProcessorKwargs
    # `_process_videos` does it where videos are equally long; vLLM takes a list of the others.
    skip_tensor_conversion = (
        *LlavaOnevisionProcessor.skip_tensor_conversion,
        "pixel_values_videos",
        *NAMES_OF_CALL_VIDEOS,
    )

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
        mm_spatial_pool_mode="bilinear",
        mm_newline_position="one_token",
        aot_newline_position=None,
        add_time_instruction=False,
        video_limits=None,
        **kwargs,
    ):
        self.retention_ratio = retention_ratio
        self.num_clips = num_clips
        self.num_frames = num_frames
        self.mm_spatial_pool_mode = mm_spatial_pool_mode
        self.mm_newline_position = mm_newline_position
        self.aot_newline_position = aot_newline_position
        self.add_time_instruction = add_time_instruction
        VideoLimits.of(video_limits)  # raises before a video is read
        self.video_limits = video_limits
        _add_missing_tokens(tokenizer, (image_token, video_token))
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
        for name in SETTINGS:
            # Folders that were saved by earlier versions have them here, where they would overrule the processor's.
            self.tokenizer.init_kwargs.pop(name, None)
        # vLLM hands an image's or a video's inputs to the model by the names that these list.
        self.video_processor.model_input_names = [*type(self.video_processor).model_input_names, KEPT_VIDEO_TOKENS]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, *args, **kwargs):
        """Like the parent's, but the settings of this class reach this class alone.

        An original LLaVA-Video checkpoint, which has no processor but only a tokenizer, gives the processor that
        belongs to it.

        Raises:
            TypeError: if a keyword is unknown and much like a setting of this class.
        """
        check_keywords(kwargs, {*inspect.signature(cls).parameters, *keywords_of_call(cls)}, SETTINGS)
        settings = {name: kwargs.pop(name) for name in SETTINGS if name in kwargs}
        if not cls.get_processor_dict(pretrained_model_name_or_path, **kwargs)[0]:
            config, _ = LlavaOnevisionConfig.get_config_dict(pretrained_model_name_or_path, **kwargs)
            if is_original(config):
                return cls._of_original(pretrained_model_name_or_path, config, settings, **kwargs)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        processor = loaded[0] if isinstance(loaded, tuple) else loaded  # with `return_unused_kwargs=True`
        for name, value in settings.items():
            setattr(processor, name, value)
        return loaded

    @classmethod
    def _of_original(cls, location: str | os.PathLike, flat: dict[str, Any], settings: dict[str, Any], **kwargs):
        values = processor_config_of_original(flat)
        processor = cls(
            image_processor=LlavaOnevisionImageProcessor(**values.pop("image_processor")),
            video_processor=LlavaOnevisionVideoProcessor(**values.pop("video_processor")),
            tokenizer=Qwen2Tokenizer.from_pretrained(location, **{"padding_side": "left", **kwargs}),
            chat_template=CHAT_TEMPLATE,
            **{**values, **settings},
        )
        token_ids = (processor.image_token_id, processor.video_token_id)
        if token_ids != (IMAGE_TOKEN_ID, VIDEO_TOKEN_ID):
            raise ValueError(
                f"The tokenizer of {show(str(location))} numbers {processor.image_token} and {processor.video_token} "
                f"{token_ids}, but the model reads {(IMAGE_TOKEN_ID, VIDEO_TOKEN_ID)}: it is not LLaVA-Video's."
            )
        return processor

    def to_dict(self) -> dict[str, Any]:
        """Like the parent's, with NumPy's numbers as Python's, which can be saved."""
        values = super().to_dict()
        return {**values, **{name: plain(values[name]) for name in SETTINGS}}

    def prepare_inputs_layout(self, images=None, text=None, videos: VideoInput | None = None, **kwargs):
        """Like the parent's; what is yet to be read gets the form that the parent's checks let pass."""
        return super().prepare_inputs_layout(images=images, text=text, videos=as_strings(videos), **kwargs)

    @tells_vllm
    def __call__(self, images=None, text=None, videos=None, audio=None, **kwargs):
        own = AOTLlavaOnevisionVideosKwargs.__annotations__.keys() - VideosKwargs.__annotations__ | {"num_frames"}
        check_keywords(kwargs, keywords_of_call(self), sorted(own), is_strict=is_called_by_vllm(kwargs))
        inputs = super().__call__(images=images, text=text, videos=videos, audio=audio, **kwargs)
        # vLLM asks where the placeholders are, and the model is told there how many tokens to keep. So do assistant
        # masks, together with the offsets of tokens; those inputs go to `forward`, which sees the placeholders.
        is_for_vllm = "text_replacement_offsets" in inputs and "offset_mapping" not in inputs
        if is_for_vllm and ENCODED_TOKENS in inputs:
            raise ValueError("vLLM keeps its own cache of encoded videos and takes none: send the video itself.")
        if text is not None:  # without a prompt, whose placeholders tell, the counts are all that `encode_video` has
            inputs.pop(FRAME_SIZES if is_for_vllm else KEPT_VIDEO_TOKENS, None)
        if not is_for_vllm and _are_tensors(inputs, kwargs):
            _pad_frames(inputs, kwargs.get("return_tensors"))
        return inputs

    def _process_videos(self, videos: VideoInput, retention_ratio: float | None = None, **kwargs):
        self._count_placeholders(1, retention_ratio)  # raises before any video is read
        encoded = encoded_among(videos)
        if not any(encoded):
            return self._process_unencoded(videos, retention_ratio, **kwargs)
        for video in encoded:
            if video is not None:
                check_is_asked_for(video, self, retention_ratio, kwargs, self._pooled_grid_size**2)
        others, kwargs = unencoded_among(videos, encoded, kwargs)
        processed, replacements = BatchFeature(), []
        if others:
            processed, replacements = self._process_unencoded(others, retention_ratio, **kwargs)
        own = [video and self._text_of_encoded(video, kwargs.get("add_time_instruction")) for video in encoded]
        if kwargs.get("return_metadata"):
            known = [video and video.metadata for video in encoded]
            processed["video_metadata"] = merged(known, processed.get("video_metadata", []))
        processed.update(as_tensors(encoded))
        return processed, merged(own, replacements)

    def _text_of_encoded(self, video: EncodedVideo, add_time_instruction: bool | None) -> str:
        add_times = self.add_time_instruction if add_time_instruction is None else add_time_instruction
        return self.video_token * len(video.tokens) + (time_instruction(video.metadata) if add_times else "")

    def _process_unencoded(
        self,
        videos: VideoInput,
        retention_ratio: float | None = None,
        add_time_instruction: bool | None = None,
        video_limits: dict[str, Any] | None = None,
        **kwargs,
    ):
        kwargs = {name: plain(value) if name in ("num_frames", "fps") else value for name, value in kwargs.items()}
        limits = VideoLimits.of(self.video_limits if video_limits is None else video_limits)
        return_tensors = kwargs.pop("return_tensors", None)
        add_times = self.add_time_instruction if add_time_instruction is None else add_time_instruction
        returns_metadata = kwargs.pop("return_metadata", False)
        kwargs["return_metadata"] = returns_metadata or add_times
        processed_videos = make_pixel_values(self.video_processor, videos, kwargs, self.num_frames, limits)
        num_videos = len(processed_videos["pixel_values_videos"])
        if num_videos == 1 and return_tensors == "pt":
            # Not as lists are converted, which copies.
            processed_videos["pixel_values_videos"] = processed_videos["pixel_values_videos"][0][None]
        elif len({len(video) for video in processed_videos["pixel_values_videos"]}) == 1:
            processed_videos.convert_to_tensors(return_tensors)
        replacements = [
            self.replace_video_token(processed_videos, video_idx, retention_ratio=retention_ratio)
            for video_idx in range(num_videos)
        ]
        if add_times:
            sentences = map(time_instruction, processed_videos["video_metadata"])
            replacements = [video + sentence for video, sentence in zip(replacements, sentences)]
            if not returns_metadata:
                processed_videos.pop("video_metadata")
        pixels = processed_videos["pixel_values_videos"]
        counts = [self._count_video_tokens(len(video), retention_ratio) for video in pixels]
        processed_videos[KEPT_VIDEO_TOKENS] = counts
        keeps_all = any(count == len(video) * self._pooled_grid_size**2 for count, video in zip(counts, pixels))
        if retention_ratio is not None or keeps_all:
            processed_videos[FRAME_SIZES] = _frame_sizes(pixels)
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
        num_tokens, side = self._count_video_tokens(num_frames, retention_ratio), self._pooled_grid_size
        position = self.mm_newline_position
        if num_tokens < num_frames * side**2 and self.aot_newline_position is not None:
            position = self.aot_newline_position
        return num_tokens + len(newline_places(num_frames, side, position))

    @property
    def _pooled_grid_size(self) -> int:
        return pooled_grid_size(math.isqrt(self.num_image_tokens), self.mm_spatial_pool_mode)

    def _count_video_tokens(self, num_frames: int, retention_ratio: float | None) -> int:
        retention_ratio = self.retention_ratio if retention_ratio is None else retention_ratio
        check_retention_ratio(retention_ratio)
        check_num_clips(self.num_clips)
        return count_video_tokens(num_frames, retention_ratio, self._pooled_grid_size**2, self.num_clips)


def _add_missing_tokens(tokenizer, tokens: tuple[str, ...]) -> None:
    # The tokenizer of an original LLaVA-Video checkpoint is Qwen2's.
    missing = [token for token in tokens if tokenizer.convert_tokens_to_ids(token) in (None, tokenizer.unk_token_id)]
    if missing:
        tokenizer.add_tokens(missing, special_tokens=True)


def _are_tensors(inputs: Mapping[str, Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the call asks for tensors, into which videos of different lengths fit with padding alone."""
    return bool(kwargs.get("return_tensors")) or not isinstance(inputs.get("input_ids", []), list)


def _pad_frames(inputs: MutableMapping[str, Any], return_tensors: str | None) -> None:
    videos = inputs.get("pixel_values_videos")
    if isinstance(videos, list):
        inputs.update(BatchFeature(padded_frames(videos), tensor_type=return_tensors))


def _frame_sizes(videos: Sequence[Any]) -> list[list[list[int]]]:
    """(videos, longest F, 2): height and width of each frame, 0 of those that pad a video."""
    longest = max(map(len, videos))
    return [[list(frame.shape[-2:]) for frame in video] + [[0, 0]] * (longest - len(video)) for video in videos]


AOTLlavaOnevisionProcessor.register_for_auto_class("AutoProcessor")

__all__ = ["AOTLlavaOnevisionProcessor"]
