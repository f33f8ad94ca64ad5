"""Runs in each call with videos: how many tokens they keep, and what is said where call and config disagree."""

from collections.abc import Sequence

from transformers.utils import logging

from .placeholder_spans import PlaceholderSpan
from .plain_numbers import is_integer
from .token_budget import anchors_of_ratio, count_video_tokens, has_deliberate_anchors

logger = logging.get_logger(__name__)

Counts = Sequence[int | None]


def tokens_to_keep(
    spans: Sequence[PlaceholderSpan], num_frames: Sequence[int], config, is_asked_for: bool
) -> list[int | None]:
    """B of each video as the prompt has it, newline tokens not counted; None where the config's ratio decides.

    Args:
        spans: the placeholders of each video.
        num_frames: F of each video.
        config: an `AOTLlavaOnevisionConfig`.
        is_asked_for: whether the full count asks for all tokens; else it is the stock processor's.

    Raises:
        ValueError: if a video has too few placeholders for its newline tokens, or more than its frames can fill.
    """
    kept: list[int | None] = []
    for video, (span, frames) in enumerate(zip(spans, num_frames)):
        num_newlines = config.count_newlines(frames, is_compressed=True)
        all_tokens = frames * config.pooled_grid_size**2
        full_count = all_tokens + config.count_newlines(frames, is_compressed=False)
        if not num_newlines < span.length <= full_count:
            raise ValueError(
                f"The prompt has {span.length} placeholders for video {video}, but its {frames} frames give from "
                f"{num_newlines + 1} to {full_count} (newline tokens included). Make prompt and pixels with one call "
                "of AOTLlavaOnevisionProcessor."
            )
        if span.length == full_count:
            kept.append(all_tokens if is_asked_for else None)
        else:
            kept.append(span.length - num_newlines)
    return kept


def check_one_count_a_video(kept_video_tokens: Counts | None, num_videos: int) -> None:
    """Raises `ValueError` unless there is one count a video, or none at all."""
    if kept_video_tokens is None:
        return
    if len(kept_video_tokens) != num_videos:
        raise ValueError(
            f"`kept_video_tokens` has {len(kept_video_tokens)} counts, but there are {num_videos} videos: give one a "
            "video, or None where the config's `retention_ratio` decides."
        )
    for count in kept_video_tokens:
        if count is not None and not is_integer(count):
            raise ValueError(f"`kept_video_tokens` has the count {count!r}, but it must be an integer, or None.")


def keeps_all_tokens(kept_video_tokens: Counts | None, num_frames: int, config) -> bool:
    """Whether AOT has nothing to do: all tokens are asked for, by the counts or by the config's ratio (None)."""
    full_count = num_frames * config.pooled_grid_size**2
    of_ratio = configured_count(num_frames, config)
    return all(count == full_count for count in (of_ratio if c is None else c for c in kept_video_tokens or [None]))


def warn_of_other_ratio(kept_video_tokens: Counts, num_frames: int, config) -> None:
    """Says once that the processor's ratio decides, where the config's is another."""
    configured = configured_count(num_frames, config)
    for count in kept_video_tokens:
        if count is not None and count != configured:
            logger.warning_once(
                f"A video of {num_frames} frames keeps {count:,} tokens, for the processor's `retention_ratio` is "
                f"{ratio_of(count, num_frames, config):g}; the model's is {config.retention_ratio:g}, {configured:,} "
                "tokens, which counts for prompts of the stock processor alone. Give the ratio to the processor: "
                f"AOTLlavaOnevisionProcessor.from_pretrained(..., retention_ratio={config.retention_ratio:g}), or "
                f"processor(..., retention_ratio={config.retention_ratio:g}) for one call."
            )


def warn_of_other_anchors(kept_video_tokens: Counts | None, num_frames: int, config) -> None:
    """Says once that `num_anchors` was chosen for another ratio than the call asks for."""
    if not has_deliberate_anchors(config, config.frame_grid):
        return
    configured = configured_count(num_frames, config)
    for count in kept_video_tokens or ():
        if count is not None and count != configured:
            ratio = ratio_of(count, num_frames, config)
            logger.warning_once(
                f"The config's `num_anchors` is {config.num_anchors}, beside a `retention_ratio` of "
                f"{config.retention_ratio:g}, and is kept for this call, too, whose ratio is {ratio:g} and would have "
                f"{anchors_of_ratio(config.frame_grid, ratio)}: set `model.config.num_anchors = None` for the number "
                "of each ratio."
            )


def ratio_of(count: int, num_frames: int, config) -> float:
    """The ratio of fewest digits that gives this count."""
    return shortest_ratio(count, num_frames, config.pooled_grid_size**2, config.num_clips)


def shortest_ratio(count: int, num_frames: int, tokens_per_frame: int, num_clips: int) -> float:
    """The same, whatever the config."""
    for digits in range(1, 17):
        ratio = round(count / (num_frames * tokens_per_frame), digits)
        if ratio > 0 and count_video_tokens(num_frames, ratio, tokens_per_frame, num_clips) == count:
            return ratio
    return count / (num_frames * tokens_per_frame)


def configured_count(num_frames: int, config) -> int:
    """B of the config's ratio."""
    return count_video_tokens(num_frames, config.retention_ratio, config.pooled_grid_size**2, config.num_clips)
