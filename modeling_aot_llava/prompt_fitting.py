"""Runs in each call with videos: encodes them, and makes the placeholders as many as there are tokens then."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import logging

from .back_to_back_videos import counts_of_total
from .call_videos import CallVideos
from .compiled_tower import VisionPart
from .kept_video_tokens import keeps_all_tokens, tokens_to_keep, warn_of_other_ratio
from .offloading import own_parameters_loaded
from .placeholder_spans import PlaceholderSpan, find_placeholder_spans
from .prompt import Prompt
from .traced_tower import encode_whole, run_tower

logger = logging.get_logger(__name__)


def encode_videos(
    model,
    prompt: Prompt,
    videos: CallVideos,
    vision_feature_layer: int | list[int] | None = None,
    vision_feature_select_strategy: str | None = None,
) -> tuple[Prompt, BaseModelOutputWithPooling]:
    """Encodes the videos, and fits the prompt where it has not as many placeholders as there are tokens then.

    Each video keeps as many tokens as it has placeholders, less those for newlines. A video with the full,
    uncompressed count keeps all of them if the call of the processor asked for that, and is cut down to
    `config.retention_ratio` if the stock processor wrote it. Videos that were encoded before are taken as they are.

    Where the caller is compiled, so is the vision tower, in a graph of its own.

    Args:
        model: an `AOTLlavaOnevisionModel`.
        prompt: the part of the prompt that is not in a cache yet. While the model is exported, whose program cannot
            depend on what the prompt says, it must have the count of `config.retention_ratio`.
        videos: of the call, at least one.
        vision_feature_layer, vision_feature_select_strategy: as in `get_video_features`.

    Returns:
        The prompt itself where its placeholders are right, else a fitted one; and the encoded videos.

    Raises:
        ValueError: if the pixels have another form, placeholders and videos do not fit together, or an encoded video
            is of another model.
    """
    of_layers = (vision_feature_layer, vision_feature_select_strategy)
    is_traced = torch.compiler.is_dynamo_compiling()
    if torch.compiler.is_compiling() and not is_traced:
        return prompt, _encode_exported(model, videos, *of_layers)
    return _encode_videos(model, prompt, videos, is_traced, *of_layers)


@torch.compiler.disable(recursive=False)
def _encode_videos(
    model, prompt: Prompt, videos: CallVideos, is_traced: bool, *of_layers: Any
) -> tuple[Prompt, BaseModelOutputWithPooling]:
    spans, counts = _plan_videos(model, prompt, videos)
    is_asked_for = videos.image_sizes_videos is not None
    with own_parameters_loaded(model):
        video = encode_pixels(model, videos, counts, is_asked_for, *of_layers, is_traced=is_traced)
    return _fit(model, prompt, videos, spans, video)


def _encode_exported(model, videos: CallVideos, *of_layers: Any) -> BaseModelOutputWithPooling:
    model.config.validate_aot()
    videos.check()
    if not videos.are_plain:
        raise ValueError("A model is exported with pixels of equally long videos alone: leave the others out.")
    return model.get_video_features(videos.pixel_values_videos, *of_layers, return_dict=True)


@torch.compiler.disable
def _plan_videos(model, prompt: Prompt, videos: CallVideos) -> tuple[list[PlaceholderSpan], list[int | None]]:
    """The placeholders of each video, and B of each that comes as pixels."""
    model.config.validate_aot()
    videos.check()
    if prompt.input_ids is None and prompt.inputs_embeds is None:
        raise ValueError("`input_ids` and `inputs_embeds` are both None: pass one of them beside the video.")
    videos.check_made_by(model)
    spans = spans_of_videos(model, prompt, videos)
    of_pixels = [span for span, tokens in zip(spans, videos.encoded) if tokens is None]
    is_asked_for = videos.image_sizes_videos is not None
    return spans, tokens_to_keep(of_pixels, videos.num_frames, model.config, is_asked_for)


@torch.compiler.disable
def _fit(
    model, prompt: Prompt, videos: CallVideos, spans: Sequence[PlaceholderSpan], video: BaseModelOutputWithPooling
) -> tuple[Prompt, BaseModelOutputWithPooling]:
    device = prompt.input_ids.device if prompt.inputs_embeds is None else prompt.inputs_embeds.device
    video = _with_encoded(video, videos.encoded, device)
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


def spans_of_videos(model, prompt: Prompt, videos: CallVideos) -> list[PlaceholderSpan]:
    """The placeholders of each video of the call; those of an encoded one must be as many as its tokens."""
    is_placeholder, encoded = _is_placeholder(model, prompt), videos.encoded
    num_frames = iter(videos.num_frames)
    frames = [next(num_frames) if tokens is None else None for tokens in encoded]
    lengths = [len(tokens) for tokens in encoded if tokens is not None]
    if not lengths and len(set(frames)) == 1:
        return find_placeholder_spans(is_placeholder, len(frames))
    implied = partial(counts_of_total, num_frames=frames, encoded_lengths=lengths, config=model.config)
    spans = find_placeholder_spans(is_placeholder, len(frames), implied)
    for video, (span, tokens) in enumerate(zip(spans, encoded)):
        if tokens is not None and len(tokens) != span.length:
            raise ValueError(
                f"The prompt has {span.length} placeholders for video {video}, which is encoded in {len(tokens)} "
                "tokens: make prompt and video with one call of AOTLlavaOnevisionProcessor."
            )
    return spans


@torch.compiler.disable(recursive=False)
def encode_pixels(
    model,
    videos: CallVideos,
    counts: Sequence[int | None],
    is_asked_for: bool,
    vision_feature_layer: int | list[int] | None = None,
    vision_feature_select_strategy: str | None = None,
    is_traced: bool = False,
) -> BaseModelOutputWithPooling:
    """The videos that come as pixels, those of one length together; no frame that pads a video is looked at.

    The tokens are a tensor, as the stock model's, where the call is as plain as its calls are, else a list.
    """
    of_layers = (vision_feature_layer, vision_feature_select_strategy)
    features: dict[int, Tensor] = {}
    for frames, members in _equally_long(videos).items():
        pixels = videos.pixel_values_videos
        if len(members) < len(pixels) or frames < pixels.shape[1]:
            pixels = pixels[members, :frames]
        kept = [counts[video] for video in members]
        if _keeps_all_tokens(kept, frames, is_asked_for, model.config):
            outputs = encode_whole(model, pixels, *of_layers)
        else:
            vision_parts = run_tower(model, pixels, vision_feature_layer) if is_traced else None
            outputs = _compressed(model, pixels, kept, vision_parts, *of_layers)
        if videos.are_plain:
            return outputs
        features.update(zip(members, outputs.pooler_output))
    return BaseModelOutputWithPooling(pooler_output=[features[video] for video in range(len(features))])


@torch.compiler.disable
def _equally_long(videos: CallVideos) -> dict[int, list[int]]:
    """For each number of frames, which videos that come as pixels have it."""
    members: dict[int, list[int]] = {}
    for video, frames in enumerate(videos.num_frames):
        members.setdefault(frames, []).append(video)
    return members


@torch.compiler.disable
def _keeps_all_tokens(counts: Sequence[int | None], num_frames: int, is_asked_for: bool, config) -> bool:
    if not is_asked_for:
        warn_of_other_ratio(counts, num_frames, config)
    return keeps_all_tokens(counts, num_frames, config)


@torch.compiler.disable
def _compressed(
    model, pixels: Tensor, counts: Sequence[int | None], vision_parts: Iterator[VisionPart] | None, *of_layers: Any
) -> BaseModelOutputWithPooling:
    """Without the vision tower's own states, which would stay in memory as long as the answer is written."""
    videos = model.compress_videos(pixels, *of_layers, counts, vision_parts=vision_parts)
    return BaseModelOutputWithPooling(pooler_output=model.with_newlines(videos))


def _with_encoded(
    video: BaseModelOutputWithPooling, encoded: Sequence[Tensor | None], device: torch.device
) -> BaseModelOutputWithPooling:
    if all(tokens is None for tokens in encoded):
        return video
    of_pixels = iter(video.pooler_output)
    features = [next(of_pixels) if tokens is None else tokens.to(device) for tokens in encoded]
    return BaseModelOutputWithPooling(pooler_output=features)


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
    """Videos of different counts in one tensor, as the parent's `forward` wants them; its `generate` wants a list.

    It is (tokens, 1, D), for DataParallel joins what the rows of a batch gave on several devices along the first axis.
    """
    video = (mm_encoder_outputs or {}).get("video")
    if video is None or isinstance(video.pooler_output, Tensor):
        return mm_encoder_outputs
    return {**mm_encoder_outputs, "video": replace(video, pooler_output=torch.cat(video.pooler_output)[:, None])}
