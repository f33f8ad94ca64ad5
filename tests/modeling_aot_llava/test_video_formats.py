"""Only what is a video is opened: no other of FFmpeg's formats, no other file, no address, no frame without bounds."""

import base64
import http.server
import io
import struct
import threading

import numpy as np
import pytest
from numbered_clips import B_FRAMES, SHORT_GOPS, av, draw_frame, read_number, write_clip
from PIL import Image

from modeling_aot_llava import video_sources, video_stream
from modeling_aot_llava.video_limits import VideoLimits
from modeling_aot_llava.video_reading import read_video
from modeling_aot_llava.video_sources import open_source
from modeling_aot_llava.video_stream import VIDEO_FORMATS, open_video


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A clip that nobody names to the reader, and picture frames beside it."""
    folder = tmp_path_factory.mktemp("secret")
    for number in range(3):
        Image.fromarray(draw_frame(number)).save(folder / f"picture{number}.png")
    write_clip(folder / "secret.ts", 5)
    return write_clip(folder / "secret.mp4", 5)


class Server(http.server.BaseHTTPRequestHandler):
    content = b""
    requests = ()

    def do_GET(self):
        self.requests.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def serve():
    """Serves bytes and gives their address: `serve(content)`; `serve.requests` says what was asked for."""
    handler = type("Handler", (Server,), {"requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def serve_content(content):
            handler.content = content
            return f"http://127.0.0.1:{server.server_port}/clip.mp4"

        serve_content.requests = handler.requests
        yield serve_content
        server.shutdown()


def saved(content, folder, name):
    path = folder / name
    path.write_bytes(content)
    return path


def in_a_folder(content, folder):
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    (pictures / "frame %01d.png").write_bytes(content)
    return pictures


FORMS = {
    "path": lambda content, folder, name, serve: str(saved(content, folder, name)),
    "bytes": lambda content, folder, name, serve: content,
    "file object": lambda content, folder, name, serve: io.BytesIO(content),
    "data address": lambda content, folder, name, serve: "data:video/mp4;base64," + base64.b64encode(content).decode(),
    "http": lambda content, folder, name, serve: serve(content),
    "folder of pictures": lambda content, folder, name, serve: in_a_folder(content, folder),
}

PLAYLISTS = {
    "list.ffconcat": "ffconcat version 1.0\nfile secret.mp4\n",
    "list.txt": "ffconcat version 1.0\nfile 'secret.mp4'\n",
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nsecret.ts\n#EXT-X-ENDLIST\n",
    "list.mpd": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1S"><Period><AdaptationSet mimeType="video/mp4"><Representation id="1" '
        'bandwidth="1"><BaseURL>{folder}/secret.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
    ),
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "list.imf.xml": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"></CompositionPlaylist>',
    "list.idx": "# VobSub index file, v7\nsize: 720x480\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 000\n",
    "list.srt": "1\n00:00:00,000 --> 00:00:01,000\nHello\n",
    "list.ass": "[Script Info]\nScriptType: v4.00+\n[Events]\n",
    "list.vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\nHello\n",
    "list.ffmeta": ";FFMETADATA1\ntitle=x\n",
    "list.lrc": "[00:00.00]Hello\n",
    "drawing.ans": "\x1b[31mred\x1b[0m" * 50,
    "drawing.svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="picture0.png"/></svg>',
    "drawing.xbm": "#define x_width 8\n#define x_height 1\nstatic unsigned char x_bits[] = { 0xff };\n",
    "stream.mjpg": "--boundary\r\nContent-Type: image/jpeg\r\nContent-Length: 4\r\n\r\n....\r\n",
    "graph.lavfi": "movie=secret.mp4",
    "address.rtsp": "rtsp://127.0.0.1/secret",
}


@pytest.mark.parametrize("form", FORMS)
def test_playlists_open_nothing(form, secret, serve, tmp_path, monkeypatch):
    monkeypatch.chdir(secret.parent)
    for name, text in PLAYLISTS.items():
        content = text.replace("{folder}", str(secret.parent)).encode()
        # Where relative names are looked for: beside the playlist.
        folder = tmp_path if form == "folder of pictures" else secret.parent
        source = FORMS[form](content, folder, name, serve)
        with pytest.raises(ValueError, match="cannot be read as a video") as caught:
            read_video(source)
        assert str(caught.value).endswith("."), name
    assert set(serve.requests) <= {"/clip.mp4"}


# The names that FFmpeg has for one of the formats on the list.
OTHER_NAMES = ("mov,mp4,m4a,3gp,3g2,mj2", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska,webm", "webm")


@pytest.fixture
def refused(monkeypatch):
    """Opens all files as a format, `refused(name, source)`, and says whether FFmpeg refused it for its list's sake."""
    forced = []
    open_container = av.open
    monkeypatch.setattr(av, "open", lambda *args, **options: open_container(*args, format=forced[0], **options))

    def open_as(name, source):
        forced[:] = [name]
        with av.logging.Capture() as messages, pytest.raises(ValueError, match=r"\.$"):
            read_video(source, 1)
        return any("not on whitelist" in text for _, _, text in messages)

    av.logging.set_level(av.logging.ERROR)
    yield open_as
    av.logging.set_level(None)


