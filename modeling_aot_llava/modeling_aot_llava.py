"""LLaVA-OneVision on a tenth of its video tokens: the integration of AOT (arXiv 2603.01400) into transformers."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Cache,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionModel,
    LlavaOnevisionPreTrainedModel,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.utils import ModelOutput, output_capturing
from transformers.utils.generic import can_return_tuple

from .attention_capture import capture_attention_received
from .callers_prompt import CallersPrompt
from .configuration_aot_llava import AOT_FIELDS, AOTLlavaOnevisionConfig
from .prompt_layout import PADDING, PlaceholderSpan, find_placeholder_spans, resized_layout, take_columns
from .spatiotemporal_pruning import (
    FRAMES_AT_ONCE,
    FrameTokens,
    VideoTokens,
    compress_along_time,
    compress_frames,
)
from .token_budget import TokenBudget, plan_token_budget, pooled_tokens_per_frame

# Since transformers 5.20 `get_video_features` appends the newline token itself; before, `forward` did.
FEATURES_END_WITH_NEWLINE = (
    "pixel_values_videos" in inspect.signature(LlavaOnevisionModel.get_video_features).parameters
)

# Newer releases keep only those hidden states of the vision tower that are asked for by index; older ones keep all.
CAN_SELECT_HIDDEN_STATES = hasattr(output_capturing, "select_hidden_states")

# What `embed_prompt` turns into embeddings.
PROMPT_INPUTS = (
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    "labels",
    "pixel_values",
    "image_sizes",
    "batch_num_images",
    "vision_aspect_ratio",
    "pixel_values_videos",
    "vision_feature_layer",
    "vision_feature_select_strategy",
)

IGNORED_LABEL = -100


@dataclass
class EmbeddedPrompt:
    """A prompt whose placeholders have been replaced by image features and compressed video tokens.

    Attributes:
        inputs_embeds: (rows, columns, hidden size).
        input_ids, attention_mask, position_ids, labels: (rows, columns) as the caller passed them, or None; laid out
            anew where the number of placeholders changed.
        image_features: (tokens, hidden size) of all images, or None.
        video_features: (tokens, hidden size) of all videos, newline tokens included.
        was_resized: whether the number of placeholders changed.
    """

    inputs_embeds: Tensor
    input_ids: Tensor | None
    attention_mask: Tensor | None
    position_ids: Tensor | None
    labels: Tensor | None
    image_features: Tensor | None
    video_features: Tensor
    was_resized: bool


class AOTLlavaOnevisionModel(LlavaOnevisionModel):
    """LLaVA-OneVision without its language-model head, with AOT on the video path.

    Changes to the parent class:
    - `get_video_features` returns compressed video tokens; images are left alone.
    - `forward` keeps as many tokens of each video as the prompt has placeholders for; the stock processor's full
      count is cut down to `config.retention_ratio`.
    - the vision tower is watched at two layers, whatever its attention implementation.
    """

    config_class = AOTLlavaOnevisionConfig
    config: AOTLlavaOnevisionConfig

    def __init__(self, config: AOTLlavaOnevisionConfig):
        if not hasattr(config, "validate_aot"):
            raise TypeError(
                f"`config` is a {type(config).__name__}, but AOT needs an AOTLlavaOnevisionConfig. Load it with "
                "AOTLlavaOnevisionConfig.from_pretrained, which takes stock checkpoints too."
            )
        super().__init__(config)

    @can_return_tuple
    def get_video_features(
        self,
        pixel_values_videos: Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        num_video_tokens: list[int | None] | None = None,
        **kwargs,
    ):
        """Video tokens as the language model takes them.

        Args:
            pixel_values_videos: (videos, F, channels, height, width); `pixel_values` until transformers 5.19.
            vision_feature_layer, vision_feature_select_strategy: as in the parent class.
            num_video_tokens: B of each video, newline token not counted; None where `config.retention_ratio` decides.

        Returns:
            The vision tower's output with `pooler_output` (videos, B, hidden size), or a list of (B, hidden size)
            where the videos' counts differ. As in the parent class the newline token is the last row since
            transformers 5.20, and absent before.
        """
        if pixel_values_videos is None:
            pixel_values_videos = kwargs.pop("pixel_values")
        self.config.validate_aot()
        if self.config.retention_ratio >= 1 and num_video_tokens is None:
            return super().get_video_features(
                pixel_values_videos,
                vision_feature_layer=vision_feature_layer,
                vision_feature_select_strategy=vision_feature_select_strategy,
                **kwargs,
            )
        vision_outputs: list[ModelOutput] = []
        videos = self.compress_videos(
            pixel_values_videos,
            vision_feature_layer,
            vision_feature_select_strategy,
            num_video_tokens,
            on_vision_output=vision_outputs.append,
            **kwargs,
        )
        features = [video.tokens for video in videos]
        if FEATURES_END_WITH_NEWLINE:
            features = [self._append_newline(tokens) for tokens in features]
        same_length = len({len(tokens) for tokens in features}) == 1
        outputs = _joined(vision_outputs)
        outputs.pooler_output = torch.stack(features) if same_length else features
        return outputs

    def compress_videos(
        self,
        pixel_values_videos: Tensor,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        num_video_tokens: list[int | None] | None = None,
        on_vision_output: Callable[[ModelOutput], Any] | None = None,
        **kwargs,
    ) -> list[VideoTokens]:
        """Runs vision tower, projector and AOT, on at most `FRAMES_AT_ONCE` frames at a time, of one video or several.

        Beside those frames' activations only the tokens that their frames keep stay in memory, so that it hardly
        grows with a video's length.

        Args: those of `get_video_features`, and
            on_vision_output: is given the vision tower's output of each part.

        Returns:
            For each video its tokens, with everything that a picture of them needs.
        """
        self.config.validate_aot()
        num_videos, num_frames = pixel_values_videos.shape[:2]
        budgets = [
            plan_token_budget(self.config, num_frames, count) for count in num_video_tokens or [None] * num_videos
        ]
        feature_layers = self._feature_layers(vision_feature_layer)
        strategy = vision_feature_select_strategy or self.config.vision_feature_select_strategy
        watched = (self.config.local_attention_layer, self.config.global_attention_layer)
        if not kwargs.get("output_hidden_states"):
            kwargs["output_hidden_states"] = feature_layers if CAN_SELECT_HIDDEN_STATES else True
        kwargs["return_dict"] = True

        with capture_attention_received(self.vision_tower, watched) as received:

            def encode(videos: Tensor) -> list[Tensor]:
                outputs = self.vision_tower(videos.flatten(0, 1), **kwargs)
                if on_vision_output is not None:
                    on_vision_output(outputs)
                features = _concatenated([outputs.hidden_states[layer] for layer in feature_layers])
                values = [features, *(received[layer].to(features.device) for layer in watched)]
                if strategy == "default":  # without the [CLS] token
                    values = [value[:, 1:] for value in values]
                return [value.unflatten(0, videos.shape[:2]) for value in values]

            videos_at_once = max(1, FRAMES_AT_ONCE // num_frames)
            videos = []
            for first in range(0, num_videos, videos_at_once):
                together = slice(first, first + videos_at_once)
                videos += self._compress_together(pixel_values_videos[together], budgets[together], encode)
            return videos

    def _compress_together(
        self, pixels: Tensor, budgets: list[TokenBudget], encode: Callable[[Tensor], list[Tensor]]
    ) -> list[VideoTokens]:
        # One long video, or several short ones.
        def compress_part(first_frame: int) -> list[tuple[FrameTokens, Tensor]]:
            features, *attention = encode(pixels[:, first_frame : first_frame + FRAMES_AT_ONCE])
            per_video = zip(self.multi_modal_projector(features), *attention, budgets)
            return [
                (compress_frames(*of_video, self.config, first_frame), frame_features)
                for of_video, frame_features in zip(per_video, features.mean(2))
            ]

        parts = map(compress_part, range(0, pixels.shape[1], FRAMES_AT_ONCE))
        videos = []
        for budget, parts_of_video in zip(budgets, zip(*parts)):
            frames, frame_features = zip(*parts_of_video)
            frames = FrameTokens.join(frames)
            videos.append(compress_along_time(frames, budget, self.config, torch.cat(frame_features)))
        return videos

    def embed_prompt(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        batch_num_images: Tensor | None = None,
        vision_aspect_ratio: str | None = None,
        pixel_values_videos: Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
    ) -> EmbeddedPrompt | None:
        """Puts image features and compressed video tokens into the prompt's embeddings.

        Each video keeps as many tokens as it has placeholders, less one for the newline. A video with the full,
        uncompressed count is cut down to `config.retention_ratio`, and its spare placeholders with it.

        Args: those of `forward`.

        Returns:
            None if AOT has nothing to do: no video, or all with their full count and `config.retention_ratio >= 1`.

        Raises:
            ValueError: if placeholders and videos do not fit together.
        """
        if pixel_values_videos is None:
            return None
        self.config.validate_aot()
        is_image, is_video = self._placeholder_masks(input_ids, inputs_embeds)
        spans = find_placeholder_spans(is_video, len(pixel_values_videos))
        counts = self._tokens_to_keep(spans, num_frames=pixel_values_videos.shape[1])
        if counts is None:
            return None

        options = {
            "vision_feature_layer": vision_feature_layer,
            "vision_feature_select_strategy": vision_feature_select_strategy,
        }
        videos = self.compress_videos(pixel_values_videos, num_video_tokens=counts, **options)
        video_features = [self._append_newline(video.tokens) for video in videos]
        image_features = None
        if pixel_values is not None:
            options |= {"vision_aspect_ratio": vision_aspect_ratio, "batch_num_images": batch_num_images}
            image_outputs = self.get_image_features(pixel_values, image_sizes, return_dict=True, **options)
            image_features = torch.cat(image_outputs.pooler_output)

        prompt = {
            "inputs_embeds": self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds,
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "labels": labels,
            "is_image": is_image,
            "is_video": is_video,
        }
        new_lengths = [len(features) for features in video_features]
        was_resized = new_lengths != [span.length for span in spans]
        if was_resized:
            prompt = self._resize_placeholders(prompt, spans, new_lengths)
        video_features = torch.cat(video_features)
        embeds = _scatter(prompt["inputs_embeds"], prompt.pop("is_video"), video_features, "video")
        is_image = prompt.pop("is_image")
        if image_features is not None:
            embeds = _scatter(embeds, is_image, image_features, "image")
        return EmbeddedPrompt(
            **{**prompt, "inputs_embeds": embeds},
            image_features=image_features,
            video_features=video_features,
            was_resized=was_resized,
        )

    @wraps(LlavaOnevisionModel.forward)
    @can_return_tuple
    def forward(self, *args, **kwargs):
        kwargs = _as_keywords(LlavaOnevisionModel.forward, args, kwargs)
        prompt = self.embed_prompt(**_select(kwargs, PROMPT_INPUTS))
        if prompt is None:
            return super().forward(**kwargs, return_dict=True)
        outputs = super().forward(**_with_prompt(kwargs, prompt), return_dict=True)
        outputs.image_hidden_states, outputs.video_hidden_states = prompt.image_features, prompt.video_features
        return outputs

    def _placeholder_masks(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> tuple[Tensor, Tensor]:
        # The parent's way to tell placeholders apart: by their ids or, where only embeddings came, by theirs.
        if input_ids is None and inputs_embeds is None:
            raise ValueError("`input_ids` and `inputs_embeds` are both None: pass one of them beside the video.")
        embeds = input_ids.unsqueeze(-1) if inputs_embeds is None else inputs_embeds
        is_image, is_video = self.get_placeholder_mask(input_ids, inputs_embeds=embeds)
        return is_image.squeeze(-1), is_video.squeeze(-1)

    def _tokens_to_keep(self, spans: list[PlaceholderSpan], num_frames: int) -> list[int | None] | None:
        full_count = num_frames * pooled_tokens_per_frame(self.config.patch_grid_size) + 1
        for video, span in enumerate(spans):
            if not 2 <= span.length <= full_count:
                raise ValueError(
                    f"The prompt has {span.length} placeholders for video {video}, but its {num_frames} frames give "
                    f"from 2 to {full_count} (newline token included). Make prompt and pixels with one call of "
                    "AOTLlavaOnevisionProcessor."
                )
        if self.config.retention_ratio >= 1 and all(span.length == full_count for span in spans):
            return None
        return [None if span.length == full_count else span.length - 1 for span in spans]

    def _feature_layers(self, vision_feature_layer: int | list[int] | None) -> list[int]:
        layers = self.config.vision_feature_layer if vision_feature_layer is None else vision_feature_layer
        return [layers] if isinstance(layers, int) else list(layers)

    def _append_newline(self, tokens: Tensor) -> Tensor:
        return torch.cat([tokens, self.image_newline[None].to(tokens)])

    def _resize_placeholders(
        self, prompt: dict[str, Tensor | None], spans: list[PlaceholderSpan], new_lengths: list[int]
    ) -> dict[str, Tensor | None]:
        num_columns = prompt["is_video"].shape[1]
        mask = prompt["attention_mask"]
        has_mask = mask is not None
        if not has_mask:
            mask = torch.ones_like(prompt["is_video"], dtype=torch.long)
        if mask.dim() != 2:
            raise ValueError(
                f"`attention_mask` has {mask.dim()} dimensions, but the number of video placeholders changes here, "
                "which needs a mask of (rows, columns). Make the prompt with AOTLlavaOnevisionProcessor."
            )
        # After a cache the mask also tells of the tokens there, which stay as they are.
        cached_mask, prompt["attention_mask"] = mask[:, :-num_columns], mask[:, -num_columns:]
        layout = resized_layout(prompt["attention_mask"], spans, new_lengths)
        paddings = {"labels": IGNORED_LABEL, "input_ids": self.config.text_config.pad_token_id or 0}
        prompt = {
            name: None if values is None else take_columns(values, layout, paddings.get(name, 0))
            for name, values in prompt.items()
        }
        if prompt["position_ids"] is not None:
            prompt["position_ids"] = _consecutive_positions(prompt["position_ids"], layout)
        needs_mask = has_mask or bool((layout == PADDING).any())
        prompt["attention_mask"] = torch.cat([cached_mask, prompt["attention_mask"]], dim=1) if needs_mask else None
        return prompt


class AOTLlavaOnevisionForConditionalGeneration(LlavaOnevisionForConditionalGeneration):
    """LLaVA-OneVision that answers from a tenth of the video tokens (AOT, arXiv 2603.01400), without training.

    Used as the parent class is: `from_pretrained` on an AOT or a stock LLaVA-OneVision checkpoint, then `generate`
    with a prompt made by `AOTLlavaOnevisionProcessor` or by the stock processor.

    Changes to the parent class:
    - videos reach the language model compressed, see [`AOTLlavaOnevisionModel`]; with `config.retention_ratio >= 1`
      and full prompts everything is the parent's, bit for bit. AOT adds no parameters.
    - `forward` computes logits and loss over the compressed sequence; labels of removed placeholders are ignored.
    - `generate` encodes the video once, whatever the number of beams, and returns sequences that begin with the
      caller's own prompt, also where the prompt was shortened on the way.
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
        # By default transformers saves the keys' old names, which it converts for this class only where this code is.
        # The new ones need no conversion, so that the stock class loads the checkpoint as well.
        super().save_pretrained(*args, **{"save_original_format": False, **kwargs})

    def adjust_generation_fn(self, *args, **kwargs):
        # `from_pretrained(..., retention_ratio=0.2)` changes the config, not the generation config too.
        super().adjust_generation_fn(*args, **{key: kwargs[key] for key in kwargs if key not in AOT_FIELDS})

    @wraps(LlavaOnevisionForConditionalGeneration.forward)
    @can_return_tuple
    def forward(self, *args, **kwargs):
        kwargs = _as_keywords(LlavaOnevisionForConditionalGeneration.forward, args, kwargs)
        prompt = self.model.embed_prompt(**_select(kwargs, PROMPT_INPUTS))
        if prompt is None:
            return super().forward(**kwargs, return_dict=True)
        cache, written_ids = kwargs.get("past_key_values"), kwargs.get("input_ids")
        begins_conversation = cache is None or cache.get_seq_length() == 0
        outputs = super().forward(**_with_prompt(kwargs, prompt), labels=prompt.labels, return_dict=True)
        outputs.image_hidden_states, outputs.video_hidden_states = prompt.image_features, prompt.video_features
        if prompt.was_resized and begins_conversation and written_ids is not None:
            # `generate` may go on from this cache with the prompt as it was written.
            run_mask = torch.ones_like(prompt.input_ids) if prompt.attention_mask is None else prompt.attention_mask
            CallersPrompt(written_ids, prompt.input_ids, run_mask).attach_to(outputs.past_key_values)
        return outputs

    @torch.no_grad()
    @wraps(LlavaOnevisionForConditionalGeneration.generate)
    def generate(self, *args, **kwargs):
        kwargs = _as_keywords(LlavaOnevisionForConditionalGeneration.generate, args, kwargs)
        earlier_prompt = CallersPrompt.of(kwargs.get("past_key_values"))
        if kwargs.get("pixel_values_videos") is None and earlier_prompt is None:
            return super().generate(**kwargs)
        if kwargs.get("inputs") is not None:
            kwargs["input_ids"] = kwargs.pop("inputs")
        if kwargs.get("input_ids") is None and kwargs.get("inputs_embeds") is None:
            raise ValueError("`input_ids` and `inputs_embeds` are both None: pass one of them beside the video.")
        if kwargs.get("attention_mask") is None:
            kwargs["attention_mask"] = self._mask_of_padding(kwargs)
        written_ids, written_length = kwargs.get("input_ids"), _prompt_length(kwargs)
        if earlier_prompt is not None and written_ids is not None:
            run_ids, run_mask = earlier_prompt.as_run(written_ids, kwargs["attention_mask"])
            kwargs |= {"input_ids": run_ids, "attention_mask": run_mask}

        # The embeddings will serve the prefill, the ids all the rest: the parent does everything from there.
        prompt = self._embed_new_part(kwargs)
        if prompt is not None:
            kwargs = _with_prompt(kwargs, prompt) | {"input_ids": prompt.input_ids}
        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        self._count_lengths_from(kwargs, num_removed=written_length - _prompt_length(kwargs))
        if written_ids is None or torch.equal(written_ids, kwargs["input_ids"]):
            return super().generate(**kwargs)
        run_mask = kwargs.get("attention_mask", torch.ones_like(kwargs["input_ids"]))
        callers_prompt = CallersPrompt(written_ids, kwargs["input_ids"], run_mask)
        output = super().generate(**callers_prompt.show(kwargs))
        if isinstance(output, Tensor):
            callers_prompt.attach_to(kwargs.get("past_key_values"))
            return callers_prompt.as_written(output)
        callers_prompt.attach_to(output.past_key_values)
        output.sequences = callers_prompt.as_written(output.sequences)
        return output

    def prepare_inputs_for_generation(self, input_ids, *args, inputs_embeds=None, is_first_iteration=False, **kwargs):
        # Where the parent prefills other positions than the embedded prompt's, the embeddings must follow the ids.
        if inputs_embeds is not None and is_first_iteration:
            inputs_embeds = self._embeddings_of(input_ids, inputs_embeds, kwargs.get("past_key_values"))
        return super().prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )

    def _embeddings_of(self, input_ids: Tensor, prompt_embeds: Tensor, past_key_values: Cache | None) -> Tensor:
        length, prompt_length = input_ids.shape[1], prompt_embeds.shape[1]
        if length > prompt_length:  # assisted decoding: the first candidates stand behind the prompt
            candidates = self.get_input_embeddings()(input_ids[:, prompt_length:])
            return torch.cat([prompt_embeds, candidates.to(prompt_embeds)], dim=1)
        if 0 < length < prompt_length:  # chunked prefill: a chunk of the prompt
            start = past_key_values.get_seq_length()
            return prompt_embeds[:, start : start + length]
        return prompt_embeds

    def _embed_new_part(self, kwargs: dict[str, Any]) -> EmbeddedPrompt | None:
        # Of a conversation whose beginning is in the cache, the video belongs to the part that is new.
        cache, input_ids, mask = (kwargs.get(name) for name in ("past_key_values", "input_ids", "attention_mask"))
        num_cached = 0 if cache is None or input_ids is None else int(cache.get_seq_length())
        if num_cached == 0:
            return self.model.embed_prompt(**_select(kwargs, PROMPT_INPUTS))
        if mask is None:
            mask = torch.ones_like(input_ids)
        is_whole = mask.shape[1] == input_ids.shape[1]
        new_part = {"input_ids": input_ids[:, num_cached:] if is_whole else input_ids, "attention_mask": mask}
        if kwargs.get("position_ids") is not None and is_whole:
            new_part["position_ids"] = kwargs["position_ids"][:, num_cached:]
        prompt = self.model.embed_prompt(**(_select(kwargs, PROMPT_INPUTS) | new_part))
        if prompt is not None:
            # The parent wants the whole conversation, though it runs the new part alone: a filler does for the rest.
            cached_ids = input_ids[:, :num_cached] if is_whole else input_ids[:, :1].expand(-1, num_cached)
            cached_embeds = prompt.inputs_embeds.new_zeros(len(input_ids), num_cached, prompt.inputs_embeds.shape[-1])
            prompt.input_ids = torch.cat([cached_ids, prompt.input_ids], dim=1)
            prompt.inputs_embeds = torch.cat([cached_embeds, prompt.inputs_embeds], dim=1)
        return prompt

    def _mask_of_padding(self, kwargs: dict[str, Any]) -> Tensor | None:
        # As the parent infers it, which it can no longer do once it is given embeddings.
        input_ids = kwargs.get("input_ids")
        pad_token_id = self._generation_option(kwargs, "pad_token_id")
        eos_token_id = self._generation_option(kwargs, "eos_token_id")
        eos_token_ids = eos_token_id if isinstance(eos_token_id, list) else [eos_token_id]
        if input_ids is None or pad_token_id is None or pad_token_id in eos_token_ids:
            return None
        return (input_ids != pad_token_id).long()

    def _count_lengths_from(self, kwargs: dict[str, Any], num_removed: int) -> None:
        # `max_length` and `min_length` count the caller's prompt, which has more columns than the one that is run.
        for name in ("max_length", "min_length"):
            length = self._generation_option(kwargs, name)
            if length and num_removed:
                kwargs[name] = max(0, length - num_removed)

    def _generation_option(self, kwargs: dict[str, Any], name: str) -> Any:
        sources = (kwargs.get(name), getattr(kwargs.get("generation_config"), name, None))
        given = next((value for value in sources if value is not None), None)
        return getattr(self.generation_config, name, None) if given is None else given


