"""Runs in each call with Qwen-VL videos: encoded, unless they are, the prompt fitted to them, and positions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils import logging

from .mrope_positions import positions_of_kept
from .placeholder_spans import PlaceholderSpan
from .prompt import IGNORED_LABEL, Prompt
from .qwen_vl_call_videos import QwenVLCallVideos
from .qwen_vl_encoding import encode_video, encode_whole_video
from .qwen_vl_kept_video import KeptVideo
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
def fit_videos(model, written: Prompt, videos: QwenVLCallVideos, **grids) -> FittedVideos:
    """Encodes the videos of a prompt, and makes its placeholders as many as there are tokens then.

    Each video keeps as many tokens as it has placeholders. A video with all of them keeps all if the call of the
    processor asked for that, and is cut down to `config.retention_ratio` if the stock processor wrote it. Videos that
    were encoded before are taken as they are.

    Args:
        model: an AOT model of the Qwen-VL family, without the language-model head.
        written: the prompt; its `position_ids` are the caller's.
        videos: of the call, at least one.
        grids: `image_grid_thw` and whatever else the stock model's positions depend on.

    Raises:
        ValueError: if prompt and videos do not fit together, or an encoded video is of another model.
    """
    config = model.config
    config.validate_aot()
    rows = videos.checked_grids(config)
    _check_prompt(written)
    videos.check_made_by(model)
    encoded = videos.encoded(model, rows)
    spans = find_spans(written.input_ids, config, rows, model.has_span_a_frame)
    _check_have_their_placeholders(model, encoded, spans)
    counts = _tokens_to_keep(encoded, spans, rows, config, videos.kept_video_tokens is not None)
    totals = [grid[0] * config.grid_of(grid).num_pooled for grid in rows]
    if not any(encoded) and counts == totals and _lengths(spans) == totals:
        return FittedVideos(written, model.whole_video_features(videos.pixel_values_videos, videos.video_grid_thw))
    kept_videos = [
        kept or _encode(model, pixels, grid, count)
        for kept, pixels, grid, count in zip(encoded, videos.pixels(rows), rows, counts)
    ]
    flat = [span for of_video in spans for span in of_video]
    prompt, whole = fit_prompt(
        written,
        flat,
        [of_span.flatten() for video in kept_videos for of_span in _by_span(model, video)],
        config.video_token_id,
        config.text_config.pad_token_id or 0,
    )
    if prompt is not written:
        _check_can_be_fitted(written, flat)
    elif written.position_ids is not None:
        return FittedVideos(prompt, as_output(model, kept_videos), written.position_ids)
    positions, deltas = positions_of_kept(
        whole, prompt.attention_mask, model.get_rope_index, config, video_grid_thw=videos.video_grid_thw, **grids
    )
    return FittedVideos(prompt, as_output(model, kept_videos), positions, deltas)


def _encode(model, pixels: Tensor, grid: tuple[int, int, int], count: int) -> KeptVideo:
    is_whole = count == grid[0] * model.config.grid_of(grid).num_pooled
    return encode_whole_video(model, pixels, grid) if is_whole else encode_video(model, pixels, grid, count)


def _by_span(model, video: KeptVideo) -> Sequence[Tensor]:
    """Which places are kept, of each run of placeholders that the video has."""
    return video.is_kept if model.has_span_a_frame else [video.is_kept]


def as_output(model, videos: Sequence[KeptVideo]):
    """The videos as the stock model's `get_video_features` returns them."""
    fields = {"pooler_output": [video.tokens for video in videos]}
    if videos[0].deepstack:
        fields["deepstack_features"] = [list(layer) for layer in zip(*(video.deepstack for video in videos))]
    return model.features_class(**fields)


def encode_by_ratio(model, pixel_values_videos: Tensor, video_grid_thw: Tensor | None) -> list[KeptVideo]:
    """The videos by themselves, as `config.retention_ratio` asks for them."""
    model.config.validate_aot()
    videos = QwenVLCallVideos(pixel_values_videos, video_grid_thw)
    rows = videos.checked_grids(model.config)
    return [encode_video(model, pixels, grid, None) for pixels, grid in zip(videos.pixels(rows), rows)]


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


def _check_have_their_placeholders(
    model, encoded: Sequence[KeptVideo | None], spans: Sequence[list[PlaceholderSpan]]
) -> None:
    """Raises `ValueError` where the placeholders of an encoded video are not as many as its tokens, run by run."""
    for number, (video, of_video) in enumerate(zip(encoded, spans)):
        if video is None:
            continue
        lengths = [int(of_span.sum()) for of_span in _by_span(model, video)]
        if [span.length for span in of_video] != lengths:
            raise ValueError(
                f"The prompt has {sum(span.length for span in of_video)} placeholders for video {number}, which is "
                f"encoded in {sum(lengths)} tokens, or not as many in each frame: make prompt and video with one call "
                "of the processor."
            )


def _tokens_to_keep(
    encoded: Sequence[KeptVideo | None],
    spans: list[list[PlaceholderSpan]],
    rows: Sequence[tuple[int, int, int]],
    config,
    is_asked_for: bool,
) -> list[int]:
    """B of each video."""
    return [
        count_kept(length, number, grid, config, is_asked_for) if video is None else len(video.tokens)
        for number, (video, length, grid) in enumerate(zip(encoded, _lengths(spans), rows))
    ]


def count_kept(length: int, number: int, grid: tuple[int, int, int], config, is_asked_for: bool) -> int:
    """B of a video that comes as pixels.

    Args:
        length: placeholders that the prompt has for it.
        number: of the video in the call.
        grid: its row of `video_grid_thw`.
        config: an AOT config of the family.
        is_asked_for: whether the full count asks for all tokens; else it is the stock processor's.

    Raises:
        ValueError: if its frames cannot give as many.
    """
    tokens_of_frame = config.grid_of(grid).num_pooled
    total = grid[0] * tokens_of_frame
    if not 1 <= length <= total:
        raise ValueError(
            f"The prompt has {length} placeholders for video {number}, but its {grid[0]} frames give from 1 to "
            f"{total}: make prompt and pixels with one call of the processor."
        )
    configured = count_video_tokens(grid[0], config.retention_ratio, tokens_of_frame, config.num_clips)
    count = configured if length == total and not is_asked_for else length
    if count != configured and not is_asked_for:
        logger.warning_once(
            f"A video of {grid[0]} frames keeps {count:,} tokens, for so many placeholders the processor wrote; the "
            f"model's `retention_ratio`, {config.retention_ratio:g}, gives {configured:,}, but counts for prompts of "
            "the stock processor alone: give the ratio to the processor, too."
        )
    return count


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
