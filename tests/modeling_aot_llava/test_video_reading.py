"""read_video returns exactly the frames it says, from every kind of file, and decodes few others.

A frame of the clips shows its number, see numbered_clips.py.
"""

import functools
import struct
import wave
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from numbered_clips import B_FRAMES, SHORT_GOPS, draw_frame, read_number, write_clip
from transformers.dynamic_module_utils import get_imports

from modeling_aot_llava import video_decoding, video_reading, video_stream
from modeling_aot_llava.video_reading import read_frames, read_video, uniform_frame_indices

av = pytest.importorskip("av")


def write_sound(path, codec, cover_codec=None):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44100)
        cover = container.add_stream(cover_codec, rate=25) if cover_codec else None
        if cover:
            cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
            picture = av.VideoFrame.from_ndarray(draw_frame(1, 64, 64), format="rgb24")
            container.mux([*cover.encode(picture), *cover.encode(None)])
        for start in range(0, 10 * 1152, 1152):
            samples = np.zeros((1, 1152), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_wave(path):
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    return path


def read_packets(path):
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def replace_bytes(path, start, new_bytes):
    data = bytearray(path.read_bytes())
    data[start : start + len(new_bytes)] = new_bytes
    path.write_bytes(data)
    return path


def assert_exact(path, num_frames, total=60, first_number=0):
    frames, metadata = read_video(path, num_frames)
    assert metadata.total_num_frames == total
    assert metadata.frames_indices == uniform_frame_indices(total, num_frames or total).tolist()
    assert [read_number(frame) - first_number for frame in frames] == metadata.frames_indices


OPEN_GOPS = {"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}
INTRA_REFRESH = {"x264-params": "intra-refresh=1:keyint=12"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
HEVC = {"x265-params": "log-level=none:keyint=12:open-gop=1"}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "12"}

KINDS = {
    "long gop.mp4": {"options": {**B_FRAMES, "g": "250"}},
    "short gops.mp4": {"options": {**B_FRAMES, **SHORT_GOPS}},
    "open gops.mp4": {"options": OPEN_GOPS},
    "intra refresh.mp4": {"options": INTRA_REFRESH},
    "fragments.mp4": {"options": {**B_FRAMES, **SHORT_GOPS}, "container_options": FRAGMENTS},
    "hevc.mp4": {"codec": "libx265", "options": HEVC},
    "mpeg4.mov": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "h264.mkv": {"options": {**B_FRAMES, **SHORT_GOPS}},
    "vp8.webm": {"codec": "libvpx", "options": VP9},
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "short gops.ts": {"options": {**B_FRAMES, **SHORT_GOPS}},
    "tiny gops.ts": {"options": {**B_FRAMES, "g": "2"}},
    "open gops.ts": {"options": OPEN_GOPS},
    "h264.flv": {"options": {**B_FRAMES, **SHORT_GOPS}},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"g": "12"}},
    "pictures.gif": {"codec": "gif", "pix_fmt": "rgb8", "rate": 25},
}
KINDS_WITHOUT_TIMES = {  # or with wrong ones
    "mpeg4 reordered.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "h264 reordered.avi": {"options": {**B_FRAMES, **SHORT_GOPS}},
    "mpeg2.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "elementary.h264": {"options": {**B_FRAMES, **SHORT_GOPS}},
}


@pytest.fixture
def seeking_only(monkeypatch):
    """Fails where the whole file would be decoded in order."""

    def fail(video):
        raise AssertionError(f"{video.file.name} is decoded in order")

    monkeypatch.setattr(video_reading, "index_by_order", fail)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("seeking_only")
def test_frames_are_exactly_those_asked_for(kind, tmp_path):
    path = write_clip(tmp_path / kind, **KINDS[kind])
    for num_frames in (1, 2, 7, 32, None):
        assert_exact(path, num_frames)


@pytest.mark.parametrize("kind", KINDS_WITHOUT_TIMES)
def test_frames_are_exact_without_times(kind, tmp_path):
    path = write_clip(tmp_path / kind, **KINDS_WITHOUT_TIMES[kind])
    for num_frames in (1, 2, 7, 32, None):
        assert_exact(path, num_frames)


