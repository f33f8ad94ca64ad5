"""What AOT's models of the Qwen-VL family share: `forward`, `generate`, and how they are loaded and saved.

Since transformers 5.20 `forward` and `generate` take what the encoders made of images and videos, as
`mm_encoder_outputs`. So AOT encodes and compresses the videos, fits the prompt's placeholders where they are not as
many as the tokens, tells the positions of what is left, and the stock model does all the rest.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import can_return_tuple

from .aot_fields import aot_fields_of
from .conversation_cache import count_cached_columns, find_caches, mark_as_fitted
from .generation_options import GenerationOptions, check_chunked_prefill
from .mrope_positions import modality_types, with_text_positions
from .prompt import Prompt
from .qwen_vl_call_videos import QwenVLCallVideos
from .qwen_vl_encoded_video import QwenVLEncodedVideo
from .qwen_vl_encoding_once import encode_once
from .qwen_vl_releases import check_release
from .qwen_vl_videos import (
    FittedVideos,
    as_output,
    check_no_video_is_missing,
    encode_by_ratio,
    fit_videos,
)


class AOTQwenVLModel:
    """The part of an inner model, without the language-model head, that the family shares.

    A subclass is a stock inner model as well, and says what differs between the hosts:

    Attributes:
        has_span_a_frame: whether a prompt has a run of placeholders for each frame; else one for each video.
        features_class: what the stock `get_video_features` returns.
    """

    has_span_a_frame: bool
    features_class: type

    def __init__(self, config):
        check_release()
        if not hasattr(config, "validate_aot"):
            own = self.config_class.__name__
            raise TypeError(
                f"`config` is a {type(config).__name__}, but AOT needs an {own}. Load it with "
                f"{own}.from_pretrained, which takes stock checkpoints too."
            )
        if config.text_config._attn_implementation == "vllm":
            raise ValueError(
                f"{type(self).__name__} cannot be served by vLLM, which fixes the positions of a video's tokens "
                "before any frame is encoded, while AOT chooses them by what the frames show: serve the stock "
                "checkpoint, or generate with transformers."
            )
        super().__init__(config)

    @property
    def num_deepstack_layers(self) -> int:
        """How many further features each token brings."""
        return len(getattr(self.config.vision_config, "deepstack_visual_indexes", None) or ())

    def raster_order(self, grid_thw: tuple[int, int, int]) -> Tensor | None:
        """Where the tower runs tokens in another order than frame by frame, row by row: the indices that undo it."""
        return None

    def run_vision_tower(self, pixels: Tensor, grid_thw: tuple[int, int, int]):
        """The vision tower's output for some frames of a video."""
        grid = pixels.new_tensor([grid_thw]).long()
        return self.visual(pixels.to(self.visual.dtype), grid_thw=grid, return_dict=True)

    def whole_video_features(self, pixel_values_videos: Tensor, video_grid_thw: Tensor | None = None, **kwargs):
        """The stock model's features of whole videos."""
        return super().get_video_features(pixel_values_videos, video_grid_thw, **{**kwargs, "return_dict": True})

    @can_return_tuple
    def get_video_features(self, pixel_values_videos: Tensor, video_grid_thw: Tensor | None = None, **kwargs):
        """Encodes videos, and compresses each to `config.retention_ratio`.

        Args: as in the stock class.

        Returns:
            The stock output with `pooler_output`, a list of (B, hidden size), one a video, and DeepStack's features
            alike.
        """
        if self.config.retention_ratio >= 1:
            return super().get_video_features(pixel_values_videos, video_grid_thw, **kwargs)
        return as_output(self, encode_by_ratio(self, pixel_values_videos, video_grid_thw))

    def forward(self, **kwargs):
        return _forward(self, super().forward, {}, **kwargs)


