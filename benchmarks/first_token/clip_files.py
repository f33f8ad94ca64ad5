"""H.264 files of any length: ten seconds are encoded, and their packets repeated."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from hub_upload.whole_file import write_whole

SIZES = {"180p": (320, 180), "1080p": (1920, 1080), "4k": (3840, 2160)}
FRAMES_PER_SECOND = 30
ENCODED_SECONDS = 10
NOISE = 8  # grey levels


@dataclass(frozen=True)
class ClipFile:
    """What a file is made of."""

    size: str
    seconds: int
    keyframe_interval: int

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.size}, {self.seconds} s, keyframe every {self.keyframe_interval}"

    def make(self, folder: Path) -> Path:
        """The file, which is kept in the folder for later runs."""
        file = folder / f"{self.size}-{self.seconds}s-keyframe{self.keyframe_interval}.mp4"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            encoded = min(self.seconds, ENCODED_SECONDS)
            write_whole(file, lambda unfinished: self._write(unfinished, encoded))
        return file

    def _write(self, file: Path, encoded_seconds: int) -> None:
        import av

        wanted = self.seconds * FRAMES_PER_SECOND
        with av.open(str(file), "w") as container:
            stream = _add_stream(container, self.size, self.keyframe_interval)
            packets = [packet for frame in [*self._frames(encoded_seconds), None] for packet in stream.encode(frame)]
            length = encoded_seconds * FRAMES_PER_SECOND
            for number in range(wanted):
                repeat, packet = number // length, packets[number % length]
                container.mux(_later(packet, repeat * length, stream))

    def _frames(self, seconds: int) -> Iterator:
        """A scene that pans, with a camera's noise, and something that moves over it."""
        import av

        width, height = SIZES[self.size]
        random = np.random.default_rng(0)
        scene = _scene(height, 2 * width, random)
        noise = random.integers(-NOISE, NOISE + 1, (height, 2 * width, 1), dtype=np.int16)
        for number in range(seconds * FRAMES_PER_SECOND):
            pan = number * width // (seconds * FRAMES_PER_SECOND)
            picture = scene[:, pan : pan + width].copy()
            left = 7 * number % (width - width // 8)
            picture[height // 3 : height // 2, left : left + width // 8] = 255
            grain = random.integers(width)
            picture = (picture + noise[:, grain : grain + width]).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES_PER_SECOND)
            yield frame


def _scene(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Details at several scales, the larger the stronger, as pictures have them: (height, width, 3) int16."""
    scene = np.zeros((height, width, 3), dtype=np.int16)
    for block, strength in ((60, 128), (12, 64), (4, 32)):
        details = random.integers(0, strength, (height // block + 1, width // block + 1, 3), dtype=np.int16)
        scene += details.repeat(block, 0).repeat(block, 1)[:height, :width]
    return scene


def _add_stream(container, size: str, keyframe_interval: int):
    # Closed groups of pictures, so that packets can be repeated; B-frames and references as x264 has them by default.
    options = {"g": str(keyframe_interval), "x264-params": "open-gop=0:scenecut=0", "preset": "veryfast", "crf": "20"}
    stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
    stream.width, stream.height = SIZES[size]
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, FRAMES_PER_SECOND)
    return stream


def _later(packet, frames: int, stream):
    import av

    repeated = av.Packet(bytes(packet))
    step = int(frames / FRAMES_PER_SECOND / packet.time_base)
    repeated.pts, repeated.dts, repeated.time_base = packet.pts + step, packet.dts + step, packet.time_base
    repeated.is_keyframe, repeated.stream = packet.is_keyframe, stream
    return repeated
