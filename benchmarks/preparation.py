"""What comes before the model: reading a video's frames from a file and making pixel values of them."""

import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from transformers import LlavaOnevisionVideoProcessor

from modeling_aot_llava.video_reading import read_video

from .measure import seconds

WIDTH, HEIGHT = 640, 360
SECONDS, FRAMES_PER_SECOND = 8, 25


def measure_preparation(num_frames: int, side: int, repeats: int) -> list[dict[str, float]]:
    """Seconds of reading `num_frames` frames from an MPEG-4 clip of 200, 640 x 360, and of processing them.

    On the CPU, which does this whatever device the model is on.

    Args:
        side: of the pixels that the vision tower takes.
    """
    processor = LlavaOnevisionVideoProcessor(size={"height": side, "width": side})
    cpu = torch.device("cpu")
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        _write_clip(clip)
        for _ in range(repeats):
            frames = []
            reading = seconds(lambda frames=frames: frames.append(read_video(clip, num_frames=num_frames)[0]), cpu)
            processing = seconds(
                lambda frames=frames: processor(frames, do_sample_frames=False, return_tensors="pt"), cpu
            )
            samples.append({"reading_seconds": reading, "processing_seconds": processing})
    return samples


def _write_clip(path: Path) -> None:
    # A pattern that moves over a gradient: neither still nor noise, as a codec expects it.
    row, column = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.time_base = Fraction(1, FRAMES_PER_SECOND)
        for number in range(SECONDS * FRAMES_PER_SECOND):
            pattern = (row + 3 * number) // 24 + (column + 2 * number) // 24
            picture = np.stack([pattern % 2 * 200, row * 255 // HEIGHT, column * 255 // WIDTH], axis=-1)
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
