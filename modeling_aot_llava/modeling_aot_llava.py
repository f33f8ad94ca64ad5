"""LLaVA-OneVision on a tenth of its video tokens: the integration of AOT (arXiv 2603.01400) into transformers.

Since transformers 5.20 `forward` and `generate` take what the encoders made of images and videos, as
`mm_encoder_outputs`. So AOT encodes and compresses the videos, makes the prompt's placeholders as many as there are
tokens where they are not yet, hands both to the parent, and the parent does all the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionPreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .auto_map import AUTO_MAP_OF_CONFIG
from .call_videos import NAMES as NAMES_OF_CALL_VIDEOS
from .call_videos import CallVideos
from .checkpoint_keys import take_over_key_renamings
from .configuration_aot_llava import AOT_FIELDS, AOTLlavaOnevisionConfig
from .conversation_cache import count_cached_columns, find_caches, mark_as_fitted
from .encoded_video import EncodedVideo
from .encoding_once import encode_once
from .generation_options import GenerationOptions, check_chunked_prefill
from .kept_video_tokens import check_one_count_a_video, keeps_all_tokens, warn_of_other_anchors, warn_of_other_ratio
from .kernel_warm_up import EXPECTED_FRAMES, warm_up_kernels
from .llava_video_checkpoint import KEY_RENAMINGS
from .prompt import Prompt
from .prompt_fitting import as_one_tensor, check_no_video_is_missing, encode_images, encode_videos
from .served_vision_tower import ServedVisionTower
from .spatial_pooling import pool_grid
from .spatiotemporal_pruning import VideoTokens, add_newlines, with_base_newlines
from .stock_signature import called_as
from .video_encoding import encode_and_compress, joined_outputs
from .vllm_serving import check_can_be_served, is_served_by_vllm, vllm_compiles_vision_tower


def refuse_config_fields(arguments: Mapping[str, Any]) -> None:
    """Raises `ValueError` if a field of the config is among the arguments of a call, where nothing would read it."""
    for name in AOT_FIELDS:
        if name in arguments:
            remedy = (
                "the prompt decides how many tokens are kept: give it to the call of AOTLlavaOnevisionProcessor, or "
                "set `model.config.retention_ratio` for prompts of the stock processor."
                if name == "retention_ratio"
                else f"it is a field of the config: set `model.config.{name}`."
            )
            raise ValueError(f"`{name}={arguments[name]!r}` is an argument of the model's call, but {remedy}")


class AOTLlavaOnevisionModel(LlavaOnevisionModel):
    """LLaVA-OneVision without its language-model head, with AOT on the video path.

    Changes to the parent class:
    - `get_video_features` returns compressed video tokens; images are left alone.
    - the vision tower is watched at two layers, whatever its attention implementation.

    Its `forward` is the parent's: each video gives the tokens that `config.retention_ratio` asks for, or those that
    were encoded beforehand (`mm_encoder_outputs`).
    """

    config_class = AOTLlavaOnevisionConfig
    config: AOTLlavaOnevisionConfig

    def __init__(self, config: AOTLlavaOnevisionConfig):
        if not hasattr(config, "validate_aot"):
            raise TypeError(
                f"`config` is a {type(config).__name__}, but AOT needs an AOTLlavaOnevisionConfig. Load it with "
                "AOTLlavaOnevisionConfig.from_pretrained, which takes stock checkpoints too."
            )
        is_served = is_served_by_vllm(config)
        if is_served:
            check_can_be_served(config)
        super().__init__(config)
        if is_served and vllm_compiles_vision_tower():
            watched = (config.local_attention_layer, config.global_attention_layer)
            self.vision_tower = ServedVisionTower(config.vision_config, watched=watched)
        if is_served and torch.cuda.is_available():  # a server's first request is not to wait for a compiler
            gpu = torch.device("cuda", torch.cuda.current_device())
            warm_up_kernels(config, torch.get_default_dtype(), gpu, gpu)

    def save_pretrained(self, *args, **kwargs):
        self.config.auto_map = dict(AUTO_MAP_OF_CONFIG)
        super().save_pretrained(*args, **kwargs)

    @torch.compiler.disable
    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: Tensor,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        kept_video_tokens: list[int | None] | Tensor | None = None,
        **kwargs,
    ):
        """Video tokens as the language model takes them, newline tokens included.

        Args:
            pixel_values_videos: (videos, F, channels, height, width).
            vision_feature_layer, vision_feature_select_strategy: as in the parent class.
            kept_video_tokens: B of each video, newline tokens not counted; None where `config.retention_ratio`
                decides. vLLM passes the tensor that the processor made for it.

        Returns:
            The vision tower's output with `pooler_output` (videos, B + newlines, hidden size), or a list of (B +
            newlines, hidden size) where the videos' counts differ.

        Raises:
            ValueError: if `kept_video_tokens` has not one count a video, or a video cannot give as many.
        """
        refuse_config_fields(kwargs)
        self.config.validate_aot()
        if isinstance(kept_video_tokens, Tensor):
            kept_video_tokens = kept_video_tokens.flatten().tolist()
            warn_of_other_ratio(kept_video_tokens, pixel_values_videos.shape[1], self.config)
        check_one_count_a_video(kept_video_tokens, len(pixel_values_videos))
        if keeps_all_tokens(kept_video_tokens, pixel_values_videos.shape[1], self.config):
            of_layers = (vision_feature_layer, vision_feature_select_strategy)
            return self.get_whole_video_features(pixel_values_videos, *of_layers, **kwargs)
        vision_outputs: list[ModelOutput] = []
        videos = self.compress_videos(
            pixel_values_videos,
            vision_feature_layer,
            vision_feature_select_strategy,
            kept_video_tokens,
            on_vision_output=vision_outputs.append,
            **kwargs,
        )
        pooler_output = self.with_newlines(videos)
        return BaseModelOutputWithPooling(**{**joined_outputs(vision_outputs), "pooler_output": pooler_output})

    def get_whole_video_features(
        self,
        pixel_values_videos: Tensor,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPooling:
        """All tokens of videos, with the newline tokens of the config's base model: see `get_video_features`."""
        outputs = super().get_video_features(
            pixel_values_videos,
            vision_feature_layer=vision_feature_layer,
            vision_feature_select_strategy=vision_feature_select_strategy,
            **{**kwargs, "return_dict": True},
        )
        if self.config.mm_newline_position == "one_token":  # the only one that the parent knows
            return outputs
        tokens = outputs.pooler_output[:, :-1]
        return replace(outputs, pooler_output=with_base_newlines(tokens, self.image_newline, self.config))

    def feature_layers(self, vision_feature_layer: int | list[int] | None) -> list[int]:
        """Whose hidden states the projector takes; None for the config's."""
        layers = self.config.vision_feature_layer if vision_feature_layer is None else vision_feature_layer
        return [layers] if isinstance(layers, int) else layers

    def apply_pooling(self, image_features: Tensor) -> Tensor:
        if self.config.mm_spatial_pool_mode == "bilinear":
            return super().apply_pooling(image_features)
        grid = image_features.mT.unflatten(-1, (self.config.patch_grid_size, self.config.patch_grid_size))
        return pool_grid(grid, self.config.mm_spatial_pool_mode).flatten(2).mT

    def with_newlines(self, videos: list[VideoTokens]) -> Tensor | list[Tensor]:
        """The tokens of `compress_videos` with newline tokens: (videos, n, hidden size), or a list of (n, hidden size)
        where the videos' counts differ."""
        features = [add_newlines(video, self.image_newline, self.config) for video in videos]
        have_same_length = len({len(tokens) for tokens in features}) == 1
        return torch.stack(features) if have_same_length else features

    def compress_videos(
        self,
        pixel_values_videos: Tensor,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        kept_video_tokens: list[int | None] | None = None,
        **kwargs,
    ) -> list[VideoTokens]:
        """Each video's tokens, without newline tokens, and what a picture of them needs.

        Args: those of `get_video_features`, and more of the vision tower's.
        """
        refuse_config_fields(kwargs)
        self.config.validate_aot()
        check_one_count_a_video(kept_video_tokens, len(pixel_values_videos))
        warn_of_other_anchors(kept_video_tokens, pixel_values_videos.shape[1], self.config)
        strategy = vision_feature_select_strategy or self.config.vision_feature_select_strategy
        return encode_and_compress(
            pixel_values_videos,
            self.vision_tower,
            self.multi_modal_projector,
            self.config,
            feature_layers=self.feature_layers(vision_feature_layer),
            has_class_token=strategy == "default",
            kept_video_tokens=[None] * len(pixel_values_videos) if kept_video_tokens is None else kept_video_tokens,
            **kwargs,
        )

    def warm_up_kernels(self, num_frames: Iterable[int] = EXPECTED_FRAMES) -> None:
        """Compiles AOT's GPU kernels now; otherwise the first video that needs one waits some seconds for it.

        Args:
            num_frames: the lengths of videos to be ready for, at the config's retention ratio.
        """
        transport_device = next(self.multi_modal_projector.parameters()).device
        tower = self.vision_tower
        warm_up_kernels(self.config, tower.dtype, tower.device, transport_device, num_frames)

    @called_as(LlavaOnevisionModel.forward, more_keywords=NAMES_OF_CALL_VIDEOS)
    def forward(
        self,
        *,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_sizes_videos: Tensor | None = None,
        **kwargs,
    ):
        videos = CallVideos.taken_from(kwargs, pixel_values_videos, image_sizes_videos)
        prompt = Prompt(input_ids, inputs_embeds, attention_mask, position_ids)
        if not videos.are_plain:
            videos.check_are_alone(kwargs.get("mm_encoder_outputs"))
            of_layers = (kwargs.get("vision_feature_layer"), kwargs.get("vision_feature_select_strategy"))
            prompt, video = encode_videos(self, prompt, videos, *of_layers)
            kwargs["mm_encoder_outputs"] = as_one_tensor({**(kwargs.get("mm_encoder_outputs") or {}), "video": video})
            pixel_values_videos = None
        return super().forward(
            input_ids=prompt.input_ids,
            inputs_embeds=prompt.inputs_embeds,
            attention_mask=prompt.attention_mask,
            position_ids=prompt.position_ids,
            pixel_values_videos=pixel_values_videos,
            image_sizes_videos=image_sizes_videos,
            **kwargs,
        )


