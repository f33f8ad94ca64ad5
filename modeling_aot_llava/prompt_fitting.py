"""Encodes a prompt's videos, and makes the prompt's placeholders as many as there are tokens then."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from .kept_video_tokens import keeps_all_tokens, tokens_to_keep, warn_of_other_ratio
from .offloading import own_parameters_loaded
from .placeholder_spans import find_placeholder_spans
from .prompt import Prompt

logger = logging.get_logger(__name__)


@torch.compiler.disable
def encode_videos(
    model,
    prompt: Prompt,
    pixel_values_videos: Tensor,
    image_sizes_videos: Tensor | None = None,
    vision_feature_layer: int | list[int] | None = None,
    vision_feature_select_strategy: str | None = None,
) -> tuple[Prompt, BaseModelOutputWithPooling]:
    """Encodes the videos, and fits the prompt where it has not as many placeholders as there are tokens then.

    Each video keeps as many tokens as it has placeholders, less those for newlines. A video with the full,
    uncompressed count keeps all of them if the call of the processor asked for that, and is cut down to
    `config.retention_ratio` if the stock processor wrote it.

    Args:
        model: an `AOTLlavaOnevisionModel`.
        prompt: the part of the prompt that is not in a cache yet. While the model is exported, whose program cannot
            depend on what the prompt says, it must have the count of `config.retention_ratio`.
        pixel_values_videos, vision_feature_layer, vision_feature_select_strategy: as in `get_video_features`.
        image_sizes_videos: by which `AOTLlavaOnevisionProcessor` says that the count is the one that was asked for.

    Returns:
        The prompt itself where its placeholders are right, else a fitted one; and the encoded videos.

    Raises:
        ValueError: if the pixels have another form, or placeholders and videos do not fit together.
    """
    model.config.validate_aot()
    if pixel_values_videos.ndim != 5:
        raise ValueError(
            f"`pixel_values_videos` has the shape {tuple(pixel_values_videos.shape)}, but it must be (videos, frames, "
            "channels, height, width): pass it as the processor gives it."
        )
    if prompt.input_ids is None and prompt.inputs_embeds is None:
        raise ValueError("`input_ids` and `inputs_embeds` are both None: pass one of them beside the video.")
    of_layers = (vision_feature_layer, vision_feature_select_strategy)
    if torch.compiler.is_compiling():
        return prompt, model.get_video_features(pixel_values_videos, *of_layers, return_dict=True)
    spans = find_placeholder_spans(_is_placeholder(model, prompt), len(pixel_values_videos))
    num_frames, is_asked_for = pixel_values_videos.shape[1], image_sizes_videos is not None
    counts = tokens_to_keep(spans, num_frames, model.config, is_asked_for)
    if not is_asked_for:
        warn_of_other_ratio(counts, num_frames, model.config)
    with own_parameters_loaded(model):
        if keeps_all_tokens(counts, num_frames, model.config):
            video = model.get_video_features(pixel_values_videos, *of_layers, counts, return_dict=True)
        else:  # without the vision tower's own states, which would stay in memory as long as the answer is written
            compressed = model.compress_videos(pixel_values_videos, *of_layers, counts)
            video = BaseModelOutputWithPooling(pooler_output=model.with_newlines(compressed))
    lengths = [len(tokens) for tokens in video.pooler_output]
    if lengths == [span.length for span in spans]:
        return prompt, video
    if prompt.has_labels_of(spans):
        logger.warning_once(
            "The prompt has more video placeholders than tokens are kept, and labels of placeholders are not "
            "ignored: removed ones do not count in the loss, and there are fewer logits than labels. Make prompts "
            "with AOTLlavaOnevisionProcessor, and label video placeholders with -100."
        )
    return prompt.with_lengths(spans, lengths, model.config.text_config.pad_token_id or 0), video


@torch.compiler.disable
def encode_images(
    model,
    pixel_values: Tensor,
    image_sizes: Tensor | None,
    vision_feature_layer: int | list[int] | None,
    vision_feature_select_strategy: str | None,
    vision_aspect_ratio: str | None,
    batch_num_images: Tensor | None,
) -> BaseModelOutputWithPooling:
    """The parent's image features, beside a video; arguments as in its `get_image_features`."""
    with own_parameters_loaded(model):
        return model.get_image_features(
            pixel_values,
            image_sizes,
            vision_feature_layer=vision_feature_layer,
            vision_feature_select_strategy=vision_feature_select_strategy,
            vision_aspect_ratio=vision_aspect_ratio,
            batch_num_images=batch_num_images,
            return_dict=True,
        )


def check_no_video_is_missing(model, prompt: Prompt) -> None:
    """Raises `ValueError` if a prompt has placeholders for videos that did not come with it.

    Where embeddings came, the video may be in them: then those are looked at, and not the ids beside them.
    """
    if torch.compiler.is_compiling() or (prompt.input_ids is None and prompt.inputs_embeds is None):
        return  # to look would break the graph
    by_what_is_run = prompt if prompt.inputs_embeds is None else replace(prompt, input_ids=None)
    num_placeholders = int(_is_placeholder(model, by_what_is_run).sum())
    if num_placeholders:
        raise ValueError(
            f"The prompt has {num_placeholders} video placeholders, but `pixel_values_videos` is None, so the model "
            "would answer blindly. Pass all that the processor returned; a data collator must keep it, too."
        )


def _is_placeholder(model, prompt: Prompt) -> Tensor:
    # The parent's way to tell placeholders apart: by their ids or, where only embeddings came, by theirs.
    embeds = prompt.input_ids.unsqueeze(-1) if prompt.inputs_embeds is None else prompt.inputs_embeds
    return model.get_placeholder_mask(prompt.input_ids, inputs_embeds=embeds)[1].squeeze(-1)


def as_one_tensor(mm_encoder_outputs: dict[str, Any] | None) -> dict[str, Any] | None:
    """Videos of different counts in one tensor, as the parent's `forward` wants them; its `generate` wants a list."""
    video = (mm_encoder_outputs or {}).get("video")
    if video is None or isinstance(video.pooler_output, Tensor):
        return mm_encoder_outputs
    return {**mm_encoder_outputs, "video": replace(video, pooler_output=torch.cat(video.pooler_output)[None])}
