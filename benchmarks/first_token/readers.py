"""The libraries that read a video's frames, this project's reader first."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.video_utils import load_video

from benchmarks.measure import PeakMemory
from modeling_aot_llava.video_reading import read_frames, uniform_frame_indices

OURS = "this project"
# Of transformers' `load_video`, and what each needs; torchvision has none any more.
BACKENDS = {"pyav": "av", "opencv": "cv2", "decord": "decord", "torchcodec": "torchcodec"}


def installed_readers() -> dict[str, Callable[[Path, np.ndarray], np.ndarray]]:
    """Functions from a file and the indices of frames to (n, height, width, 3) uint8, by their names."""
    readers = {OURS: lambda file, indices: read_frames(str(file), indices)[0]}
    for backend, module in BACKENDS.items():
        if importlib.util.find_spec(module) is not None:
            readers[f"load_video, {backend}"] = _with_transformers(backend)
    if importlib.util.find_spec("decord") is not None:
        readers["decord"] = _with_decord
    if importlib.util.find_spec("cv2") is not None:
        readers["OpenCV, seeking"] = _with_opencv
    return readers


def measure_reader(read: Callable[[Path, np.ndarray], np.ndarray], file: Path, indices: np.ndarray) -> dict[str, Any]:
    """Seconds by the clock and of all threads' work, peak memory, and the frames; or the `error` that it ends with."""
    with PeakMemory(torch.device("cpu")) as memory:
        started, work = time.perf_counter(), time.process_time()
        try:
            frames = read(file, indices)
        except Exception as error:  # a library that does not run here is a row of the table, not the end of the run
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        elapsed = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - work}
    return {**elapsed, "memory_growth_bytes": memory.peak - memory.before, "frames": frames}


def indices_of(total: int, num_frames: int) -> np.ndarray:
    """The frames that all readers are asked for."""
    return uniform_frame_indices(total, num_frames)


def _with_transformers(backend: str) -> Callable[[Path, np.ndarray], np.ndarray]:
    def read(file: Path, indices: np.ndarray) -> np.ndarray:
        frames, _ = load_video(str(file), backend=backend, sample_indices_fn=lambda metadata, **_: indices)
        frames = np.asarray(frames)
        return frames if frames.shape[-1] == 3 else frames.transpose(0, 2, 3, 1)

    return read


def _with_decord(file: Path, indices: np.ndarray) -> np.ndarray:
    import decord

    return decord.VideoReader(str(file), num_threads=1).get_batch(indices).asnumpy()


def _with_opencv(file: Path, indices: np.ndarray) -> np.ndarray:
    import cv2

    capture, frames = cv2.VideoCapture(str(file)), []
    for index in indices.tolist():
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        was_read, frame = capture.read()
        if not was_read:
            raise ValueError(f"frame {index} was not read")
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return np.stack(frames)