class AOTLlavaOnevisionForConditionalGeneration(LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision that answers from a tenth of the video tokens (AOT, arXiv 2603.01400), without training.

    Used as the parent class is: `from_pretrained` on an AOT or a stock LLaVA-OneVision checkpoint, then `generate`
    with a prompt made by `AOTLlavaOnevisionProcessor` or by the stock processor.

    Changes to the parent class:
    - videos reach the language model compressed, see [`AOTLlavaOnevisionModel`]. The call of the processor says how
      many tokens are kept; where it asks for all, everything is the parent's, bit for bit. A full prompt of the stock
      processor, which cannot ask, is cut down to `config.retention_ratio`. AOT adds no parameters.
    - a prompt whose placeholders are as many as the tokens, as `AOTLlavaOnevisionProcessor` writes it, is the parent's
      business alone. Any other is fitted: `forward` then computes logits and loss over the fitted prompt, labels of
      removed placeholders being ignored, and `generate` puts the caller's own prompt in front of the answer. What the
      caller passes to watch or steer the generation (streamer, processors, criteria) sees the prompt as it is run,
      and its cache serves no later turn of `generate`.
    """

    config_class = AOTLlavaOnevisionConfig
    config: AOTLlavaOnevisionConfig

    def __init__(self, config: AOTLlavaOnevisionConfig):
        # Not the parent's constructor: it would build, and initialise, the parent's inner model.
        LlavaOnevisionPreTrainedModel.__init__(self, config)
        self.model = AOTLlavaOnevisionModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def save_pretrained(self, *args, **kwargs):
        self.config.auto_map = dict(AUTO_MAP_OF_CONFIG)
        # By default transformers saves the keys' old names, which it converts for this class only where this code is.
        # The new ones need no conversion, so that the stock class loads the checkpoint as well.
        super().save_pretrained(*args, **{"save_original_format": False, **kwargs})

    def adjust_generation_fn(self, *args, **kwargs):
        # `from_pretrained(..., retention_ratio=0.2)` changes the config, not the generation config too.
        super().adjust_generation_fn(*args, **{key: kwargs[key] for key in kwargs if key not in AOT_FIELDS})

    def encode_video(
        self,
        *,
        pixel_values_videos: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_sizes_videos: Tensor | None = None,
        kept_video_tokens: list[int] | Tensor | None = None,
        video_metadata: list | None = None,
        source: str | None = None,
        **of_the_prompt,
    ) -> EncodedVideo:
        """Encodes one video for many questions: `model.encode_video(**processor(text="<video>", videos="clip.mp4"))`.

        What it returns stands wherever the processor takes a video, here or saved as a file; then neither the video,
        its decoder nor the vision tower is needed, and the answers are the same, bit for bit.

        Args:
            pixel_values_videos: (1, F, channels, height, width).
            input_ids, attention_mask, image_sizes_videos: of a prompt with this video, as the processor gives them;
                its placeholders say how many tokens are kept.
            kept_video_tokens: of a call of the processor without text, which says so instead.
            video_metadata: of a call with `return_metadata=True`: tells which frames these are.
            source: what the video is called, such as its path.
            of_the_prompt: what else the processor gave; it is not read.

        Raises:
            ValueError: if there are several videos, or prompt and video do not fit together.
        """
        refuse_config_fields(of_the_prompt)
        prompt = Prompt(input_ids=input_ids, attention_mask=attention_mask)
        return encode_once(
            self.model, prompt, pixel_values_videos, image_sizes_videos, kept_video_tokens, video_metadata, source
        )

    @called_as(LlavaOnevisionForConditionalGeneration.forward, more_keywords=NAMES_OF_CALL_VIDEOS)
    def forward(
        self,
        *,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_sizes_videos: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        vision_aspect_ratio: str | None = None,
        batch_num_images: Tensor | None = None,
        labels: Tensor | None = None,
        shift_labels: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs,
    ):
        refuse_config_fields(kwargs)
        written = prompt = Prompt(input_ids, inputs_embeds, attention_mask, position_ids, labels, shift_labels)
        of_layers = (vision_feature_layer, vision_feature_select_strategy)
        videos = CallVideos.taken_from(kwargs, pixel_values_videos, image_sizes_videos)
        videos.check_are_alone(mm_encoder_outputs)
        if videos and mm_encoder_outputs is None:
            prompt, video = encode_videos(self.model, written, videos, *of_layers)
            mm_encoder_outputs, pixel_values_videos = {"video": video}, None
            if pixel_values is not None:  # the parent takes pixels, or what was made of them, but not some of both
                mm_encoder_outputs["image"] = encode_images(
                    self.model, pixel_values, image_sizes, *of_layers, vision_aspect_ratio, batch_num_images
                )
                pixel_values = None
        elif not (mm_encoder_outputs or {}).get("video") and not find_caches(kwargs.values()):
            # With a cache the video may be in it, or assisted decoding tries placeholders: `generate` looks itself.
            check_no_video_is_missing(self.model, written)
        if prompt.shift_labels is not None:
            kwargs["shift_labels"] = prompt.shift_labels
        outputs = super().forward(
            input_ids=prompt.input_ids,
            pixel_values=pixel_values,
            image_sizes=image_sizes,
            pixel_values_videos=pixel_values_videos,
            attention_mask=prompt.attention_mask,
            position_ids=prompt.position_ids,
            inputs_embeds=prompt.inputs_embeds,
            vision_feature_layer=vision_feature_layer,
            vision_feature_select_strategy=vision_feature_select_strategy,
            vision_aspect_ratio=vision_aspect_ratio,
            batch_num_images=batch_num_images,
            labels=prompt.labels,
            mm_encoder_outputs=as_one_tensor(mm_encoder_outputs),
            **kwargs,
        )
        if prompt is not written:
            mark_as_fitted(outputs)
        return outputs

    @torch.no_grad()
    @called_as(LlavaOnevisionForConditionalGeneration.generate, more_keywords=NAMES_OF_CALL_VIDEOS)
    def generate(
        self,
        *,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        image_sizes_videos: Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs,
    ):
        refuse_config_fields(kwargs)
        input_ids = inputs if input_ids is None else input_ids
        written = prompt = Prompt(input_ids, inputs_embeds, attention_mask, position_ids)
        cached, new = written.split_after(count_cached_columns(kwargs.values()))
        options = GenerationOptions(kwargs, generation_config, self.generation_config)
        mm_encoder_outputs = dict(mm_encoder_outputs or {})
        of_layers = (vision_feature_layer, vision_feature_select_strategy)
        is_encoded = mm_encoder_outputs.get("video") is not None
        videos = CallVideos.taken_from(kwargs, pixel_values_videos, image_sizes_videos)
        videos.check_are_alone(mm_encoder_outputs)
        if videos or is_encoded:
            check_chunked_prefill(options)
        if videos and not is_encoded:
            fitted, mm_encoder_outputs["video"] = encode_videos(self.model, new, videos, *of_layers)
            pixel_values_videos = None
            if fitted is not new:
                prompt = fitted.behind(cached)
                generation_config, kwargs = options.with_prompt_shortened(written.num_columns - prompt.num_columns)
        elif not is_encoded:
            check_no_video_is_missing(self.model, new)
        given = {
            "input_ids": prompt.input_ids,
            "inputs_embeds": prompt.inputs_embeds,
            "attention_mask": prompt.attention_mask,
            "position_ids": prompt.position_ids,
            "pixel_values_videos": pixel_values_videos,
            "vision_feature_layer": vision_feature_layer,
            "vision_feature_select_strategy": vision_feature_select_strategy,
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


take_over_key_renamings(LlavaOnevisionConfig.model_type, AOTLlavaOnevisionConfig.model_type, KEY_RENAMINGS)
take_over_key_renamings(LlavaOnevisionModel.__name__, AOTLlavaOnevisionModel.__name__)

AOTLlavaOnevisionModel.register_for_auto_class("AutoModel")
AOTLlavaOnevisionForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["AOTLlavaOnevisionForConditionalGeneration", "AOTLlavaOnevisionModel"]
