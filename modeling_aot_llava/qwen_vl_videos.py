"""Runs in each call with Qwen-VL videos: encoded, the prompt fitted to them, and the positions of what is left."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils import logging

from .mrope_positions import positions_of_kept
from .placeholder_spans import PlaceholderSpan
from .prompt import IGNORED_LABEL, Prompt
from .qwen_vl_encoding import KeptVideo, encode_video, encode_whole_video
from .qwen_vl_prompt import find_spans, fit_prompt
from .token_budget import count_video_tokens

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class FittedVideos:
    """A call's videos and the prompt that belongs to them.

    Attributes:
        prompt: the written one, or a fitted one.
        video: an output of the vision tower, for `mm_encoder_outputs`: a list of (tokens, D), one a video.
        position_ids: (3, rows, columns), and rope_deltas (rows, 1); None where the stock model's rule holds.
    """

    prompt: Prompt
    video: object
    position_ids: Tensor | None = None
    rope_deltas: Tensor | None = None


@torch.compiler.disable
def fit_videos(
    model,
    written: Prompt,
    pixel_values_videos: Tensor,
    video_grid_thw: Tensor | None,
    kept_video_tokens: Tensor | Sequence[int] | None,
    **grids,
) -> FittedVideos:
    """Encodes the videos of a prompt, and makes its placeholders as many as there are tokens then.

    Each video keeps as many tokens as it has placeholders. A video with all of them keeps all if the call of the
    processor asked for that, and is cut down to `config.retention_ratio` if the stock processor wrote it.

    Args:
        model: an AOT model of the Qwen-VL family, without the language-model head.
        written: the prompt; its `position_ids` are the caller's.
        pixel_values_videos: (patches, values of a patch), all videos one after the other.
        video_grid_thw: (videos, 3).
        kept_video_tokens: by which the processor says that the count was asked for.
        grids: `image_grid_thw` and whatever else the stock model's positions depend on.

    Raises:
        ValueError: if prompt and pixels do not fit together.
    """
    config = model.config
    config.validate_aot()
    rows = _checked_grids(pixel_values_videos, video_grid_thw, config)
    _check_prompt(written)
    spans = find_spans(written.input_ids, config, rows, model.has_span_a_frame)
    counts = _tokens_to_keep(spans, rows, config, kept_video_tokens)
    totals = [grid[0] * config.grid_of(grid).num_pooled for grid in rows]
    if counts == totals and _lengths(spans) == totals:
        return FittedVideos(written, model.whole_video_features(pixel_values_videos, video_grid_thw))
    pixels = pixel_values_videos.split([frames * height * width for frames, height, width in rows])
    videos = [
        encode_whole_video(model, of_video, grid) if count == total else encode_video(model, of_video, grid, count)
        for of_video, grid, count, total in zip(pixels, rows, counts, totals)
    ]
    flat = [span for of_video in spans for span in of_video]
    kept = [of_span for video in videos for of_span in (video.is_kept if model.has_span_a_frame else [video.is_kept])]
    prompt, whole = fit_prompt(
        written,
        flat,
        [of_span.flatten() for of_span in kept],
        config.video_token_id,
        config.text_config.pad_token_id or 0,
    )
    if prompt is not written:
        _check_can_be_fitted(written, flat)
    elif written.position_ids is not None:
        return FittedVideos(prompt, as_output(model, videos), written.position_ids)
    positions, deltas = positions_of_kept(
        whole, prompt.attention_mask, model.get_rope_index, config, video_grid_thw=video_grid_thw, **grids
    )
    return FittedVideos(prompt, as_output(model, videos), positions, deltas)


def as_output(model, videos: Sequence[KeptVideo]):
    """The videos as the stock model's `get_video_features` returns them."""
    fields = {"pooler_output": [video.tokens for video in videos]}
    if videos[0].deepstack:
        fields["deepstack_features"] = [list(layer) for layer in zip(*(video.deepstack for video in videos))]
    return model.features_class(**fields)


def encode_by_ratio(model, pixel_values_videos: Tensor, video_grid_thw: Tensor | None) -> list[KeptVideo]:
    """The videos by themselves, as `config.retention_ratio` asks for them."""
    model.config.validate_aot()
    rows = _checked_grids(pixel_values_videos, video_grid_thw, model.config)
    pixels = pixel_values_videos.split([frames * height * width for frames, height, width in rows])
    return [encode_video(model, of_video, grid, None) for of_video, grid in zip(pixels, rows)]


