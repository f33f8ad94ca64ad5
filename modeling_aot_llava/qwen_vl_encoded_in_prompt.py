"""Runs in calls of a Qwen-VL processor with an encoded video: whether it is what the call asks for."""

from typing import Any

from transformers.video_utils import VideoMetadata

from .encoded_in_prompt import check_ratio, check_settings, name_of
from .error_texts import show
from .qwen_vl_encoded_video import QwenVLEncodedVideo
from .qwen_vl_reading import choose_frames
from .token_budget import count_video_tokens

# Settings that the processor has as well as the model.
_SETTINGS_OF_BOTH = ("num_clips", "num_anchors")


def check_is_asked_for(
    video: QwenVLEncodedVideo, processor: Any, retention_ratio: float | None, options: dict[str, Any]
) -> None:
    """Raises `ValueError` where the call, or the processor, asks for another video than was encoded.

    Args:
        processor: an AOT processor of the family.
        retention_ratio: of the call; None where it names none: then the encoded video's is taken.
        options: more of the call, of which `num_frames` and `fps` say which frames are wanted, `size` how large.
    """
    check_settings(video, processor, _SETTINGS_OF_BOTH)
    _check_shape(video, processor)
    check_ratio(video, retention_ratio, video.tokens_of_frame, processor.num_clips)
    _check_frames(video, processor.video_processor, options)
    _check_size(video, processor.video_processor, options)


def metadata_of(video: QwenVLEncodedVideo) -> VideoMetadata:
    """What the processor knows of the source, as it knows it of a video with pixels."""
    indices = None if video.frame_indices is None else list(video.frame_indices)
    height, width = video.source_size or (None, None)
    return VideoMetadata(
        total_num_frames=video.total_num_frames, fps=video.fps, frames_indices=indices, height=height, width=width
    )


def _check_shape(video: QwenVLEncodedVideo, processor: Any) -> None:
    own, indices = processor.video_processor, video.frame_indices
    num_frames = None if indices is None else -(-len(indices) // own.temporal_patch_size)
    if video.merge_size != own.merge_size or num_frames not in (None, video.num_frames):
        raise ValueError(
            f"{name_of(video)} is of {video.num_frames} frames with tokens {video.merge_size} patches wide, which "
            "this processor does not make: load the processor of the model that made it."
        )
    if indices is None and processor.has_span_a_frame:
        raise ValueError(
            f"{name_of(video)} does not tell when its frames are shown, which the prompt tells: encode the video anew."
        )
    most = count_video_tokens(video.num_frames, video.retention_ratio, video.tokens_of_frame, processor.num_clips)
    if video.config.get("temporal_threshold") is None and len(video.tokens) > most:
        raise ValueError(
            f"{name_of(video)} cannot be read, for it has {len(video.tokens)} tokens, but a retention_ratio of "
            f"{video.retention_ratio:g}: make it with `model.encode_video`."
        )


def _check_frames(video: QwenVLEncodedVideo, video_processor: Any, options: dict[str, Any]) -> None:
    asked = {name: options[name] for name in ("num_frames", "fps") if options.get(name) is not None}
    samples = options.get("do_sample_frames", video_processor.do_sample_frames)
    if not asked or not samples or video.frame_indices is None:
        return
    source = VideoMetadata(total_num_frames=video.total_num_frames, fps=video.fps)
    wanted, found = (
        _padded([int(index) for index in indices], video_processor.temporal_patch_size)
        for indices in (choose_frames(video_processor, source, options), video.frame_indices)
    )
    if wanted != found:
        named = ", ".join(f"{name}={show(value)}" for name, value in asked.items())
        raise ValueError(
            f"{name_of(video)} was made of {len(video.frame_indices)} pictures, but the call asks for {named}, which "
            "are others: leave that out, or encode the video with it."
        )


def _padded(indices: list[int], temporal_patch_size: int) -> list[int]:
    """The last picture comes again until the last frame is full; some hosts do so where they tell of the pictures."""
    return indices + indices[-1:] * (-len(indices) % temporal_patch_size)


def _check_size(video: QwenVLEncodedVideo, video_processor: Any, options: dict[str, Any]) -> None:
    asked = {name: options[name] for name in ("size", "min_pixels", "max_pixels") if options.get(name) is not None}
    if not asked:
        return
    size = dict(asked.pop("size", None) or video_processor.size)
    size.update({new: options[name] for name, new in _EDGES.items() if name in asked})
    frames, *patches = video.grid
    # Of a video whose size nobody knows any more, its own: it must stay what it is.
    height, width = video.source_size or (side * video_processor.patch_size for side in patches)
    num_pictures = (
        frames * video_processor.temporal_patch_size if video.frame_indices is None else len(video.frame_indices)
    )
    wanted = video_processor.get_num_of_video_patches(num_pictures, height, width, {**options, "size": size})
    if wanted != frames * patches[0] * patches[1]:
        raise ValueError(
            f"{name_of(video)} has frames of {patches[0]} x {patches[1]} patches, but the call asks for "
            f"size={show(size)}, which gives {wanted // frames} patches: leave that out, or encode the video with it."
        )


# What older calls name, of the size.
_EDGES = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
