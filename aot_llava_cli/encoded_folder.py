"""Whether a file that is to be written holds the encoded video already."""

import hashlib
from pathlib import Path
from typing import Any

from .arguments import is_address
from .hosts import check_made_by, frames_by_default, load_encoded
from .video_look import shown


def is_done(file: Path, video: str, model: Any, processor: Any, num_frames: int | None) -> bool:
    """Whether the file is of this video, encoded by this model in this way.

    Raises:
        ValueError: if it is of another video, or encoded otherwise: it is not for us to replace it.
    """
    if not file.exists():
        return False
    encoded = load_encoded(processor, file)
    if encoded.source != source_of(video):
        raise ValueError(
            f"{file} is there already, of {encoded.source}, and {shown(video)} is another video: give another "
            "--output or delete it."
        )
    options = {**frames_by_default(processor, num_frames), "retention_ratio": processor.retention_ratio}
    try:
        inputs = processor(text=processor.video_token, videos=[encoded], return_tensors="pt", **options)
        check_made_by(model, processor, inputs)
    except ValueError as error:
        raise ValueError(
            f"{file} is there already, encoded in another way: give another --output or delete it ({error})"
        ) from error
    return True


def source_of(video: str) -> str:
    """What an encoded video's file calls the video: its name and content, not where it lies; or its address."""
    if is_address(video):
        return shown(video)
    path = Path(video)
    digest = hashlib.sha256()
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
    return f"{path.resolve().name} (sha256 {digest.hexdigest()[:16]})"
