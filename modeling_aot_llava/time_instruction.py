"""Runs with `add_time_instruction`: LLaVA-Video's sentence about the times of a video's frames, which follows it."""

from transformers.video_utils import VideoMetadata


def time_instruction(metadata: VideoMetadata) -> str:
    """The sentence with which LLaVA-Video was trained (LLaVA-NeXT, llava/train/train.py), on a line of its own.

    Raises:
        ValueError: if frame rate or frame numbers are not known.
    """
    frames = metadata.frames_indices
    if not metadata.fps or frames is None or not len(frames):
        raise ValueError(
            "`add_time_instruction` is True, but the frame rate of the video or the numbers of its frames are not "
            "known: pass the video as a file, or `video_metadata` with `fps`, `total_num_frames` and "
            "`frames_indices`, or `add_time_instruction=False`."
        )
    times = ",".join(f"{frame / metadata.fps:.2f}s" for frame in frames)
    # No blank after the full stop: so it was trained.
    return (
        f"\nThe video lasts for {metadata.total_num_frames / metadata.fps:.2f} seconds, and {len(frames)} frames are "
        f"uniformly sampled from it. These frames are located at {times}.Please answer the following questions "
        "related to this video."
    )
