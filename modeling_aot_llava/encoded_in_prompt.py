"""Runs in calls of the processor with an encoded video: whether it is what the call asks for."""

from collections.abc import Sequence
from typing import Any

from .encoded_video import EncodedVideo
from .error_texts import show
from .plain_numbers import is_integer, is_number, plain
from .token_budget import count_video_tokens

# Settings that the processor has as well as the model.
_SETTINGS_OF_BOTH = ("num_clips", "mm_spatial_pool_mode", "mm_newline_position", "aot_newline_position")


def check_is_asked_for(
    video: EncodedVideo, processor: Any, retention_ratio: float | None, options: dict[str, Any], pooled: int
) -> None:
    """Raises `ValueError` where the call, or the processor, asks for another video than was encoded.

    Args:
        processor: an `AOTLlavaOnevisionProcessor`.
        retention_ratio: of the call; None where it names none: then the encoded video's is taken.
        options: more of the call, of which `num_frames` and `fps` say which frames are wanted.
        pooled: P, tokens a frame.
    """
    check_settings(video, processor, _SETTINGS_OF_BOTH)
    check_ratio(video, retention_ratio, pooled, processor.num_clips)
    _check_frames(name_of(video), video, options)


def name_of(video: EncodedVideo) -> str:
    """What messages call it, at the beginning of a sentence."""
    return "The encoded video" + (f" of {show(video.source)}" if video.source else "")


def check_settings(video: EncodedVideo, processor: Any, names: Sequence[str]) -> None:
    """Raises `ValueError` where it cannot be read, or was made with other settings than the processor has."""
    fault = video.find_fault()
    if fault:
        raise ValueError(f"{name_of(video)} cannot be read, for {fault}: make it with `model.encode_video`.")
    for field in names:
        made_with, own = video.config.get(field), plain(getattr(processor, field))
        if made_with != own:
            raise ValueError(
                f"{name_of(video)} was made with {field}={show(made_with)}, but the processor has {show(own)}: load "
                "the processor of the model that made it, or encode the video anew."
            )


def check_ratio(video: EncodedVideo, retention_ratio: float | None, pooled: int, num_clips: int) -> None:
    """Raises `ValueError` where the call names a ratio that is another number of tokens, of P = pooled a frame."""
    if retention_ratio is None:
        return
    asked, kept = (
        count_video_tokens(video.num_frames, ratio, pooled, num_clips)
        for ratio in (retention_ratio, video.retention_ratio)
    )
    if asked != kept:
        raise ValueError(
            f"{name_of(video)} was encoded at a retention_ratio of {video.retention_ratio:g}, but the call asks for "
            f"{show(retention_ratio)}: leave it out, or encode the video at that ratio."
        )


def _check_frames(name: str, video: EncodedVideo, options: dict[str, Any]) -> None:
    wanted, total = options.get("num_frames"), video.total_num_frames
    if options.get("do_sample_frames") is False:
        return
    if is_integer(wanted):
        expected = wanted if total is None else min(wanted, total)
        asked = f"num_frames={wanted}"
    elif is_number(options.get("fps")) and total is not None and video.fps:
        expected = max(1, int(min(total, total / video.fps * options["fps"])))
        asked = f"fps={options['fps']}"
    else:
        return
    if expected != video.num_frames:
        raise ValueError(
            f"{name} was made of {video.num_frames} frames, but the call asks for {asked}: leave that out, or encode "
            "the video with it."
        )
