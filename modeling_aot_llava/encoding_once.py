"""Runs in `encode_video`: from a call's video to an `EncodedVideo`, which stands for it in later calls."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.video_utils import VideoMetadata

from .call_videos import CallVideos
from .encoded_video import EncodedVideo
from .kept_video_tokens import configured_count, ratio_of, tokens_to_keep
from .offloading import own_parameters_loaded
from .plain_numbers import plain
from .prompt import Prompt
from .prompt_fitting import encode_pixels, spans_of_videos
from .video_marks import config_fields
from .weights_fingerprint import fingerprint


@torch.no_grad()
def encode_once(
    model,
    prompt: Prompt,
    pixel_values_videos: Tensor,
    image_sizes_videos: Tensor | None,
    kept_video_tokens: Sequence[int] | Tensor | None,
    video_metadata: VideoMetadata | Sequence[VideoMetadata] | None,
    source: str | None,
) -> EncodedVideo:
    """Encodes one video.

    Args:
        model: an `AOTLlavaOnevisionModel`.
        prompt: with the video's placeholders, which say how many tokens are kept; or without anything.
        kept_video_tokens: B, which says so where there is no prompt; by default `config.retention_ratio` does.
        pixel_values_videos, image_sizes_videos, video_metadata: as the processor gives them.
        source: what the video is called.

    Raises:
        ValueError: if there are several videos, or the prompt does not fit.
    """
    model.config.validate_aot()
    videos = CallVideos(pixel_values_videos, image_sizes_videos)
    videos.check()
    if len(pixel_values_videos) != 1:
        raise ValueError(
            f"`pixel_values_videos` holds {len(pixel_values_videos)} videos, but one is encoded at a time: call "
            "`encode_video` for each."
        )
    num_frames = pixel_values_videos.shape[1]
    count = _count_kept(model, prompt, videos, kept_video_tokens)
    with own_parameters_loaded(model):
        (tokens,) = encode_pixels(model, videos, [count], True).pooler_output
    return EncodedVideo(
        tokens=tokens.detach(),
        num_frames=num_frames,
        retention_ratio=min(1.0, float(ratio_of(count, num_frames, model.config))),
        config={name: plain(value) for name, value in config_fields(model.config).items()},
        fingerprint=fingerprint(model),
        source=None if source is None else str(source),
        **_facts_of(video_metadata, num_frames),
    )


def _count_kept(model, prompt: Prompt, videos: CallVideos, kept_video_tokens: Any) -> int:
    """B, newline tokens not counted."""
    is_asked_for, count = videos.image_sizes_videos is not None, None
    if prompt.input_ids is not None:
        spans = spans_of_videos(model, prompt, videos)
        (count,) = tokens_to_keep(spans, videos.num_frames, model.config, is_asked_for)
    elif kept_video_tokens is not None:
        (count,) = torch.as_tensor(kept_video_tokens).flatten().tolist()
    return configured_count(videos.num_frames[0], model.config) if count is None else count


def _facts_of(metadata: Any, num_frames: int) -> dict[str, Any]:
    """Which frames of what: so far as it is known."""
    if isinstance(metadata, (list, tuple)):
        metadata = metadata[0] if metadata else None
    if metadata is None:
        return {}
    indices = metadata.frames_indices
    if indices is not None:
        indices = tuple(int(index) for index in indices)
    return {
        "frame_indices": indices if indices is not None and len(indices) == num_frames else None,
        "fps": float(metadata.fps) if metadata.fps else None,
        "total_num_frames": None if metadata.total_num_frames is None else int(metadata.total_num_frames),
    }
