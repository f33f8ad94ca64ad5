"""Runs once a video's frames are chosen: decodes them, on machines with more cores several runs side by side."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from .upright_frames import StoppedError, UprightFrames, make_reformatter
from .video_decoding import Run, decode_in_order, decode_run, decode_run_exactly
from .video_index import FrameIndex
from .video_limits import VideoLimits
from .video_sources import VideoFile
from .video_stream import open_video

# Runs that are decoded at once: each takes the memory of a decoder, some 30 MiB at 1080p.
_MOST_AT_ONCE = 4


def decode_frames(
    file: VideoFile, index: FrameIndex, indices: np.ndarray, limits: VideoLimits, frames: UprightFrames
) -> None:
    """Decodes the frames at the rising `indices` and adds them to `frames`.

    On more than two cores several runs at once, each with a container and a decoder of its own; no thread is left.

    Raises:
        TimesMisleadError: a frame is not where the index has it.
        ValueError: a frame does not decode, or they have more pixels than the limits allow.
    """
    if index.keyframes is None:
        with open_video(file, limits) as video:
            _add_all(decode_in_order(video, indices), frames)
        return
    runs = list(_runs(index, indices))
    num_cores = _num_cores()
    num_workers = min(len(runs), num_cores, _MOST_AT_ONCE) if num_cores > 2 and file.is_sharable else 1
    num_threads = num_cores // num_workers if num_workers > 1 else None
    decode = _Decoding(file, index, limits, frames, iter(runs), num_threads)
    if num_workers == 1:
        decode.runs_that_are_left()
    else:
        _side_by_side(decode, num_workers)


def _runs(index: FrameIndex, indices: np.ndarray) -> Iterator[Run]:
    """The wanted times, parted where a seek to the keyframe before the next one skips frames."""
    run, following = {}, 0
    for place, position in enumerate(indices.tolist()):
        time = int(index.times[position])
        keyframe = index.keyframes[index.keyframe_before(time)]
        if run and keyframe > index.times[following]:
            yield run
            run = {}
        run[time] = place
        following = position + 1
    yield run


class _Decoding:
    """What the threads share that decode a video."""

    def __init__(
        self,
        file: VideoFile,
        index: FrameIndex,
        limits: VideoLimits,
        frames: UprightFrames,
        runs: Iterator[Run],
        num_threads: int | None,
    ):
        self._file, self._index, self._limits, self.frames, self._runs = file, index, limits, frames, runs
        self._num_threads = num_threads  # of each decoder
        self._is_exact = False  # whether frames that nobody asked for have turned out to be needed
        self._lock = threading.Lock()

    def runs_that_are_left(self) -> None:
        """Decodes them, one after the other."""
        with open_video(self._file, self._limits, self._num_threads) as video:
            while (run := self._next_run()) is not None:
                if self._is_exact or not _add_all(decode_run(video, self._index, run), self.frames):
                    break
        self._is_exact = self._is_exact or run is not None
        if run is None:
            return
        # Anew, since the first run is decoded from the beginning of the file.
        with open_video(self._file, self._limits, self._num_threads) as video:
            while run is not None:
                _add_all(decode_run_exactly(video, self._index, run), self.frames)
                run = self._next_run()

    def _next_run(self) -> Run | None:
        self.frames.check_running()
        with self._lock:
            return next(self._runs, None)


def _add_all(decoded: Iterator[tuple[int, Any]], frames: UprightFrames) -> bool:
    """Adds places and frames; whether there are as many of them as there should be, see `decode_run`."""
    reformatter = make_reformatter()
    for place, frame in decoded:
        if frame is None:
            return False
        frames.add(place, frame, reformatter)
    return True


def _side_by_side(decode: _Decoding, num_workers: int) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            decode.runs_that_are_left()
        except StoppedError:
            pass
        except BaseException as error:
            errors.append(error)
            decode.frames.stop()

    threads = [threading.Thread(target=work, name="aot-video", daemon=True) for _ in range(num_workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        decode.frames.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    if errors:
        raise errors[0]


def _num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