def check_no_video_is_missing(input_ids: Tensor | None, config) -> None:
    """Raises `ValueError` if a prompt has placeholders for videos that did not come with it."""
    if input_ids is None or torch.compiler.is_compiling():
        return
    num_placeholders = int((input_ids == config.video_token_id).sum())
    if num_placeholders:
        raise ValueError(
            f"The prompt has {num_placeholders} video placeholders, but `pixel_values_videos` is None, so the model "
            "would answer blindly. Pass all that the processor returned; a data collator must keep it, too."
        )


def _checked_grids(pixels: Tensor, video_grid_thw: Tensor | None, config) -> list[tuple[int, int, int]]:
    if video_grid_thw is None:
        raise ValueError(
            "`video_grid_thw` is None beside `pixel_values_videos`: pass all that the processor returned."
        )
    rows = [tuple(row) for row in video_grid_thw.tolist()]
    num_patches = sum(frames * height * width for frames, height, width in rows)
    if pixels.ndim != 2 or len(pixels) != num_patches:
        raise ValueError(
            f"`pixel_values_videos` has the shape {tuple(pixels.shape)}, but `video_grid_thw` tells of {num_patches} "
            "patches: pass both as the processor gives them."
        )
    return rows


def _check_prompt(written: Prompt) -> None:
    if written.input_ids is None:
        raise ValueError(
            "`input_ids` is None beside a video, but the positions of its tokens follow from them: pass the ids that "
            "the processor returned."
        )
    mask = written.attention_mask
    if mask is not None and (not isinstance(mask, Tensor) or mask.shape != written.input_ids.shape):
        shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(
            f"`attention_mask` is {shape}, but beside a video it must be {tuple(written.input_ids.shape)}, as "
            "`input_ids` is: pass the one that the processor returned."
        )


def _tokens_to_keep(
    spans: list[list[PlaceholderSpan]], rows: Sequence[tuple[int, int, int]], config, asked_for
) -> list[int]:
    """B of each video."""
    if asked_for is not None and len(asked_for) != len(rows):
        raise ValueError(
            f"`kept_video_tokens` has {len(asked_for)} counts, but there are {len(rows)} videos: pass it as the "
            "processor gives it."
        )
    counts = []
    for video, (length, grid) in enumerate(zip(_lengths(spans), rows)):
        tokens_of_frame = config.grid_of(grid).num_pooled
        total = grid[0] * tokens_of_frame
        if not 1 <= length <= total:
            raise ValueError(
                f"The prompt has {length} placeholders for video {video}, but its {grid[0]} frames give from 1 to "
                f"{total}: make prompt and pixels with one call of the processor."
            )
        configured = count_video_tokens(grid[0], config.retention_ratio, tokens_of_frame, config.num_clips)
        is_stock_prompt = length == total and asked_for is None
        counts.append(configured if is_stock_prompt else length)
        if counts[-1] != configured and asked_for is None:
            logger.warning_once(
                f"A video of {grid[0]} frames keeps {counts[-1]:,} tokens, for so many placeholders the processor "
                f"wrote; the model's `retention_ratio`, {config.retention_ratio:g}, gives {configured:,}, but counts "
                "for prompts of the stock processor alone: give the ratio to the processor, too."
            )
    return counts


def _lengths(spans: list[list[PlaceholderSpan]]) -> list[int]:
    return [sum(span.length for span in of_video) for of_video in spans]


def _check_can_be_fitted(written: Prompt, spans: Sequence[PlaceholderSpan]) -> None:
    """Raises `ValueError` where something describes the columns that cannot follow when their number changes."""
    for name in ("position_ids", "shift_labels"):
        if getattr(written, name) is not None:
            raise ValueError(
                f"`{name}` is given, but the prompt's video placeholders are not as many as the tokens that its "
                "frames keep, so its columns change: leave it out."
            )
    labels = written.labels
    if labels is not None and any(
        bool((labels[span.row, span.start : span.start + span.length] != IGNORED_LABEL).any()) for span in spans
    ):
        logger.warning_once(
            "Labels of video placeholders are not counted in the loss, since the prompt has not as many as there are "
            f"tokens: label them with {IGNORED_LABEL}."
        )
