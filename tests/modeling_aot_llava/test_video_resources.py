"""What read_video leaves behind, without any help of the garbage collector: nothing."""

import gc
import io
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numbered_clips import B_FRAMES, SHORT_GOPS, av, draw_frame, write_clip
from PIL import Image

from modeling_aot_llava.video_reading import read_video

ON_LINUX = Path("/proc/self").is_dir()


# What of PyAV holds pixels, threads or files.
HEAVY = {
    "InputContainer",
    "VideoStream",
    "VideoCodecContext",
    "Packet",
    "VideoFrame",
    "VideoPlane",
    "VideoReformatter",
}


def pyav_objects():
    return sorted(type(each).__name__ for each in gc.get_objects() if type(each).__name__ in HEAVY)


def open_files():
    return sorted(os.readlink(f"/proc/self/fd/{entry}") for entry in os.listdir("/proc/self/fd") if is_open(entry))


def is_open(descriptor):
    return os.path.exists(f"/proc/self/fd/{descriptor}")


def num_threads():
    return len(os.listdir("/proc/self/task"))


@pytest.fixture(autouse=True)
def collector_off():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def nothing_left():
    """Checks that everything is as it was when the test began: `nothing_left()`."""
    objects = pyav_objects()
    files, threads = (open_files(), num_threads()) if ON_LINUX else (None, None)

    def check():
        assert pyav_objects() == objects
        if ON_LINUX:
            assert open_files() == files
            patience = time.monotonic() + 5  # a thread that has ended is listed a moment longer
            while num_threads() > threads and time.monotonic() < patience:
                time.sleep(0.01)
            assert num_threads() == threads

    return check


def save_pictures(folder):
    folder.mkdir()
    for number in range(5):
        Image.fromarray(draw_frame(number)).save(folder / f"{number}.png")
    return folder


def cut_short(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    return path


def damaged(path):
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][25]
        start = packet.pos + packet.size // 2
    content = bytearray(path.read_bytes())
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    return path


def no_video(path):
    path.write_bytes(np.random.default_rng(0).bytes(20000))
    return path


H264 = {"options": {**B_FRAMES, **SHORT_GOPS}}
READABLE = {
    "a file": lambda folder: write_clip(folder / "clip.mp4", **H264),
    "a file that is decoded in order": lambda folder: write_clip(folder / "clip.avi", **H264),
    "bytes": lambda folder: write_clip(folder / "clip.mkv", **H264).read_bytes(),
    "a BytesIO": lambda folder: io.BytesIO(write_clip(folder / "clip.mkv", **H264).read_bytes()),
    "pictures": lambda folder: save_pictures(folder / "pictures"),
}
UNREADABLE = {
    "missing": lambda folder: folder / "missing.mp4",
    "cut short": lambda folder: cut_short(write_clip(folder / "clip.mkv", **H264)),
    "damaged": lambda folder: damaged(write_clip(folder / "clip.avi", codec="mpeg4")),
    "no video": lambda folder: no_video(folder / "noise.mp4"),
    "bytes cut short": lambda folder: cut_short(write_clip(folder / "clip.mkv", **H264)).read_bytes(),
}


@pytest.mark.parametrize("kind", READABLE)
def test_nothing_is_left_of_a_video_that_was_read(kind, tmp_path, nothing_left):
    source = READABLE[kind](tmp_path)
    for num_frames in (4, None):
        frames, _ = read_video(source, num_frames)
        nothing_left()
        assert frames.base is None


@pytest.mark.parametrize("kind", UNREADABLE)
def test_nothing_is_left_of_a_video_that_cannot_be_read_while_its_error_is_kept(kind, tmp_path, nothing_left):
    source = UNREADABLE[kind](tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        read_video(source, None)
    nothing_left()
    assert caught.value.__traceback__ is not None


def test_nothing_is_left_when_reading_is_interrupted(tmp_path, nothing_left, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    path = write_clip(tmp_path / "clip.mp4", **H264)
    monkeypatch.setattr(np, "empty", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_video(path)
    nothing_left()


def test_the_callers_own_errors_keep_what_they_know(tmp_path):
    def fail():
        clue = "what a debugger would show"
        raise LookupError(clue)

    try:
        fail()
    except LookupError as error:
        with pytest.raises(FileNotFoundError):
            read_video(tmp_path / "missing.mp4")
        innermost = error.__traceback__.tb_next.tb_frame
    assert innermost.f_locals == {"clue": "what a debugger would show"}


def test_the_pixels_are_held_once(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", size=(320, 192), **H264)
    read_video(path)
    tracemalloc.start()
    try:
        frames, _ = read_video(path, None)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.2 * frames.nbytes


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.skipif(not ON_LINUX, reason="forks")
def test_workers_of_a_data_loader_read_on(method, tmp_path):
    program = Path(__file__).with_name("read_in_workers.py")
    path = write_clip(tmp_path / "clip.mp4", **H264)
    root = str(program.parents[2])
    result = subprocess.run(
        [sys.executable, program, path, method],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["32"]