@pytest.mark.parametrize("form", FORMS)
def test_no_format_opens_but_those_that_are_listed(form, refused, serve, tmp_path, monkeypatch):
    content, listed = b"nothing of anything" * 9, set()
    monkeypatch.setattr(video_sources, "download", lambda address, file, limits: file.write(content))
    for name in sorted(av.formats_available):
        try:
            av.ContainerFormat(name, "r")
        except ValueError:
            continue  # FFmpeg writes it only
        source = FORMS[form](content, tmp_path, "clip", serve)
        if not refused(name, source):
            listed.add(name)
    assert listed <= {*VIDEO_FORMATS, *OTHER_NAMES}
    assert len(listed) >= len(VIDEO_FORMATS)


@pytest.mark.parametrize(
    "name", ["concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:secret.mp4", "pipe:0", "crypto:secret.mp4"]
)
def test_what_looks_like_a_protocol_is_the_name_of_a_file(name, secret, monkeypatch, tmp_path):
    monkeypatch.chdir(secret.parent)
    with pytest.raises(FileNotFoundError, match="does not exist: check the path"):
        read_video(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(secret.read_bytes())
    assert [read_number(frame) for frame in read_video(name)[0]] == list(range(5))


@pytest.mark.parametrize("name", ["picture%01d.png", "picture*.png", "picture?.png", "picture{0}.png"])
def test_what_looks_like_a_pattern_is_the_name_of_a_file(name, secret, monkeypatch):
    monkeypatch.chdir(secret.parent)
    with pytest.raises(FileNotFoundError, match="does not exist: check the path"):
        read_video(name)


def test_a_pattern_that_is_there_gives_its_own_picture_alone(secret, tmp_path):
    for number in range(3):
        Image.fromarray(draw_frame(number)).save(tmp_path / f"picture{number}.png")
    Image.fromarray(draw_frame(200)).save(tmp_path / "picture%01d.png")
    assert [read_number(frame) for frame in read_video(tmp_path / "picture%01d.png")[0]] == [200]


def with_external_data(clip, path):
    """An MP4 whose data reference names another file, as QuickTime's reference movies do."""
    data = clip.read_bytes()
    reference = data.index(b"dref")
    start = reference - 4
    address = b"file://" + str(clip).encode() + b"\0"
    entry = struct.pack(">I4sI", 12 + len(address), b"url ", 0) + address
    box = struct.pack(">I4sII", 16 + len(entry), b"dref", 0, 1) + entry
    (old_size,) = struct.unpack_from(">I", data, start)
    grown = bytearray(data[:start] + box + data[start + old_size :])
    for kind in (b"dinf", b"minf", b"mdia", b"trak", b"moov"):
        place = grown.rindex(kind, 0, start + 4) - 4
        size = struct.unpack_from(">I", grown, place)[0] + len(box) - old_size
        struct.pack_into(">I", grown, place, size)
    path.write_bytes(grown)
    return path


def test_a_movie_that_refers_to_another_file_reads_itself_alone(secret, tmp_path, monkeypatch):
    opened = []
    path = with_external_data(secret, tmp_path / "reference.mov")
    monkeypatch.setattr(video_stream, "_open_nothing_else", lambda address, *_: opened.append(address))
    with open_source(path) as file, open_video(file) as video:
        assert len(list(video.packets())) == 6
    assert not opened
    path.write_bytes(path.read_bytes().replace(b"mdat", b"free"))
    with open_source(path) as file, open_video(file) as video:
        list(video.packets())
    assert not opened


def test_nothing_that_a_file_refers_to_is_opened(secret, monkeypatch, tmp_path):
    """Also where a format would."""
    playlist = saved(b"ffconcat version 1.0\nfile secret.mp4\n", secret.parent, "trap.ffconcat")
    monkeypatch.chdir(secret.parent)
    monkeypatch.setattr(video_stream, "VIDEO_FORMATS", ("concat", "mov"))
    with pytest.raises((ValueError, PermissionError)):
        read_video(playlist)


# --- Limits -----------------------------------------------------------------------------------------


def test_frames_without_bounds(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", 10, size=(320, 192))
    limits = VideoLimits(max_pixels=5 * 320 * 192)
    assert len(read_video(clip, 5, limits=limits)[0]) == 5
    message = r"clip\.mp4 would give 6 frames of 320 x 192, more than 307,200 pixels, which is max_pixels: read fewer"
    with pytest.raises(ValueError, match=message):
        read_video(clip, 6, limits=limits)


@pytest.mark.parametrize(
    "kind", ["png", "tiff", "webp", "gif", "jpeg", "h264.mp4", "h264.ts", "vp8.webm", "mpeg4.avi"]
)
def test_a_frame_without_bounds_is_refused_before_it_is_decoded(kind, tmp_path):
    path = tmp_path / f"clip.{kind}"
    if "." in kind:
        codec = {"h264": "libx264", "vp8": "libvpx"}.get(kind.split(".")[0], "mpeg4")
        write_clip(path, 8, codec, size=(320, 192))
    else:
        Image.fromarray(draw_frame(1, 320, 192)).save(path)
    read_video(path, limits=VideoLimits(max_pixels_per_frame=320 * 192))
    with pytest.raises(ValueError, match="max_pixels_per_frame") as caught:
        read_video(path, limits=VideoLimits(max_pixels_per_frame=320 * 192 - 1))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_frames_that_grow_midway_are_bounded(tmp_path):
    small = write_clip(tmp_path / "small.ts", 20)
    large = write_clip(
        tmp_path / "large.ts", 20, size=(1280, 960), times=list(range(30, 50)),
        container_options={"mpegts_copyts": "1"},
    )  # fmt: skip
    both = saved(small.read_bytes() + large.read_bytes(), tmp_path, "both.ts")
    assert len(read_video(both, None)[0]) == 40
    with pytest.raises(ValueError, match=r"both\.ts .*\.$"):  # it is FFmpeg who refuses frames that are much larger
        read_video(both, None, limits=VideoLimits(max_pixels_per_frame=160 * 96))
    with pytest.raises(ValueError, match="frames of 1280 x 960, more than 1,000,000 pixels"):
        read_video(both, None, limits=VideoLimits(max_pixels_per_frame=1_000_000))


@pytest.mark.parametrize("form", ["bytes", "file object", "data address"])
def test_bytes_without_bounds(form, secret, serve, tmp_path):
    content = secret.read_bytes()
    source = FORMS[form](content, tmp_path, "clip.mp4", serve)
    assert len(read_video(source, limits=VideoLimits(max_bytes=len(content)))[0]) == 5
    with pytest.raises(ValueError, match=r"is larger than .* GiB, which is max_bytes: give the file, or raise it"):
        read_video(source, limits=VideoLimits(max_bytes=len(content) - 1))


@pytest.mark.parametrize("options", [{}, {"movflags": "frag_keyframe+empty_moov"}])
def test_more_frames_than_bytes(options, tmp_path):
    """FFmpeg would make room for them: 1.2 GB for a file of 2 KB."""
    path = write_clip(tmp_path / "clip.mp4", 10, container_options=options)
    content = bytearray(path.read_bytes())
    number = content.index(b"trun") + 8 if options else content.index(b"stsz") + 12
    assert struct.unpack_from(">I", content, number) == (10,)
    struct.pack_into(">I", content, number, 2**26)
    with pytest.raises(ValueError, match=r"is damaged: it names more frames and parts than its [\d,]+ bytes can hold"):
        read_video(bytes(content))


def test_boxes_without_end():
    with pytest.raises(ValueError, match="names more frames and parts than"):
        read_video(struct.pack(">I4s", 8, b"free") * 2**21)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"max_bytes": 0}, "max_bytes=0 must be at least 1"),
        ({"max_pixels": 2.5}, "max_pixels=2.5 must be at least 1, an integer"),
        ({"max_redirects": -1}, "max_redirects=-1 must be at least 0"),
        ({"max_download_seconds": 0}, "max_download_seconds=0 must be above 0"),
        ({"max_download_seconds": float("nan")}, "max_download_seconds=nan must be above 0"),
        ({"public_addresses_only": "no"}, "public_addresses_only='no' must be True or False"),
        ({"max_byte": 1}, "video_limits has no 'max_byte': there are max_bytes, "),
        ("max_bytes", "must be a dict"),
    ],
)
def test_limits_that_make_no_sense(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        VideoLimits.of(settings)


# --- What frames carry beside pixels ----------------------------------------------------------------

TURNS = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image.swapaxes(0, 1)[:, ::-1],
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", [None, *TURNS])
def test_pictures_with_exif_come_out_upright(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    if orientation:
        exif[0x0112] = orientation
    plain, tagged = tmp_path / f"plain.{suffix}", tmp_path / f"tagged.{suffix}"
    picture = Image.fromarray(draw_frame(11))
    picture.save(plain)
    picture.save(tagged, exif=exif)
    (frame,), _ = read_video(plain)
    (upright,), metadata = read_video(tagged)
    np.testing.assert_array_equal(upright, TURNS[orientation or 1](frame))
    assert (metadata.height, metadata.width) == upright.shape[:2]


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff"])
def test_exif_of_any_kind_of_picture_is_no_obstacle(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.fromarray(draw_frame(11)).save(tmp_path / f"picture.{suffix}", exif=exif)
    assert read_number(read_video(tmp_path / f"picture.{suffix}")[0][0]) == 11


def test_frames_of_a_clip_with_exif(tmp_path):
    """As cameras write motion JPEG."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray()
    for number in range(4):
        buffer = io.BytesIO()
        Image.fromarray(draw_frame(number)).save(buffer, "jpeg", exif=exif)
        content += buffer.getvalue()
    frames, _ = read_video(bytes(content), None)
    assert [read_number(np.rot90(frame)) for frame in frames] == list(range(4))


# --- Streams that appear midway ---------------------------------------------------------------------


def test_streams_that_appear_midway_are_left_alone(tmp_path):
    silent = write_clip(tmp_path / "silent.ts", 120, options={**B_FRAMES, **SHORT_GOPS})
    other = {"mpegts_start_pid": "512", "mpegts_pmt_start_pid": "300", "mpegts_service_id": "7"}
    with av.open(str(tmp_path / "sound.ts"), "w", options=other) as container:
        for sound in [container.add_stream("mp2", rate=44100) for _ in range(12)]:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            frame.sample_rate = 44100
            container.mux([*sound.encode(frame), *sound.encode(None)])
    both = saved(silent.read_bytes() + (tmp_path / "sound.ts").read_bytes(), tmp_path, "both.ts")
    with av.open(str(both)) as container, pytest.raises(IndexError):  # PyAV's own way with them
        list(container.demux(video=0))
    frames, metadata = read_video(both, 10)
    assert [read_number(frame) for frame in frames] == metadata.frames_indices
    assert metadata.total_num_frames == 120
