"""Pixel values are the stock video processor's to the bit, for every setting, and made in the memory of a frame."""

import functools
import io
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_clips import B_FRAMES, SHORT_GOPS, write_clip
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from transformers import LlavaOnevisionVideoProcessor
from transformers.image_utils import PILImageResampling

from modeling_aot_llava import parallel_decoding
from modeling_aot_llava.video_limits import DEFAULT_LIMITS
from modeling_aot_llava.video_pixel_values import make_pixel_values
from modeling_aot_llava.video_reading import read_video

STOCK = LlavaOnevisionVideoProcessor(size={"height": 24, "width": 24})

INTERPOLATIONS = (InterpolationMode.BICUBIC, InterpolationMode.BILINEAR, InterpolationMode.NEAREST)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from(
            [{"height": 17, "width": 40}, {"shortest_edge": 20}, {"shortest_edge": 16, "longest_edge": 30}]
        ),
        "resample": st.sampled_from([0, *map(PILImageResampling, (1, 2, 3)), *INTERPOLATIONS]),
        "do_resize": st.booleans(),
        "do_center_crop": st.booleans(),
        "crop_size": st.just({"height": 12, "width": 31}),
        "do_rescale": st.booleans(),
        "rescale_factor": st.sampled_from([1 / 255, 1 / 127.5]),
        "do_normalize": st.booleans(),
        "image_mean": st.just([0.1, 0.2, 0.3]),
        "image_std": st.just([0.5, 0.25, 0.125]),
        "do_convert_rgb": st.booleans(),
        "device": st.sampled_from(["cpu", torch.device("cpu")]),
        "return_metadata": st.booleans(),
    },
)


def assert_as_stock(videos, options, stock=STOCK, **expected):
    """The same pixel values, or the same complaint."""
    options = {"do_center_crop": False, **options}
    if options["do_center_crop"]:
        options = {"crop_size": {"height": 9, "width": 30}, **options}
    try:
        right = stock(videos, **options)
    except Exception as error:
        with pytest.raises(type(error)):
            make_pixel_values(stock, videos, options, None, DEFAULT_LIMITS)
        return None
    ours = make_pixel_values(stock, videos, options, None, DEFAULT_LIMITS)
    assert ours.keys() == right.keys()
    for mine, theirs in zip(ours["pixel_values_videos"], right["pixel_values_videos"], strict=True):
        assert (mine.dtype, mine.shape, mine.device) == (theirs.dtype, theirs.shape, theirs.device)
        assert mine.is_contiguous()
        assert torch.equal(mine, theirs)
    if options.get("return_metadata"):
        assert list(map(dict, ours["video_metadata"])) == list(map(dict, right["video_metadata"]))
    return ours


def random_video(num_frames, height, width, seed=0, channels=3):
    return np.random.default_rng(seed).integers(0, 256, (num_frames, height, width, channels), dtype=np.uint8)


def as_pictures(video):
    return [Image.fromarray(frame) for frame in video]


DECODED = {
    "array": lambda video: video,
    "array, channels first": lambda video: video.transpose(0, 3, 1, 2),
    "tensor": lambda video: torch.from_numpy(video),
    "tensor, channels first": lambda video: torch.from_numpy(video).permute(0, 3, 1, 2).contiguous(),
    "pictures": as_pictures,
    "list of arrays": list,
    "list of tensors": lambda video: list(torch.from_numpy(video)),
    "floats": lambda video: video.astype(np.float32),
    "doubles": lambda video: video.astype(np.float64) / 255,
    "grey pictures": lambda video: [Image.fromarray(frame[..., 0]) for frame in video],
    "pictures with transparency": lambda video: [Image.fromarray(frame).convert("RGBA") for frame in video],
    "another order in memory": lambda video: np.asfortranarray(video),
    "turned": lambda video: video[:, ::-1].copy()[:, ::-1],
}


@settings(max_examples=120)
@given(
    form=st.sampled_from(sorted(DECODED)),
    num_frames=st.integers(1, 4),
    height=st.integers(4, 70),
    width=st.integers(4, 70),
    num_videos=st.integers(1, 2),
    options=SETTINGS,
)
def test_decoded_frames_whatever_their_form_and_the_settings(form, num_frames, height, width, num_videos, options):
    videos = [DECODED[form](random_video(num_frames, height, width, seed)) for seed in range(num_videos)]
    assert_as_stock(videos if num_videos > 1 else videos[0], options)


@settings(max_examples=60)
@given(
    num_frames=st.integers(1, 3), height=st.integers(4, 70), width=st.integers(4, 70), options=SETTINGS,
    in_settings=st.booleans(),
)  # fmt: skip
def test_settings_of_the_processor_hold_as_those_of_a_call(num_frames, height, width, options, in_settings):
    own = {name: options.pop(name) for name in list(options) if name not in ("return_metadata", "crop_size")}
    own.pop("do_center_crop", None)
    stock = LlavaOnevisionVideoProcessor(**{"size": {"height": 24, "width": 24}, **own})
    assert_as_stock(random_video(num_frames, height, width), options, stock)


