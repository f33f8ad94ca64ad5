"""Frames are those of plain decoding to the bit, however little is decoded and on however many cores."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numbered_clips import B_FRAMES, SHORT_GOPS, av, read_number, write_clip
from test_video_reading import FRAGMENTS, HEVC, KINDS, KINDS_WITHOUT_TIMES, OPEN_GOPS, cut_front

from modeling_aot_llava import parallel_decoding, video_decoding
from modeling_aot_llava.upright_frames import StackedFrames
from modeling_aot_llava.video_reading import read_frames, read_video

INTERLACED = {"x264-params": "interlaced=1:keyint=12:bframes=3:scenecut=0"}
MORE_KINDS = {
    "interlaced.mp4": {"options": INTERLACED},
    "interlaced.ts": {"options": INTERLACED},
    "hevc.ts": {"codec": "libx265", "options": HEVC},
    "hevc.mkv": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=20:bframes=4:b-pyramid=1"}},
    "hevc in layers.mp4": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:keyint=20:temporal-layers=3:bframes=4"},
    },
    "pyramid.mkv": {"options": {"x264-params": "b-pyramid=normal:bframes=8:keyint=30:ref=4:scenecut=0"}},
    "no pyramid.mp4": {"options": {"x264-params": "b-pyramid=none:bframes=8:keyint=30:scenecut=0:weightp=2"}},
    "mpeg2.ts": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "vp9 in fragments.mp4": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "g": "9"}},
    "fragments.mov": {"options": {**B_FRAMES, **SHORT_GOPS}, "container_options": FRAGMENTS},
    "av1.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "g": "12"}},
}
ALL_KINDS = {**KINDS, **KINDS_WITHOUT_TIMES, **MORE_KINDS}


@pytest.fixture(params=[1, 4])
def cores(request, monkeypatch):
    monkeypatch.setattr(parallel_decoding, "_num_cores", lambda: request.param)
    return request.param


def decode_plainly(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_frames_are_those_of_plain_decoding(kind, tmp_path, monkeypatch):
    try:
        path = write_clip(tmp_path / kind, **ALL_KINDS[kind])
    except av.error.FFmpegError:
        pytest.skip("no encoder for it here")
    plain = decode_plainly(path)
    for num_cores in (1, 4):
        monkeypatch.setattr(parallel_decoding, "_num_cores", lambda num_cores=num_cores: num_cores)
        for num_frames in (3, 7, 20):
            frames, metadata = read_video(path, num_frames)
            np.testing.assert_array_equal(frames, np.stack([plain[index] for index in metadata.frames_indices]))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Clips of kinds that frames are left out of, with plainly decoded frames."""
    folder = tmp_path_factory.mktemp("clips")
    kinds = ("short gops.mp4", "open gops.ts", "hevc.mp4", "pyramid.mkv", "interlaced.mp4")
    paths = [write_clip(folder / kind, **ALL_KINDS[kind]) for kind in kinds]
    return [(path, decode_plainly(path)) for path in paths]


@settings(max_examples=40)
@given(st.data())
def test_whichever_frames_are_asked_for(clips, data):
    path, plain = data.draw(st.sampled_from(clips))
    indices = sorted(data.draw(st.sets(st.integers(0, len(plain) - 1), min_size=1)))
    frames, _ = read_frames(path, indices)
    np.testing.assert_array_equal(frames, np.stack([plain[index] for index in indices]))


def test_frames_are_decoded_exactly_where_leaving_some_out_misleads(tmp_path, monkeypatch):
    exact = []
    decode = video_decoding.decode_run_exactly
    monkeypatch.setattr(parallel_decoding, "decode_run_exactly", lambda *a: exact.append(1) or decode(*a))
    for kind in ("long gop.mp4", "h264.mkv", "hevc.mp4", "vp9.webm", "short gops.ts"):
        read_video(write_clip(tmp_path / kind, **ALL_KINDS[kind]), 7)
        assert not exact, kind
    read_video(write_clip(tmp_path / "interlaced.mp4", **ALL_KINDS["interlaced.mp4"]), 7)
    assert exact


def test_a_recording_that_begins_amid_a_gop(tmp_path, cores):
    path = cut_front(write_clip(tmp_path / "clip.ts", options=OPEN_GOPS))
    numbers = [read_number(frame) for frame in read_video(path, None)[0]]
    frames, metadata = read_video(path, 9)
    assert [read_number(frame) for frame in frames] == [numbers[index] for index in metadata.frames_indices]


# --- Side by side -----------------------------------------------------------------------------------


def long_clip(folder):
    return write_clip(folder / "clip.mp4", 240, options={**B_FRAMES, "g": "10", "sc_threshold": "0"})


@pytest.mark.parametrize("num_cores", [2, 3, 4, 64])
def test_runs_are_decoded_side_by_side_where_cores_allow(num_cores, tmp_path, monkeypatch):
    names, threads = set(), threading.active_count()
    take = StackedFrames.__call__

    def spy(store, *args):
        names.add(threading.current_thread().name)
        take(store, *args)

    monkeypatch.setattr(parallel_decoding, "_num_cores", lambda: num_cores)
    monkeypatch.setattr(StackedFrames, "__call__", spy)
    frames, _ = read_video(long_clip(tmp_path), 8)
    assert [read_number(frame) for frame in frames] == [0, 34, 68, 102, 136, 170, 204, 239]
    assert (names == {"aot-video"}) == (num_cores > 2)
    assert threading.active_count() == threads


@pytest.mark.parametrize("place", [0, 5])
def test_an_error_in_one_thread_ends_all(place, tmp_path, monkeypatch):
    threads, take = threading.active_count(), StackedFrames.__call__

    def fail(store, position, image):
        if position == place:
            raise MemoryError("no room")
        take(store, position, image)

    monkeypatch.setattr(parallel_decoding, "_num_cores", lambda: 4)
    monkeypatch.setattr(StackedFrames, "__call__", fail)
    with pytest.raises(MemoryError, match="no room"):
        read_video(long_clip(tmp_path), 8)
    assert threading.active_count() == threads
