"""Clips whose frames show their number, as a row of black and white blocks, one a bit."""

from fractions import Fraction

import numpy as np
import pytest

av = pytest.importorskip("av")

BITS = 8


def draw_frame(number, width=160, height=96):
    image = np.full((height, width, 3), 128, dtype=np.uint8)
    for bit, columns in enumerate(np.array_split(np.arange(width), BITS)):
        image[: height // 2, columns] = 255 if number >> bit & 1 else 0
    return image


def read_number(image):
    top = image[image.shape[0] // 8 : image.shape[0] // 4]
    blocks = [top[:, columns] for columns in np.array_split(np.arange(top.shape[1]), BITS)]
    return sum((block[:, 4:-4].mean() > 128) << bit for bit, block in enumerate(blocks))


def write_clip(
    path, num_frames=60, codec="libx264", pix_fmt="yuv420p", rate=30, times=None, size=(160, 96),
    options=None, container_options=None, tags=None,
):  # fmt: skip
    """Frame i at `times[i]` (default i) / rate seconds."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(draw_frame(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


B_FRAMES = {"bf": "3", "b-pyramid": "normal"}
SHORT_GOPS = {"g": "12", "sc_threshold": "0"}