def _scatter(embeds: Tensor, is_placeholder: Tensor, features: Tensor, modality: str) -> Tensor:
    num_placeholders = int(is_placeholder.sum())
    if num_placeholders != len(features):
        raise ValueError(
            f"The prompt has {num_placeholders} {modality} placeholders, but the {modality}s give {len(features)} "
            "tokens. Make prompt and pixels with one call of AOTLlavaOnevisionProcessor."
        )
    mask = is_placeholder.unsqueeze(-1).to(embeds.device)
    return embeds.masked_scatter(mask, features.to(embeds.device, embeds.dtype))


def _concatenated(features: list[Tensor]) -> Tensor:
    return features[0] if len(features) == 1 else torch.cat(features, dim=-1)


def _joined(parts: list[ModelOutput]) -> ModelOutput:
    """One output for all frames from those of some frames each."""
    if len(parts) == 1:
        return parts[0]
    fields = {}
    for name, first in parts[0].items():
        values = [part[name] for part in parts]
        if isinstance(first, tuple):  # one tensor a layer, or none where it was not asked for
            fields[name] = tuple(None if layer[0] is None else torch.cat(layer) for layer in zip(*values))
        else:
            fields[name] = torch.cat(values)
    return type(parts[0])(**fields)


def _prompt_length(kwargs: dict[str, Any]) -> int:
    embeds = kwargs.get("inputs_embeds")
    return (kwargs["input_ids"] if embeds is None else embeds).shape[1]


