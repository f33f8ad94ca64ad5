"""Whether a file that is to be written holds the encoded video already."""

from pathlib import Path
from typing import Any

import torch

from modeling_aot_llava.encoded_in_prompt import check_is_asked_for
from modeling_aot_llava.encoded_video import EncodedVideo
from modeling_aot_llava.video_marks import check_marks, marks_of

from .video_look import shown


def is_done(file: Path, video: str, model: Any, processor: Any, num_frames: int | None) -> bool:
    """Whether the file is of this video as it is now, encoded by this model in this way.

    Raises:
        ValueError: if it is of another video, or encoded otherwise: it is not for us to replace it.
    """
    if not file.exists():
        return False
    encoded = EncodedVideo.load(file)
    if encoded.source != source_of(video):
        raise ValueError(f"{file} is there already, of {encoded.source}: give another --output for {shown(video)}.")
    options = {"num_frames": processor.num_frames if num_frames is None else num_frames}
    pooled = model.config.pooled_grid_size**2
    try:
        check_is_asked_for(encoded, processor, processor.retention_ratio, options, pooled)
        check_marks(torch.tensor([marks_of(encoded.fingerprint, encoded.config)]), model.model)
    except ValueError as error:
        raise ValueError(
            f"{file} is there already, encoded in another way: give another --output or delete it ({error})"
        ) from error
    return not _is_newer(Path(video), file)


def source_of(video: str) -> str:
    """What an encoded video's file calls the video: the whole path, or an address without what may be secret."""
    return str(Path(video).resolve()) if Path(video).exists() else shown(video)


def _is_newer(video: Path, file: Path) -> bool:
    """Whether a file was changed after it was encoded; of an address nothing is known."""
    return video.is_file() and video.stat().st_mtime > file.stat().st_mtime
