"""Writes a clip as a video file."""

import os
from pathlib import Path

import av

from .render import render_clip
from .scene import Scene
from .vocabulary import SIDE

NUM_FRAMES = 64
FRAMES_PER_SECOND = 8
KEYFRAME_INTERVAL = 16


def save_clip(scene: Scene, path: str | Path) -> None:
    """Writes the clip as mp4: 64 frames at 8 frames a second. Nothing half written is left under this name.

    Raises:
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is not a folder: make it before a clip is saved there")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished.mp4")
    try:
        _encode(scene, unfinished)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _encode(scene: Scene, path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(_codec(), rate=FRAMES_PER_SECOND)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        # Several key frames, as in a camera's file, so that a reader can seek.
        stream.gop_size = KEYFRAME_INTERVAL
        for picture in render_clip(scene, NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def _codec() -> str:
    """H.264 plays everywhere; FFmpeg's own MPEG-4 encoder is in every build."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"