class AOTQwenVLForConditionalGeneration:
    """The part of a model with its language-model head that the family shares; a subclass is a stock one as well.

    Attributes:
        inner_class: AOT's model without the head.
    """

    inner_class: type[AOTQwenVLModel]

    def __init__(self, config):
        # Not the stock model's constructor: it would build, and initialise, the stock inner model.
        PreTrainedModel.__init__(self, config)
        self.model = self.inner_class(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def save_pretrained(self, *args, **kwargs):
        self.config.auto_map = {
            "AutoConfig": _reference(type(self.config)),
            "AutoModel": _reference(type(self.model)),
            **dict.fromkeys(
                ("AutoModelForImageTextToText", "AutoModelForMultimodalLM", "AutoModelForPreTraining"),
                _reference(type(self)),
            ),
        }
        super().save_pretrained(*args, **kwargs)

    def adjust_generation_fn(self, *args, **kwargs):
        # `from_pretrained(..., retention_ratio=0.2)` changes the config, not the generation config too.
        own = aot_fields_of(type(self.config))
        super().adjust_generation_fn(*args, **{key: kwargs[key] for key in kwargs if key not in own})

    def encode_video(
        self,
        *,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        video_metadata: list | None = None,
        source: str | None = None,
        **of_the_prompt,
    ) -> QwenVLEncodedVideo:
        """Encodes one video for many questions, of a call of the processor with `return_metadata=True`.

        `model.encode_video(**processor(text="<|video_pad|>", videos="clip.mp4", return_metadata=True))`. What it
        returns stands wherever the processor takes a video, here or saved as a file; then neither the video, its
        decoder nor the vision tower is needed, and the answers are the same, bit for bit.

        Args:
            pixel_values_videos, video_grid_thw: of one video, as the processor gives them.
            input_ids, attention_mask: of a prompt with this video, whose placeholders say how many tokens are kept.
            video_metadata: tells when the frames are shown, of which later prompts tell.
            source: what the video is called, such as its path.
            of_the_prompt: what else the processor gave. Of it `kept_video_tokens` says how many tokens are kept where
                there is no prompt; the rest is not read.

        Raises:
            ValueError: if there are several videos, prompt and video do not fit together, or a time is not known.
        """
        refuse_config_fields(of_the_prompt, self.config)
        prompt = Prompt(input_ids=input_ids, attention_mask=attention_mask)
        videos = QwenVLCallVideos.taken_from(of_the_prompt, pixel_values_videos, video_grid_thw)
        return encode_once(self.model, prompt, videos, video_metadata, source)

    def forward_with_videos(self, labels: Tensor | None = None, shift_labels: Tensor | None = None, **kwargs):
        """The stock `forward`, with the call's videos compressed and the labels of the columns that are left."""
        given = {"labels": labels, "shift_labels": shift_labels}
        given = {name: value for name, value in given.items() if value is not None}
        return _forward(self.model, super().forward, given, **kwargs)

    def generate_with_videos(
        self,
        *,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs,
    ):
        """The stock `generate`, with the call's videos compressed and the caller's own prompt before the answer."""
        refuse_config_fields(kwargs, self.config)
        input_ids = inputs if input_ids is None else input_ids
        written = prompt = Prompt(input_ids, attention_mask=attention_mask, position_ids=position_ids)
        num_cached = count_cached_columns(kwargs.values())
        options = GenerationOptions(kwargs, generation_config, self.generation_config)
        mm_encoder_outputs = dict(mm_encoder_outputs or {})
        is_encoded = mm_encoder_outputs.get("video") is not None
        videos = QwenVLCallVideos.taken_from(kwargs, pixel_values_videos, video_grid_thw)
        videos.check_are_alone(mm_encoder_outputs)
        if videos or is_encoded:
            check_chunked_prefill(options)
        if videos and not is_encoded:
            if num_cached:
                raise ValueError(_NEW_VIDEO)
            fitted = _fit(self.model, written, videos, kwargs)
            mm_encoder_outputs["video"], pixel_values_videos = fitted.video, None
            if fitted.prompt is not written:
                prompt, mm_token_type_ids = fitted.prompt, modality_types(fitted.prompt.input_ids, self.config)
                num_removed = written.num_columns - prompt.num_columns
                generation_config, kwargs = options.with_prompt_shortened(num_removed)
            position_ids = fitted.position_ids
            if fitted.rope_deltas is not None:
                position_ids = with_text_positions(position_ids, prompt.attention_mask)
                self.model.rope_deltas = fitted.rope_deltas  # by which later turns number their columns
        elif not is_encoded and input_ids is not None:
            is_new_alone = attention_mask is not None and attention_mask.shape[-1] > input_ids.shape[1]
            check_no_video_is_missing(input_ids[:, 0 if is_new_alone else num_cached :], self.config)
        if num_cached and kwargs.get("pixel_values") is not None and _has_video(input_ids, self.config):
            raise ValueError(_NEW_IMAGE)
        given = {
            "input_ids": prompt.input_ids,
            "attention_mask": prompt.attention_mask,
            "position_ids": position_ids,
            "pixel_values_videos": pixel_values_videos,
            "video_grid_thw": video_grid_thw,
            "mm_token_type_ids": mm_token_type_ids,
            "mm_encoder_outputs": mm_encoder_outputs,
        }
        given = {name: value for name, value in given.items() if value is not None}
        output = super().generate(generation_config=generation_config, **given, **kwargs)
        if prompt is written:
            return output
        mark_as_fitted(kwargs.values())
        if isinstance(output, Tensor):
            return written.instead_of(prompt, output)
        mark_as_fitted(output)
        return replace(output, sequences=written.instead_of(prompt, output.sequences))


def refuse_config_fields(arguments: Mapping[str, Any], config) -> None:
    """Raises `ValueError` if a field of the config is among the arguments of a call, where nothing would read it."""
    for name in aot_fields_of(type(config)):
        if name in arguments:
            remedy = "give it to the processor, or " if name == "retention_ratio" else ""
            raise ValueError(
                f"`{name}={arguments[name]!r}` is an argument of the model's call, but it is a field of the config: "
                f"{remedy}set `model.config.{name}`."
            )


_NEW_VIDEO = (
    "A video in a later turn, on a cache that holds the earlier ones, is not supported: pass the whole conversation "
    "with all its videos, and no cache."
)
_NEW_IMAGE = (
    "An image in a later turn, on a cache that holds a compressed video, is not supported: pass the whole "
    "conversation with its images and videos, and no cache."
)
# Beside the prompt, what the positions of a host depend on.
_GRIDS = ("image_grid_thw", "second_per_grid_ts")


def _forward(
    model: AOTQwenVLModel,
    stock_forward: Callable[..., Any],
    labels: dict[str, Tensor],
    *,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    pixel_values: Tensor | None = None,
    pixel_values_videos: Tensor | None = None,
    video_grid_thw: Tensor | None = None,
    mm_token_type_ids: Tensor | None = None,
    mm_encoder_outputs: dict[str, Any] | None = None,
    **kwargs,
):
    """The stock `forward` of a model with or without head; what it takes as `labels` changes with the prompt."""
    refuse_config_fields(kwargs, model.config)
    written = prompt = Prompt(input_ids, attention_mask=attention_mask, position_ids=position_ids, **labels)
    videos = QwenVLCallVideos.taken_from(kwargs, pixel_values_videos, video_grid_thw)
    videos.check_are_alone(mm_encoder_outputs)
    has_encoded = videos.encoded_video_tokens is not None
    is_the_stock_models = input_ids is None and model.config.retention_ratio >= 1 and not has_encoded
    if videos and mm_encoder_outputs is None and not is_the_stock_models:
        caches = find_caches(kwargs.values())
        if caches and count_cached_columns(caches):
            raise ValueError(_NEW_VIDEO)
        fitted = _fit(model, written, videos, kwargs)
        prompt, position_ids, pixel_values_videos = fitted.prompt, fitted.position_ids, None
        mm_encoder_outputs = {"video": fitted.video}
        if fitted.rope_deltas is not None:
            model.rope_deltas = fitted.rope_deltas  # by which the stock model numbers what comes behind a cache
        if prompt is not written:
            mm_token_type_ids = modality_types(prompt.input_ids, model.config)
        if pixel_values is not None:  # the parent takes pixels, or what was made of them, but not some of both
            mm_encoder_outputs["image"] = model.get_image_features(
                pixel_values, kwargs.get("image_grid_thw"), return_dict=True
            )
            pixel_values = None
    elif not (mm_encoder_outputs or {}).get("video") and not find_caches(kwargs.values()):
        check_no_video_is_missing(input_ids, model.config)
    left = {name: getattr(prompt, name) for name in labels}
    outputs = stock_forward(
        input_ids=prompt.input_ids,
        attention_mask=prompt.attention_mask,
        position_ids=position_ids,
        pixel_values=pixel_values,
        pixel_values_videos=pixel_values_videos,
        video_grid_thw=video_grid_thw,
        mm_token_type_ids=mm_token_type_ids,
        mm_encoder_outputs=mm_encoder_outputs,
        **left,
        **kwargs,
    )
    if prompt is not written:
        mark_as_fitted(outputs)
    return outputs


def _fit(
    model: AOTQwenVLModel, written: Prompt, videos: QwenVLCallVideos, arguments: Mapping[str, Any]
) -> FittedVideos:
    grids = {name: arguments[name] for name in _GRIDS if arguments.get(name) is not None}
    return fit_videos(model, written, videos, **grids)


def _has_video(input_ids: Tensor | None, config) -> bool:
    return input_ids is not None and bool((input_ids == config.video_token_id).any())


def _reference(own_class: type) -> str:
    return f"{own_class.__module__.rsplit('.', 1)[-1]}.{own_class.__name__}"