def test_times_out_of_order_are_not_trusted(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", options={**B_FRAMES, **SHORT_GOPS})
    out_of_order = tmp_path / "clip.mkv"
    with av.open(str(path)) as source, av.open(str(out_of_order), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream, packet.pts = stream, packet.dts
                target.mux(packet)
    assert_exact(out_of_order, 32)
    assert_exact(out_of_order, None)


KINDS_WITH_PITFALLS = [
    *("short gops.mp4", "open gops.mp4", "h264.mkv", "vp9.webm", "short gops.ts", "open gops.ts"),
    *("h264 reordered.avi", "mpeg2.mpg"),
]


@pytest.mark.parametrize("kind", KINDS_WITH_PITFALLS)
def test_every_frame_can_be_had_alone(kind, tmp_path, monkeypatch):
    path = write_clip(tmp_path / kind, **{**KINDS, **KINDS_WITHOUT_TIMES}[kind])
    wanted = []
    monkeypatch.setattr(video_reading, "uniform_frame_indices", lambda *_: np.array(wanted))
    for number in range(60):
        wanted[:] = [number]
        frames, metadata = read_video(path)
        assert [read_number(frame) for frame in frames] == wanted == metadata.frames_indices


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_variable_frame_rate(suffix, tmp_path):
    times = np.cumsum([1, 3, 1, 1, 7, 2] * 10).tolist()  # 60 frames in 150 / 30 s
    path = write_clip(tmp_path / f"clip.{suffix}", times=times, options={**B_FRAMES, **SHORT_GOPS})
    for num_frames in (5, 20, None):
        assert_exact(path, num_frames)
    _, metadata = read_video(path)
    assert metadata.duration == pytest.approx(5.0, abs=0.05)
    assert metadata.fps == pytest.approx(12.0, rel=0.01)


def test_metadata(tmp_path):
    frames, metadata = read_video(write_clip(tmp_path / "clip.mp4", rate=25), num_frames=4)
    assert frames.shape == (4, 96, 160, 3)
    assert frames.dtype == np.uint8
    assert frames.flags.c_contiguous
    assert dict(metadata) == {
        "total_num_frames": 60,
        "fps": 25.0,
        "width": 160,
        "height": 96,
        "duration": pytest.approx(2.4),
        "video_backend": "pyav",
        "frames_indices": [0, 19, 39, 59],
    }


def test_ntsc_rate_is_the_containers(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", 50, rate=Fraction(30000, 1001))
    assert read_video(path)[1].fps == pytest.approx(30000 / 1001, rel=1e-9)


def test_frames_by_their_indices(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", options=B_FRAMES)
    frames, metadata = read_frames(clip, [0, 7, 8, 59])
    assert [read_number(frame) for frame in frames] == [0, 7, 8, 59]
    assert metadata.frames_indices == [0, 7, 8, 59]
    assert (metadata.total_num_frames, metadata.fps) == (60, 30)


@pytest.mark.parametrize("indices", [[], [3, 3], [4, 2], [-1, 2], [0.5], [[1]]])
def test_bad_indices(indices, tmp_path):
    with pytest.raises(ValueError, match="must be at least one integer, rising, from 0"):
        read_frames(tmp_path / "not looked at.mp4", indices)


def test_index_beyond_the_last_frame(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", num_frames=6)
    with pytest.raises(ValueError, match=r"clip\.mp4 has 6 frames: there is no frame 6, counted from 0"):
        read_frames(clip, [0, 6])


def test_clip_shorter_than_asked_for_gives_every_frame_once(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", num_frames=10)
    assert_exact(path, 32, total=10)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_one_frame(name, tmp_path):
    path = write_clip(tmp_path / name, num_frames=1)
    assert_exact(path, 32, total=1)
    assert_exact(path, None, total=1)
    assert len(read_video(path, None, fps=1)[0]) == 1


def test_picture_is_a_video_of_one_frame(tmp_path):
    path = write_clip(tmp_path / "picture.png", num_frames=1, codec="png", pix_fmt="rgb24")
    frames, metadata = read_video(path)
    np.testing.assert_array_equal(frames[0], draw_frame(0))
    assert metadata.total_num_frames == 1


@pytest.mark.parametrize(
    ("fps", "indices"),
    [
        (2, [0, 19, 39, 59]),
        (0.1, [0]),
        (1.7, [0, 29, 59]),
        (30, list(range(60))),
        (1000, list(range(60))),
        (float("inf"), list(range(60))),
    ],
)
def test_fps(fps, indices, tmp_path):
    path = write_clip(tmp_path / "clip.mp4")  # 2 s
    frames, metadata = read_video(path, num_frames=None, fps=fps)
    assert metadata.frames_indices == indices == [read_number(frame) for frame in frames]


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx264", "mp4", "yuv444p"),
        ("libvpx-vp9", "webm", "yuv420p"),
        ("libx264", "mp4", "gray"),
        ("libx264", "mkv", "yuv420p10le"),
    ],
)
def test_odd_sizes_gray_and_ten_bits(codec, suffix, pix_fmt, tmp_path):
    size = (160, 96) if pix_fmt == "yuv420p10le" else (161, 97)
    path = write_clip(tmp_path / f"clip.{suffix}", 20, codec, pix_fmt, size=size)
    frames, metadata = read_video(path)
    assert frames.shape == (20, *size[::-1], 3)
    assert (metadata.width, metadata.height) == size
    assert [read_number(frame) for frame in frames] == list(range(20))


def test_uniform_frame_indices():
    assert uniform_frame_indices(100, 4).tolist() == [0, 33, 66, 99]
    assert uniform_frame_indices(100, 1).tolist() == [0]
    assert uniform_frame_indices(3, 3).tolist() == [0, 1, 2]
    assert uniform_frame_indices(3, 32).tolist() == [0, 1, 2]
    for total in range(1, 80):
        for num_frames in range(1, total + 1):
            indices = uniform_frame_indices(total, num_frames)
            assert len(set(indices.tolist())) == num_frames


# --- Decoding little ------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch):
    """The times of all frames that decoders give out."""
    times = []
    decode = video_decoding._decode_from_next_keyframe

    def spy(*args):
        for time, frame in decode(*args):
            times.append(time)
            yield time, frame

    monkeypatch.setattr(video_decoding, "_decode_from_next_keyframe", spy)
    return times


@pytest.fixture
def sought(monkeypatch):
    """The times of all seeks."""
    times = []
    seek = video_decoding._seek

    def spy(video, time):
        times.append(time)
        seek(video, time)

    monkeypatch.setattr(video_decoding, "_seek", spy)
    return times


def test_long_clip_is_not_decoded_whole(tmp_path, decoded, sought):
    options = {**B_FRAMES, "g": "10", "sc_threshold": "0"}
    path = write_clip(tmp_path / "clip.mp4", 240, options=options)
    assert_exact(path, 5, total=240)  # 0, 59, 119, 179, 239: the last but the first end their GOPs
    assert len(decoded) < 1 + 4 * 10  # some of them nothing refers to
    assert decoded[0] == 0
    assert len(sought) == 4


def test_frames_of_one_gop_are_decoded_in_one_go(tmp_path, decoded, sought):
    path = write_clip(tmp_path / "clip.mp4", 100, options={**B_FRAMES, "g": "250"})
    assert_exact(path, 10, total=100)
    assert 10 < len(decoded) < 100
    assert not sought


def test_decoding_ends_with_the_last_frame_that_is_asked_for(tmp_path, decoded):
    path = write_clip(tmp_path / "clip.mp4", 100, codec="mpeg4", options={"g": "100"})
    frames, _ = read_frames(path, [3, 40])
    assert [read_number(frame) for frame in frames] == [3, 40]
    assert len(decoded) == 41


def test_all_frames_need_no_seek(tmp_path, decoded, sought):
    path = write_clip(tmp_path / "clip.mp4", options={**B_FRAMES, **SHORT_GOPS})
    assert_exact(path, None)
    assert len(decoded) == 60
    assert not sought


def test_mpeg_ts_is_not_decoded_whole(tmp_path, decoded):
    path = write_clip(tmp_path / "clip.ts", 240, options={**B_FRAMES, **SHORT_GOPS})
    assert_exact(path, 4, total=240)
    assert len(decoded) < 100


# --- Unusual files --------------------------------------------------------------------------------


@pytest.mark.usefixtures("seeking_only")
def test_trimmed_mp4_shows_what_its_edit_list_shows(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", 120, options={**B_FRAMES, "g": "24"})
    edit = path.read_bytes().index(b"elst") + 12
    _, start, rate = struct.unpack_from(">iiI", path.read_bytes(), edit)
    # Frames 30 to 59, amid the second GOP: 1000 ms from 30 frames of 512 ticks later on.
    replace_bytes(path, edit, struct.pack(">iiI", 1000, start + 30 * 512, rate))
    for num_frames in (1, 3, 7, None):
        assert_exact(path, num_frames, total=30, first_number=30)
    assert read_video(path)[1].duration == pytest.approx(1.0)


def cut_front(path):
    """Takes away the first quarter of the packets of an MPEG-TS."""
    data = path.read_bytes()
    path.write_bytes(data[len(data) // 4 // 188 * 188 :])
    return path


@pytest.mark.parametrize("options", [{**B_FRAMES, **SHORT_GOPS}, OPEN_GOPS])
@pytest.mark.usefixtures("seeking_only")
def test_recording_that_begins_amid_a_gop(options, tmp_path):
    path = cut_front(write_clip(tmp_path / "clip.ts", options=options))
    numbers = [read_number(frame) for frame in read_video(path, None)[0]]
    assert numbers == list(range(numbers[0], 60))
    assert numbers[0] in (12, 24)
    assert [read_number(frame) for frame in read_video(path, 2)[0]] == [numbers[0], 59]


def test_recording_that_begins_amid_an_intra_refresh(tmp_path):
    path = cut_front(write_clip(tmp_path / "clip.ts", options=INTRA_REFRESH))
    numbers = [read_number(frame) for frame in read_video(path, None)[0]]
    assert numbers == list(range(numbers[0], 60))
    assert [read_number(frame) for frame in read_video(path, 2)[0]] == [numbers[0], 59]


def test_recordings_one_after_the_other_whose_times_begin_anew(tmp_path):
    path = write_clip(tmp_path / "clip.ts", options=SHORT_GOPS)
    path.write_bytes(3 * path.read_bytes())
    for num_frames in (1, 2, None):
        frames, metadata = read_video(path, num_frames)
        assert metadata.total_num_frames == 180
        assert [read_number(frame) for frame in frames] == [i % 60 for i in metadata.frames_indices]


def test_size_that_changes_midway_is_scaled_to_the_first(tmp_path):
    small = write_clip(tmp_path / "small.ts", 20)
    large = write_clip(
        tmp_path / "large.ts", 20, size=(320, 192), times=list(range(30, 50)),
        container_options={"mpegts_copyts": "1"},
    )  # fmt: skip
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames, _ = read_video(both, None)
    assert frames.shape == (40, 96, 160, 3)
    assert [read_number(frame) for frame in frames] == 2 * list(range(20))


DISPLAY_MATRICES = {  # a, b, c, d of a pixel's way from (x, y) to (a x + c y, b x + d y)
    "upright": (1, 0, 0, 1),
    "turned right, as phones write it": (0, 1, -1, 0),
    "turned left": (0, -1, 1, 0),
    "upside down": (-1, 0, 0, -1),
    "mirrored": (-1, 0, 0, 1),
    "mirrored upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed upside down": (0, -1, -1, 0),
}


@pytest.mark.parametrize("name", DISPLAY_MATRICES)
def test_frames_come_out_upright(name, tmp_path):
    a, b, c, d = DISPLAY_MATRICES[name]
    path = write_clip(tmp_path / "clip.mp4", 3)
    frames, _ = read_video(path)
    matrix_in_header = path.read_bytes().index(b"tkhd") + 44
    fixed_point = [65536 * entry for entry in (a, b, 0, c, d, 0, 0, 0)]
    replace_bytes(path, matrix_in_header, struct.pack(">9i", *fixed_point, 1 << 30))
    upright, metadata = read_video(path)

    y, x = np.mgrid[:96, :160]
    to_x, to_y = a * x + c * y, b * x + d * y
    expected = np.empty((3, 96, 160, 3) if a else (3, 160, 96, 3), dtype=np.uint8)
    expected[:, to_y - to_y.min(), to_x - to_x.min()] = frames
    np.testing.assert_array_equal(upright, expected)
    assert (metadata.height, metadata.width) == expected.shape[1:3]


def test_tags_in_another_encoding(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", tags={"title": "TITLE OF THE CLIP"})
    replace_bytes(path, path.read_bytes().index(b"TITLE"), b"\xff\xfe\xe9\xff\xff")
    assert_exact(path, 5)


@pytest.mark.parametrize("name", ["http: 1.mp4", "ünïcode %03d.mp4"])
def test_file_names_that_ffmpeg_would_interpret(name, tmp_path, monkeypatch):
    write_clip(tmp_path / "clip.mp4").rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert_exact(name, 5)


def test_threads_do_not_disturb_each_other(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", options={**B_FRAMES, **SHORT_GOPS})
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda num_frames: assert_exact(path, num_frames), range(1, 13)):
            pass


# --- Errors ---------------------------------------------------------------------------------------


def empty_file(path):
    path.touch()
    return path


def directory(path):
    path.mkdir()
    return path


def text_file(path):
    path.write_text("Not a video.\n" * 100)
    return path


def noise_file(path):
    path.write_bytes(np.random.default_rng(0).bytes(20000))
    return path


def damaged_clip(path):
    write_clip(path, codec="mpeg4")
    packet = read_packets(path)[25]
    return replace_bytes(path, packet.pos + packet.size // 2, bytes(20))


def clip_without_keyframe(path):
    return cut_front(write_clip(path, options={"g": "250"}))


BAD_FILES = {
    "empty.mp4": (empty_file, "is empty: copy"),
    "directory.mp4": (directory, "is a directory: give the path"),
    "text.mp4": (text_file, "cannot be read as a video"),
    "text.txt": (text_file, "is text"),
    "text": (text_file, "cannot be read as a video"),
    "noise.mp4": (noise_file, "cannot be read as a video"),
    "sound.wav": (write_wave, "has no video stream"),
    "sound.mp3": (functools.partial(write_sound, codec="libmp3lame"), "has no video stream"),
    "sound.m4a": (functools.partial(write_sound, codec="aac"), "has no video stream"),
    "sound with cover.mp3": (
        functools.partial(write_sound, codec="libmp3lame", cover_codec="png"),
        "has no video stream",
    ),
    "no keyframe.ts": (clip_without_keyframe, "no frame that can be decoded|cannot be read"),
    "damaged.avi": (damaged_clip, "is damaged or cut short"),
}


def assert_refused(path, complaint, capfd):
    """With one sentence that names the file, and nothing from FFmpeg beside it."""
    capfd.readouterr()
    with pytest.raises(ValueError, match=complaint) as caught:
        read_video(path, num_frames=None)
    assert not isinstance(caught.value, av.error.FFmpegError)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(".")
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_file(name, tmp_path, capfd):
    write, complaint = BAD_FILES[name]
    assert_refused(write(tmp_path / name), complaint, capfd)


INDEX_IN_FRONT = {"movflags": "faststart"}
CUT_FILES = {
    "index behind.mp4": {"options": B_FRAMES},
    "index in front.mp4": {"options": B_FRAMES, "container_options": INDEX_IN_FRONT},
    "clip.mkv": {"options": B_FRAMES},
    "clip.webm": {"codec": "libvpx-vp9", "options": VP9},
}


@pytest.mark.parametrize("name", CUT_FILES)
def test_file_that_is_cut_short(name, tmp_path, capfd):
    path = write_clip(tmp_path / name, **CUT_FILES[name])
    data = path.read_bytes()
    for share in (0.01, 0.05, *np.linspace(0.1, 0.95, 14)):
        path.write_bytes(data[: int(len(data) * share)])
        assert_refused(path, "cut short|cannot be read|no video stream|no frame that can", capfd)


def test_file_that_is_cut_short_amid_a_packet(tmp_path, capfd):
    path = write_clip(tmp_path / "clip.avi", codec="mpeg4")
    packet = read_packets(path)[40]
    path.write_bytes(path.read_bytes()[: packet.pos + packet.size // 2])
    assert_refused(path, "is cut short after 41 frames: copy or download it again", capfd)


def test_file_of_whole_packets_that_is_cut_short(tmp_path, capfd):
    path = write_clip(tmp_path / "clip.mp4", container_options=INDEX_IN_FRONT, options=B_FRAMES)
    path.write_bytes(path.read_bytes()[: read_packets(path)[40].pos])
    assert_refused(path, "is cut short after 40 frames: copy or download it again", capfd)


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"no such/clip\.mp4 does not exist: check the"):
        read_video("no such/clip.mp4")


@pytest.mark.parametrize(
    ("sampling", "complaint"),
    [
        ({"num_frames": 0}, "num_frames=0 must be at least 1"),
        ({"num_frames": -3}, "num_frames=-3 must be at least 1"),
        ({"num_frames": None, "fps": 0}, "fps=0 must be above 0"),
        ({"num_frames": None, "fps": -1.5}, "fps=-1.5 must be above 0"),
        ({"num_frames": None, "fps": float("nan")}, "fps=nan must be above 0"),
        ({"num_frames": 8, "fps": 2}, "num_frames=8 and fps=2 exclude each other"),
    ],
)
def test_bad_sampling(sampling, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_video("whatever.mp4", **sampling)


def test_file_is_closed(tmp_path, monkeypatch):
    containers = []
    open_container = av.open

    def spy(*args, **kwargs):
        containers.append(open_container(*args, **kwargs))
        return containers[-1]

    path = write_clip(tmp_path / "clip.mkv", options=SHORT_GOPS)
    cut_path = tmp_path / "cut.mkv"
    cut_path.write_bytes(path.read_bytes()[:-500])
    monkeypatch.setattr(av, "open", spy)
    read_video(path)
    with pytest.raises(ValueError, match="cut short"):
        read_video(cut_path)
    assert len(containers) == 3
    for container in containers:
        with pytest.raises(AssertionError, match="not open"):
            container.seek(0)


def test_pyav_is_optional(monkeypatch):
    for module in (video_stream, video_decoding):
        assert "av" not in get_imports(module.__file__)
    monkeypatch.setattr(video_stream, "av", None)
    with pytest.raises(ImportError, match="pip install av"):
        read_video("clip.mp4")
