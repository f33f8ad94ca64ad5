"""Which frames are read, against the indices that lmms-eval's own classes compute; needs no lmms-eval."""

import numpy as np
import pytest
from numbered_clips import draw_frame, read_number, write_clip
from PIL import Image

from aot_llava_lmms_eval.frame_sampling import SAMPLINGS


def indices_of_llava_onevision(total, num_frames):
    """lmms-eval, models/simple/llava_onevision.py, `load_video`."""
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist()


def indices_of_llava_vid(total, num_frames, frame_rate):
    """lmms-eval, models/simple/llava_vid.py, `load_video` with video_fps=1 and force_sample=False."""
    indices = list(range(0, total, round(frame_rate / 1)))
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist() if len(indices) > num_frames else indices


def indices_of_uniform(total, num_frames):
    """Each frame once."""
    return list(range(total)) if total < num_frames else indices_of_llava_onevision(total, num_frames)


def numbers_of(sampling, video, num_frames):
    frames, metadata = SAMPLINGS[sampling](video, num_frames)
    numbers = [read_number(frame) for frame in frames]
    assert metadata.frames_indices == numbers
    return numbers


@pytest.mark.parametrize("total", [1, 5, 60, 200])
@pytest.mark.parametrize("num_frames", [1, 8, 32])
def test_frames_of_a_file(total, num_frames, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=total, rate=10)
    assert numbers_of("uniform", clip, num_frames) == indices_of_uniform(total, num_frames)
    assert numbers_of("llava_onevision", clip, num_frames) == indices_of_llava_onevision(total, num_frames)
    assert numbers_of("llava_vid", clip, num_frames) == indices_of_llava_vid(total, num_frames, 10)


def test_frames_of_a_webm(tmp_path):
    clip = write_clip(tmp_path / "clip.webm", num_frames=40, codec="libvpx-vp9", rate=8)
    assert numbers_of("llava_vid", clip, 8) == [0, 8, 16, 24, 32]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_frames_of_a_folder_are_sorted(sampling, tmp_path):
    for number in (3, 0, 4, 1, 2):
        Image.fromarray(draw_frame(number)).save(tmp_path / f"{number:05}.png")
    expected = [0, 1, 2, 3, 4] if sampling == "uniform" else indices_of_llava_onevision(5, 8)
    assert numbers_of(sampling, tmp_path, 8) == expected
    assert numbers_of(sampling, tmp_path, 3) == [0, 2, 4]
