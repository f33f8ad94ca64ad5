"""`python -m benchmarks.first_token`: files are what they say, rows add up, readers read the same frames."""

import json

import numpy as np
import pytest

from benchmarks.first_token.__main__ import main
from benchmarks.first_token.clip_files import ClipFile
from benchmarks.first_token.options import parse_options
from benchmarks.first_token.readers import OURS, installed_readers, measure_reader

av = pytest.importorskip("av")

CLIP = ClipFile("180p", 23, 50)
STAGES = ("vision_tower", "attention_received", "projector", "compression", "language_model", "rest")


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory):
    return CLIP.make(tmp_path_factory.mktemp("clips"))


def test_a_file_has_the_frames_and_keyframes_that_its_name_tells(clip_file):
    with av.open(str(clip_file)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 320, 180)
        packets = [packet for packet in container.demux(stream) if packet.pts is not None]
    assert len(packets) == 23 * 30
    shown = sorted((packet.pts * packet.time_base * 30, packet.is_keyframe) for packet in packets)
    assert [round(time) for time, _ in shown] == list(range(23 * 30))
    # Ten seconds are repeated, so the intervals begin anew every 300 frames.
    assert [round(time) for time, is_keyframe in shown if is_keyframe] == [*range(0, 690, 50)]


def test_a_repeated_file_shows_the_same_again(clip_file):
    ours = installed_readers()[OURS]
    first, again, other = ours(clip_file, np.array([7, 307, 350]))
    assert (first == again).all()
    assert (first != other).any()


def test_a_file_that_is_there_is_not_made_again(clip_file):
    before = clip_file.stat()
    assert CLIP.make(clip_file.parent) == clip_file
    assert clip_file.stat().st_mtime_ns == before.st_mtime_ns


def test_readers_read_the_frames_that_were_asked_for(clip_file):
    indices = np.array([0, 99, 689])
    with av.open(str(clip_file)) as container:
        decoded = [
            frame.to_ndarray(format="rgb24")
            for number, frame in enumerate(container.decode(video=0))
            if number in indices
        ]
    readers = installed_readers()
    assert {OURS, "load_video, pyav"} <= set(readers)
    for name in (OURS, "load_video, pyav"):
        sample = measure_reader(readers[name], clip_file, indices)
        assert (sample["frames"] == np.stack(decoded)).all(), name
        assert sample["seconds"] > 0
        assert sample["cpu_seconds"] > 0


def test_a_reader_that_fails_is_a_row(clip_file):
    def fail(file, indices):
        raise OSError("no such codec\nmore")

    assert measure_reader(fail, clip_file, np.array([0])) == {"error": "OSError: no such codec"}


def test_a_run_gives_tables_and_results(tmp_path, capsys):
    arguments = ["--sizes", "180p", "--seconds", "2", "--keyframes", "30", "--frames", "4", "--repeats", "1"]
    main([*arguments, "--frames-at-once", "2,4", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines()[3:-1])) <= 100
    report = json.loads((tmp_path / "first-token.json").read_text())
    (case,) = report["cases"]
    stock, small, large = case["contenders"]
    assert [each["name"] for each in case["contenders"]] == ["stock", "AOT 10%, 2 at once", "AOT 10%, 4 at once"]
    assert stock["prompt_tokens"]["median"] - small["prompt_tokens"]["median"] == 4 * 196 - 78
    assert stock["attention_received_seconds"]["median"] == stock["compression_seconds"]["median"] == 0
    for contender in case["contenders"]:
        parts = sum(contender[f"{stage}_seconds"]["median"] for stage in STAGES)
        assert parts == pytest.approx(contender["first_token_seconds"]["median"])
        whole = contender["reading_seconds"]["median"] + contender["preparing_seconds"]["median"]
        assert whole == pytest.approx(contender["pixels_seconds"]["median"])
    assert large["compression_seconds"]["median"] > 0
    ours = case["readers"][0]
    assert (ours["name"], ours["largest_difference"]) == (OURS, 0)
    assert (tmp_path / "first-token.png").read_bytes().startswith(b"\x89PNG")


def test_a_wrong_size_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        parse_options(["--sizes", "8k"], "it")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "it: argument --sizes: '8k' is none of 180p, 1080p, 4k\n"
