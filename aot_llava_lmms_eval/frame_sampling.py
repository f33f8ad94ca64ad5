"""Which frames of a video are read: this project's choice, or those of lmms-eval's own classes, for parity."""

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from transformers.video_utils import VideoMetadata

from modeling_aot_llava.video_reading import read_frames, read_video

Frames = tuple[np.ndarray, VideoMetadata]


def uniform(video: str | os.PathLike, num_frames: int) -> Frames:
    """`num_frames` frames from the first to the last; a shorter video gives each of its frames once."""
    return read_video(video, num_frames)


def llava_onevision(video: str | os.PathLike, num_frames: int) -> Frames:
    """As lmms-eval's `llava_onevision`: always `num_frames`, so that a shorter video repeats frames."""
    frames, metadata = read_video(video, num_frames)
    if len(frames) == num_frames:
        return frames, metadata
    repeated = np.linspace(0, len(frames) - 1, num_frames, dtype=int)
    return frames[repeated], replace(metadata, frames_indices=repeated.tolist())


def llava_vid(video: str | os.PathLike, num_frames: int) -> Frames:
    """As lmms-eval's `llava_vid` without `force_sample`: a frame a second, but where these are more than `num_frames`.

    Then, and of a folder of pictures, `num_frames` from the first to the last.
    """
    _, metadata = read_video(video, 1)
    if metadata.fps is None:
        return llava_onevision(video, num_frames)
    seconds = range(0, metadata.total_num_frames, max(1, round(metadata.fps)))
    return read_frames(video, seconds) if len(seconds) <= num_frames else read_video(video, num_frames)


SAMPLINGS: dict[str, Callable[[str | os.PathLike, int], Frames]] = {
    sampling.__name__: sampling for sampling in (uniform, llava_onevision, llava_vid)
}
