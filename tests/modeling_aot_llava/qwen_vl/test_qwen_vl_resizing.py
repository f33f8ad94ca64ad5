"""Frames of files are the stock video processors' to the bit, for every setting, and resized one by one."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_clips import SHORT_GOPS, write_clip
from torchvision.transforms.v2 import InterpolationMode
from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.image_utils import PILImageResampling

from modeling_aot_llava.qwen_vl_reading import read_videos
from modeling_aot_llava.video_limits import DEFAULT_LIMITS
from modeling_aot_llava.video_reading import read_video

STOCK = [kind(cap_pixels_per_frame=False) for kind in (Qwen2VLVideoProcessor, Qwen3VLVideoProcessor)]
NUM_FRAMES = 9
CLIPS = {"wide": (162, 98), "tall": (50, 120), "small": (20, 24)}
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from(
            [{"shortest_edge": 1000, "longest_edge": 40_000}, {"shortest_edge": 60_000, "longest_edge": 200_000}]
        ),
        "resample": st.sampled_from([*map(PILImageResampling, (0, 2, 3)), *InterpolationMode][:5]),
        "do_resize": st.sampled_from([True, True, True, False]),
        "do_rescale": st.booleans(),
        "do_normalize": st.booleans(),
        "image_mean": st.just([0.1, 0.2, 0.3]),
        "do_convert_rgb": st.booleans(),
        "cap_pixels_per_frame": st.booleans(),
        "patch_size": st.sampled_from([8, 14]),
        "merge_size": st.sampled_from([1, 2]),
        "temporal_patch_size": st.sampled_from([1, 2]),
        "device": st.sampled_from(["cpu", torch.device("cpu")]),
    },
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    return [str(write_clip(folder / f"{name}.mkv", NUM_FRAMES, size=size)) for name, size in CLIPS.items()]


def made_of_files(video_processor, clips, options):
    videos, options = read_videos(video_processor, clips, options, DEFAULT_LIMITS)
    return video_processor(videos, return_tensors="pt", **options)


@settings(max_examples=80)
@given(
    stock=st.sampled_from(STOCK),
    which=st.lists(st.integers(0, len(CLIPS) - 1), min_size=1, max_size=2),
    num_frames=st.integers(2, NUM_FRAMES + 3),
    options=SETTINGS,
)
def test_files_whatever_the_settings(clips, stock, which, num_frames, options):
    named = [clips[number] for number in which]
    options = {**options, "do_sample_frames": True, "num_frames": num_frames, "fps": None}
    decoded, metadata = zip(*(read_video(clip, None) for clip in named))
    try:
        right = stock(list(decoded), return_tensors="pt", video_metadata=list(metadata), **options)
    except Exception as error:
        with pytest.raises(type(error)):
            made_of_files(stock, named, options)
        return
    ours = made_of_files(stock, named, options)
    assert torch.equal(ours["video_grid_thw"], right["video_grid_thw"])
    assert torch.equal(ours["pixel_values_videos"], right["pixel_values_videos"])


def test_frames_at_full_size_are_never_all_in_memory(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 40, size=(640, 480), options=SHORT_GOPS)
    options = {"size": {"shortest_edge": 1000, "longest_edge": 100_000}}
    whole = read_video(clip, None)[0].nbytes
    made_of_files(STOCK[1], [str(clip)], {**options, "do_sample_frames": False})
    tracemalloc.start()
    try:
        made_of_files(STOCK[1], [str(clip)], {**options, "do_sample_frames": False})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.3 * whole


def test_a_processor_that_somebody_derived_sees_whole_frames(clips):
    seen = []

    class Derived(Qwen3VLVideoProcessor):
        def _preprocess(self, videos, **options):
            seen.extend(video.shape for video in videos)
            return super()._preprocess(videos, **options)

    made_of_files(Derived(cap_pixels_per_frame=False), clips[:1], {"do_sample_frames": False})
    assert seen == [(NUM_FRAMES, 3, *CLIPS["wide"][::-1])]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_the_default_dtype_changes_nothing(clips, dtype):
    """Weights that load in another thread set it, and a video may be read meanwhile."""
    expected, _ = read_videos(STOCK[0], clips[:1], {"do_sample_frames": False}, DEFAULT_LIMITS)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        videos, _ = read_videos(STOCK[0], clips[:1], {"do_sample_frames": False}, DEFAULT_LIMITS)
    finally:
        torch.set_default_dtype(before)
    assert np.array_equal(videos[0], expected[0])
