"""A short video drawn in code.

A red ball bounces across a textured wall, and a blue square appears for a moment.
"""

import math
from pathlib import Path

import av
import numpy as np

from .demo_cache import cached_folder, content_version

SIDE = 256
FRAMES_PER_SECOND = 10
NUM_FRAMES = 60
KEYFRAME_INTERVAL = 20
BALL_RADIUS = 24
SQUARE_FRAMES = range(24, 39)


def demo_clip() -> Path:
    """Returns the path of the demo clip in the user's cache; the first call draws it."""
    folder = cached_folder(
        "demo-clip",
        content_version(Path(__file__)),
        lambda folder: save_demo_clip(folder / "ball.mp4"),
    )
    return folder / "ball.mp4"


def save_demo_clip(path: Path) -> None:
    """Draws the demo clip and writes it as mp4."""
    wall = _draw_wall()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(_codec(), rate=FRAMES_PER_SECOND)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        # Several key frames, as in a camera's file, so that a reader can seek.
        stream.gop_size = KEYFRAME_INTERVAL
        for index in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(_draw_frame(wall, index), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _codec() -> str:
    """H.264 plays everywhere; FFmpeg's own MPEG-4 encoder is in every build."""
    return "libx264" if "libx264" in av.codecs_available else "mpeg4"


def _draw_wall() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE * 2 * math.pi
    waves = 24 * np.sin(5 * columns + 2 * np.sin(rows)) + 20 * np.sin(7 * rows)
    grain = np.random.default_rng(0).normal(scale=10, size=(SIDE, SIDE))
    return np.clip(np.array([140, 130, 105]) + (waves + grain)[..., None], 0, 255).astype(np.uint8)


def _draw_frame(wall: np.ndarray, index: int) -> np.ndarray:
    picture = wall.copy()
    if index in SQUARE_FRAMES:
        picture[32:80, 168:216] = (30, 60, 220)
    progress = index / (NUM_FRAMES - 1)
    center_x = BALL_RADIUS + progress * (SIDE - 2 * BALL_RADIUS)
    center_y = SIDE - BALL_RADIUS - 120 * abs(math.sin(3 * math.pi * progress))
    rows, columns = np.mgrid[:SIDE, :SIDE]
    ball = (rows - center_y) ** 2 + (columns - center_x) ** 2 <= BALL_RADIUS**2
    picture[ball] = (215, 35, 30)
    return picture
