"""Whatever the bytes are: frames, or a ValueError of one sentence, within bounds of time and memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from numbered_clips import B_FRAMES, SHORT_GOPS, write_clip

PROGRAM = Path(__file__).with_name("read_damaged.py")
SMALL = {"num_frames": 10, "size": (48, 32)}
H264 = {"options": {**B_FRAMES, **SHORT_GOPS, "preset": "ultrafast"}}
KINDS = {
    "h264.mp4": H264,
    "fragments.mp4": {**H264, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "h264.mkv": H264,
    "h264.ts": H264,
    "h264.flv": H264,
    "elementary.h264": H264,
    "hevc.mp4": {"codec": "libx265", "size": (160, 96), "options": {"x265-params": "log-level=none"}},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"bf": "2"}},
    "pictures.gif": {"codec": "gif", "pix_fmt": "rgb8", "rate": 25},
    "picture.png": {"codec": "png", "pix_fmt": "rgb24", "num_frames": 1},
    "picture.jpg": {"codec": "mjpeg", "pix_fmt": "yuvj420p", "num_frames": 1},
}


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
def test_damaged_files_give_frames_or_one_sentence(tmp_path, request):
    number = request.config.getoption("--damaged-files")
    folder = tmp_path / "clips"
    folder.mkdir()
    for name, kind in KINDS.items():
        write_clip(folder / name, **{**SMALL, **kind})
    root = str(PROGRAM.parents[2])
    result = subprocess.run(
        [sys.executable, PROGRAM, folder, str(request.config.getoption("--damage-seed")), str(number)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))},
    )
    assert result.returncode == 0, f"{result.stdout}{result.stderr}\nThe file: {tmp_path / 'last case'}"
    read, _, refused, _ = result.stdout.split()
    assert int(read) > number // 20
    assert int(refused) > number // 20
    assert int(read) + int(refused) == number