def _consecutive_positions(positions: Tensor, layout: Tensor) -> Tensor:
    # Removed placeholders leave no gap: a row counts on from where it began.
    is_used = layout != PADDING
    counted = is_used.cumsum(-1) - 1
    starts = positions.gather(1, is_used.int().argmax(-1, keepdim=True).to(positions.device))
    return (starts + counted.to(positions)).clamp(min=0)


def _with_prompt(kwargs: dict[str, Any], prompt: EmbeddedPrompt) -> dict[str, Any]:
    # The arguments without all that went into the embeddings.
    rest = {name: value for name, value in kwargs.items() if name not in PROMPT_INPUTS}
    return rest | {
        "inputs_embeds": prompt.inputs_embeds,
        "attention_mask": prompt.attention_mask,
        "position_ids": prompt.position_ids,
    }


def _as_keywords(function: Callable, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    names = list(inspect.signature(function).parameters)[1:]
    return {**dict(zip(names, args)), **kwargs} if args else dict(kwargs)


def _select(kwargs: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: kwargs[name] for name in names if name in kwargs}


# transformers converts the keys of older LLaVA-OneVision checkpoints for its own classes only, unless asked. What is
# asked for the model type also serves the stock class on a checkpoint that was saved here.
for custom_name, stock_name in (
    (AOTLlavaOnevisionConfig.model_type, LlavaOnevisionForConditionalGeneration.config_class.model_type),
    (AOTLlavaOnevisionModel.__name__, LlavaOnevisionModel.__name__),
):
    register_checkpoint_conversion_mapping(custom_name, get_checkpoint_conversion_mapping(stock_name), overwrite=True)

AOTLlavaOnevisionModel.register_for_auto_class("AutoModel")
AOTLlavaOnevisionForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["AOTLlavaOnevisionForConditionalGeneration", "AOTLlavaOnevisionModel"]