def test_videos_of_several_sizes_and_lengths():
    assert_as_stock([random_video(2, 30, 40), random_video(3, 50, 20)], {"return_metadata": True})


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_numbers_of_channels_are_stocks_business(channels):
    assert_as_stock(random_video(2, 30, 40, channels=channels), {})


def test_pictures_of_several_sizes_are_refused_as_by_stock():
    assert assert_as_stock([*as_pictures(random_video(1, 30, 40)), *as_pictures(random_video(1, 20, 40))], {}) is None


def test_frames_are_chosen_as_by_stock():
    metadata = [{"total_num_frames": 12, "fps": 4.0}]
    options = {"do_sample_frames": True, "num_frames": 5, "video_metadata": metadata}
    assert len(assert_as_stock(random_video(12, 30, 40), options)["pixel_values_videos"][0]) == 5


def test_a_processor_that_somebody_derived_sees_whole_videos():
    class Derived(LlavaOnevisionVideoProcessor):
        def _preprocess(self, videos, **options):
            return super()._preprocess([video.flip(0) for video in videos], **options)

    assert_as_stock(random_video(4, 30, 40), {}, Derived(size={"height": 24, "width": 24}))


@pytest.mark.parametrize("form", ["array", "tensor", "pictures"])
def test_the_device_is_honoured(form):
    """The meta device stands for one that is not the CPU."""
    moved = DECODED[form](random_video(3, 30, 40))
    ours = make_pixel_values(STOCK, moved, {"device": "meta", "do_normalize": False}, None, DEFAULT_LIMITS)
    (pixels,) = ours["pixel_values_videos"]
    assert (pixels.device.type, pixels.shape) == ("meta", (3, 3, 24, 24))


# --- Files ------------------------------------------------------------------------------------------

CLIPS = {
    "yuv420p": {"options": {**B_FRAMES, **SHORT_GOPS}},
    "odd": {"size": (161, 97), "pix_fmt": "yuv444p"},
    "grey": {"pix_fmt": "gray"},
    "ten bits": {"pix_fmt": "yuv420p10le"},
}
TURNS = {0: "upright", 2: "mirrored", 3: "upside down", 6: "turned"}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    clips = [write_clip(folder / f"{name}.mkv", 26, **kind) for name, kind in CLIPS.items()]
    for orientation in TURNS:
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation or 1
        Image.fromarray(random_video(1, 50, 70)[0]).save(buffer, "jpeg", exif=exif)
        (folder / f"{orientation}.jpg").write_bytes(buffer.getvalue())
        clips.append(folder / f"{orientation}.jpg")
    return [str(clip) for clip in clips]


@settings(max_examples=60)
@given(data=st.data(), num_frames=st.integers(1, 26), options=SETTINGS, num_cores=st.sampled_from([1, 4]))
def test_files_whatever_the_settings(sources, data, num_frames, options, num_cores):
    source = data.draw(st.sampled_from(sources))
    options = {**options, "do_center_crop": False}
    frames, metadata = read_video(source, num_frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel_decoding, "_num_cores", lambda: num_cores)
        ours = make_pixel_values(STOCK, [source], {**options, "num_frames": num_frames}, None, DEFAULT_LIMITS)
    right = STOCK([frames], video_metadata=[metadata], **options)
    assert ours.keys() == right.keys()
    assert torch.equal(ours["pixel_values_videos"][0], right["pixel_values_videos"][0])
    if "video_metadata" in right:
        assert list(map(dict, ours["video_metadata"])) == list(map(dict, right["video_metadata"]))


@pytest.mark.parametrize("form", ["file", "array", "pictures"])
def test_frames_at_full_size_are_never_all_in_memory(form, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 40, size=(640, 480), options=SHORT_GOPS)
    frames, _ = read_video(clip, 32)
    prepare = functools.partial(make_pixel_values, STOCK, options={}, default_num_frames=32, limits=DEFAULT_LIMITS)
    videos = [str(clip)] if form == "file" else [DECODED[form](frames)]
    prepare(videos=videos)
    tracemalloc.start()
    try:
        prepare(videos=videos)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 0.3 * frames.nbytes


def test_bicubic_on_bytes_is_taken_as_it_lies(monkeypatch):
    """Where the order in memory makes no difference, it costs no copy."""
    taken = []
    preprocess = LlavaOnevisionVideoProcessor.preprocess

    def spy(self, videos, **options):
        taken.append(videos[0].is_contiguous())
        return preprocess(self, videos, **options)

    monkeypatch.setattr(LlavaOnevisionVideoProcessor, "preprocess", spy)
    for options in ({}, {"resample": PILImageResampling.BILINEAR}):
        make_pixel_values(STOCK, random_video(1, 30, 40), options, None, DEFAULT_LIMITS)
    assert taken == [False, True]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_nothing(dtype):
    """Weights that load in another thread set it, and a video may be read meanwhile."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 30, 51, 3), np.uint8)
    expected = make_pixel_values(STOCK, [frames], {}, None, DEFAULT_LIMITS)["pixel_values_videos"][0]
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        values = make_pixel_values(STOCK, [frames], {}, None, DEFAULT_LIMITS)["pixel_values_videos"][0]
    finally:
        torch.set_default_dtype(before)
    assert values.dtype == expected.dtype
    assert torch.equal(values, expected)
