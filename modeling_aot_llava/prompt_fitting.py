"""Encodes a prompt's videos, and makes the prompt's placeholders as many as there are tokens then."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from .prompt_layout import Prompt, find_placeholder_spans, tokens_to_keep

logger = logging.get_logger(__name__)


@torch.compiler.disable
def encode_videos(
    model,
    prompt: Prompt,
    pixel_values_videos: Tensor,
    vision_feature_layer: int | list[int] | None = None,
    vision_feature_select_strategy: str | None = None,
) -> tuple[Prompt, BaseModelOutputWithPooling]:
    """Encodes the videos, and fits the prompt where it has not as many placeholders as there are tokens then.

    Each video keeps as many tokens as it has placeholders, less those for newlines. A video with the full,
    uncompressed count is cut down to `config.retention_ratio`.

    Args:
        model: an `AOTLlavaOnevisionModel`.
        prompt: the part of the prompt that is not in a cache yet.
        pixel_values_videos, vision_feature_layer, vision_feature_select_strategy: as in `get_video_features`.

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
    # The parent's way to tell placeholders apart: by their ids or, where only embeddings came, by theirs.
    embeds = prompt.input_ids.unsqueeze(-1) if prompt.inputs_embeds is None else prompt.inputs_embeds
    _, is_video = model.get_placeholder_mask(prompt.input_ids, inputs_embeds=embeds)
    spans = find_placeholder_spans(is_video.squeeze(-1), len(pixel_values_videos))
    num_frames = pixel_values_videos.shape[1]
    counts = tokens_to_keep(spans, num_frames, model.config)
    of_layers = (vision_feature_layer, vision_feature_select_strategy)
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


def keeps_all_tokens(kept_video_tokens: list[int | None] | None, num_frames: int, config) -> bool:
    """Whether AOT has nothing to do: all tokens are asked for, by the counts or by the config's ratio (None)."""
    full_count = num_frames * config.pooled_grid_size**2
    kept_of_ratio = full_count if config.retention_ratio >= 1 else None
    counts = [kept_of_ratio if count is None else count for count in kept_video_tokens or [None]]
    return all(count == full_count for count in counts)


def as_one_tensor(mm_encoder_outputs: dict[str, Any] | None) -> dict[str, Any] | None:
    """Videos of different counts in one tensor, as the parent's `forward` wants them; its `generate` wants a list."""
    video = (mm_encoder_outputs or {}).get("video")
    if video is None or isinstance(video.pooler_output, Tensor):
        return mm_encoder_outputs
    return {**mm_encoder_outputs, "video": replace(video, pooler_output=torch.cat(video.pooler_output)[None])}
