"""Whatever a video is given as, the same frames come out; and what cannot be read is named in one line."""

import base64
import functools
import http.server
import io
import logging
import threading
from pathlib import Path

import numpy as np
import pytest
import transformers
from numbered_clips import B_FRAMES, SHORT_GOPS, draw_frame, read_number, write_clip
from PIL import Image
from random_checkpoint import random_config, random_processor

from modeling_aot_llava import AOTLlavaOnevisionConfig, AOTLlavaOnevisionProcessor
from modeling_aot_llava.video_limits import VideoLimits
from modeling_aot_llava.video_reading import read_video

NUM_PICTURES = 12
EXPECTED = [0, 19, 39, 59]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("a folder") / "clip 1.mp4", options={**B_FRAMES, **SHORT_GOPS})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Their names sort otherwise as text: 10 before 2."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(NUM_PICTURES):
        Image.fromarray(draw_frame(number)).save(folder / f"frame {number}.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / ".hidden.png").write_text("no picture")
    return folder


class Server(http.server.BaseHTTPRequestHandler):
    """Answers without byte ranges, as Python's own server; what it does depends on the path."""

    requests = ()

    def do_GET(self):
        self.requests.append(self.path)
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/clip")
            self.end_headers()
        elif self.path in ("/clip", "/short", "/unmeasured"):
            self.send_response(200)
            if self.path != "/unmeasured":
                self.send_header("Content-Length", str(len(self.content)))
            self.end_headers()
            self.wfile.write(self.content[:1000] if self.path == "/short" else self.content)
        else:
            self.send_error(int(self.path[1:]))

    def log_message(self, *args):
        pass


@pytest.fixture
def address(clip):
    handler = type("Handler", (Server,), {"content": clip.read_bytes(), "requests": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", handler
        server.shutdown()


def in_base64(path):
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


FORMS = {
    "str": str,
    "Path": Path,
    "file address": lambda path: path.as_uri(),
    "data address": in_base64,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "BytesIO": lambda path: io.BytesIO(path.read_bytes()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_frames(form, clip):
    source = FORMS[form](clip)
    for _ in range(2):
        frames, metadata = read_video(source, 4)
        assert [read_number(frame) for frame in frames] == EXPECTED == metadata.frames_indices
    if isinstance(source, io.BytesIO):
        assert (source.tell(), source.closed) == (0, False)


@pytest.mark.parametrize("as_source", [str, Path, Path.as_uri])
def test_a_folder_of_pictures_is_read_in_the_order_of_names(as_source, pictures):
    frames, metadata = read_video(as_source(pictures), 4)
    assert [read_number(frame) for frame in frames] == [0, 3, 7, 11] == metadata.frames_indices
    assert (metadata.total_num_frames, metadata.fps) == (NUM_PICTURES, None)
    frames, _ = read_video(as_source(pictures), None)
    np.testing.assert_array_equal(frames, np.stack([draw_frame(number) for number in range(NUM_PICTURES)]))
    with pytest.raises(ValueError, match="a folder of pictures, does not tell its frame rate: pass num_frames"):
        read_video(as_source(pictures), None, fps=2)


@pytest.mark.parametrize("path", ["/clip", "/moved", "/unmeasured"])
def test_an_address_is_downloaded_once(path, address):
    root, handler = address
    frames, _ = read_video(root + path, 4)
    assert [read_number(frame) for frame in frames] == EXPECTED
    assert handler.requests.count("/clip" if path == "/moved" else path) == 1


@pytest.mark.parametrize("path", ["/clip", "/unmeasured"])
def test_a_download_has_a_limit(path, address):
    root, _ = address
    with pytest.raises(ValueError, match=f"{path} is larger than .* GiB.*download it and give the file"):
        read_video(root + path, limits=VideoLimits(max_bytes=2**12))


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("/404", r"cannot be downloaded \(HTTP 404.*\): check the address\.$"),
        ("/403", r"cannot be downloaded \(HTTP 403.*\): .*download it yourself"),
        ("/500", r"cannot be downloaded \(HTTP 500.*\): try again later"),
        ("/short", r"broke off after 1,000 of .* bytes: try again"),
    ],
)
def test_a_download_that_fails_names_the_remedy(path, complaint, address):
    with pytest.raises(ValueError, match=complaint) as caught:
        read_video(address[0] + path)
    assert "re-encode" not in str(caught.value)


def test_a_server_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:9/clip\.mp4 cannot be downloaded .*: check the address"):
        read_video("http://127.0.0.1:9/clip.mp4")


UNREADABLE = {
    "long data address": ("data:video/mp4;base64," + base64.b64encode(bytes(100_000)).decode(), "cannot be read as"),
    "broken base64": ("data:video/mp4;base64,?" + "A" * 1000, "is not valid base64"),
    "data address without content": ("data:video/mp4;base64", "has no content"),
    "empty data address": ("data:video/mp4;base64,", "is empty"),
    "empty bytes": (b"", "is empty: give the content"),
    "bytes": (bytes(100_000), "The video of 100,000 bytes in memory cannot be read as a video"),
    "BytesIO": (io.BytesIO(bytes(100_000)), "The video of 100,000 bytes in memory cannot be read as a video"),
    "file of another machine": ("file://other/clip.mp4", "is a file of another machine"),
    "long path": ("folder/" * 1000 + "clip.mp4", "does not exist: check the path"),
    "path with a line break": ("no such\nclip.mp4", "no such clip.mp4 does not exist"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_an_error_is_one_line_that_names_the_source(kind):
    source, complaint = UNREADABLE[kind]
    with pytest.raises((ValueError, FileNotFoundError), match=complaint) as caught:
        read_video(source)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("numbers", [(np.int64(4), None), (None, np.float32(2))])
def test_numpys_numbers_sample(numbers, clip):
    assert read_video(clip, *numbers)[1].frames_indices == EXPECTED


@pytest.mark.parametrize(
    "sampling", [{"num_frames": "8"}, {"num_frames": 2.5}, {"num_frames": True}, {"num_frames": None, "fps": "2"}]
)
def test_what_is_no_number_does_not_sample(sampling, clip):
    with pytest.raises(ValueError, match=r"(num_frames|fps)=.* must be"):
        read_video(clip, **sampling)


# --- Through the processor ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processor():
    small = {"vision_config": {"image_size": 56, "patch_size": 8}, "local_window_size": 3}
    return random_processor(AOTLlavaOnevisionProcessor, random_config(AOTLlavaOnevisionConfig, **small))


def from_template(processor, *videos, key="video", **options):
    content = [*({"type": "video", key: video} for video in videos), {"type": "text", "text": "What?"}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def call(processor, videos, **options):
    return processor(text="<video>", videos=videos, num_frames=4, return_tensors="pt", **options)


WAYS = {
    "alone": lambda processor, video: call(processor, video),
    "in a list": lambda processor, video: call(processor, [video]),
    "in lists": lambda processor, video: processor(
        text="<video>", videos=[[video]], num_frames=4, return_tensors="pt"
    ),
    "template": functools.partial(from_template, num_frames=4),
    "template, path": functools.partial(from_template, num_frames=4, key="path"),
    "template, url": functools.partial(from_template, num_frames=4, key="url"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("way", WAYS)
def test_the_processor_takes_every_form(form, way, processor, clip):
    expected = processor(text="<video>", videos=[str(clip)], num_frames=4, return_tensors="pt")["pixel_values_videos"]
    assert expected.shape[:2] == (1, 4)
    inputs = WAYS[way](processor, FORMS[form](clip))
    assert inputs["pixel_values_videos"].equal(expected)
    assert (inputs["input_ids"] == processor.video_token_id).sum() == 6 + 1  # a tenth of 4 * 16, and the newline


@pytest.mark.parametrize("way", WAYS)
def test_the_processor_takes_folders_and_addresses(way, processor, pictures, address):
    for source in (pictures, address[0] + "/moved"):
        assert WAYS[way](processor, source)["pixel_values_videos"].shape[:2] == (1, 4)


def test_forms_may_be_mixed(processor, clip, pictures):
    inputs = from_template(processor, clip, clip.read_bytes(), pictures, num_frames=4)
    assert inputs["pixel_values_videos"].shape[:2] == (3, 4)


@pytest.mark.filterwarnings("ignore:The image decoding:DeprecationWarning")  # transformers' way to open pictures
def test_a_video_may_be_a_list_of_paths_of_pictures(processor, pictures):
    paths = sorted(pictures.glob("frame*.png"))[:3]
    inputs = processor(text="<video>", videos=[[paths]], return_tensors="pt")
    assert inputs["pixel_values_videos"].shape[:2] == (1, 3)


def test_the_processors_limits_hold_and_those_of_a_call(clip, tmp_path):
    small = {"vision_config": {"image_size": 56, "patch_size": 8}, "local_window_size": 3}
    config = random_config(AOTLlavaOnevisionConfig, **small)
    random_processor(AOTLlavaOnevisionProcessor, config).save_pretrained(tmp_path)
    limited = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path, video_limits={"max_pixels": 160 * 96})
    limited.save_pretrained(tmp_path)
    limited = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path)
    for way in WAYS.values():
        with pytest.raises(ValueError, match=r"would give 4 frames of 160 x 96, .* which is max_pixels"):
            way(limited, str(clip))
    assert call(limited, str(clip), video_limits={})["pixel_values_videos"].shape[:2] == (1, 4)
    with pytest.raises(ValueError, match="video_limits has no 'max_pixel'"):
        call(limited, str(clip), video_limits={"max_pixel": 1})


# --- Options --------------------------------------------------------------------------------------


@pytest.fixture
def messages(caplog, monkeypatch):
    """What is logged: `messages()`."""
    transformers.logging.get_verbosity()  # configures the logger, once
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    transformers.utils.logging.warning_once.cache_clear()
    caplog.set_level(logging.WARNING, logger="transformers")  # the command line's tests silence it
    return lambda: caplog.messages


@pytest.mark.parametrize("sampling", [{"num_frames": 4}, {"fps": 2}, {"num_frames": 4, "fps": 2}])
def test_without_sampling_every_frame_is_read_and_what_is_ignored_said(sampling, processor, clip, messages):
    for inputs in (
        from_template(processor, clip, do_sample_frames=False, **sampling),
        processor(text="<video>", videos=[clip], do_sample_frames=False, return_tensors="pt", **sampling),
    ):
        assert inputs["pixel_values_videos"].shape[1] == 60
    for name, value in sampling.items():
        assert any(f"`{name}={value}` is ignored" in message for message in messages())


def test_an_option_that_does_not_exist_is_said_to_be_ignored(processor, clip, messages):
    from_template(processor, clip, num_frames=2, video_load_backend="decord")
    assert any("video_load_backend" in message and "ignored" in message for message in messages())


@pytest.mark.parametrize("options", [{"num_frames": np.int64(4)}, {"fps": np.float32(2)}])
def test_the_processor_takes_numpys_numbers(options, processor, clip):
    assert from_template(processor, clip, **options)["pixel_values_videos"].shape[1] == 4
    decoded = np.zeros((60, 40, 60, 3), dtype=np.uint8)
    metadata = [{"total_num_frames": 60, "fps": 30.0}]
    inputs = processor(
        text="<video>",
        videos=[decoded],
        video_metadata=metadata,
        do_sample_frames=True,
        retention_ratio=np.float32(0.5),
        return_tensors="pt",
        **options,
    )
    num_frames = inputs["pixel_values_videos"].shape[1]
    assert num_frames == 4
    assert (inputs["input_ids"] == processor.video_token_id).sum() == num_frames * 8 + 1
