"""`aot-llava encode`, questions to what it wrote, and `aot-llava chat` through a real terminal."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
import torch
from command_results import assert_one_line
from random_checkpoint import save_random_checkpoint
from typer.testing import CliRunner

from aot_llava_cli import answer
from aot_llava_cli.__main__ import app
from aot_llava_cli.mini import MINI_CLIP, MINI_QUESTION
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration
from modeling_aot_llava.encoded_video import EncodedVideo

SMALL = {"vision_config": {"image_size": 56, "patch_size": 8}, "local_window_size": 3}


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], prog_name="aot-llava")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_random_checkpoint(folder, **SMALL)
    return folder


@pytest.fixture
def clips(tmp_path):
    for name in ("one.mp4", "two.mp4"):
        shutil.copy(MINI_CLIP, tmp_path / name)
    (tmp_path / "bad.mp4").write_text("not a video")
    return tmp_path


@pytest.fixture
def encodings(monkeypatch):
    """Counts the videos that were encoded."""
    calls, encode = [], AOTLlavaOnevisionForConditionalGeneration.encode_video

    def count(self, **inputs):
        calls.append(1)
        return encode(self, **inputs)

    monkeypatch.setattr(AOTLlavaOnevisionForConditionalGeneration, "encode_video", count)
    return calls


def test_a_bad_clip_does_not_stop_the_others_and_the_next_run_goes_on(clips, model, encodings):
    command = ["encode", clips / "one.mp4", clips / "bad.mp4", clips / "two.mp4", "-o", clips / "out"]
    options = ["--model", model, "--num-frames", 4]
    result = run(*command, *options)
    assert_one_line(result, 1, "1 of 3 clips could not be encoded")
    assert "bad.mp4 cannot be read as a video, for it is text" in result.stderr
    assert "3/3" in result.stderr
    written = clips / "out" / "one.aot.safetensors"
    assert sorted(file.name for file in (clips / "out").iterdir()) == ["one.aot.safetensors", "two.aot.safetensors"]
    encoded = EncodedVideo.load(written)
    assert encoded.num_frames == 4
    assert re.fullmatch(r"one\.mp4 \(sha256 [0-9a-f]{16}\)", encoded.source)  # and not where it lies
    assert encoded.frame_indices is not None
    assert encoded.frame_times is not None

    shutil.copy(MINI_CLIP, clips / "bad.mp4")
    before = written.stat().st_mtime_ns
    result = run(*command, *options)
    assert result.exit_code == 0, result.output
    assert len(encodings) == 3
    assert written.stat().st_mtime_ns == before
    (clips / "one.mp4").write_bytes(MINI_CLIP.read_bytes() + b"another")
    result = run(*command, *options)
    assert_one_line(result, 1, "1 of 3 clips")
    assert "one.mp4 is another video" in result.stderr
    assert written.stat().st_mtime_ns == before


def test_what_stands_in_the_folder_is_left_alone(clips, model):
    mine = clips / "out" / "one.aot.safetensors"
    mine.parent.mkdir()
    mine.write_bytes(b"my own")
    command = ["encode", clips / "one.mp4", "-o", mine.parent, "--model", model, "--num-frames", 2]
    assert_one_line(run(*command), 1, "1 of 1 clips")
    assert mine.read_bytes() == b"my own"
    mine.unlink()
    assert run(*command).exit_code == 0
    before = mine.read_bytes()
    result = run(*command, "--retention-ratio", 0.5)
    assert_one_line(result, 1, "1 of 1 clips")
    assert "encoded in another way" in result.stderr
    assert mine.read_bytes() == before


def test_two_clips_for_one_file_are_wrong_usage(clips):
    (clips / "other").mkdir()
    shutil.copy(MINI_CLIP, clips / "other" / "one.mkv")
    result = run("encode", clips / "one.mp4", clips / "other" / "one.mkv", "-o", clips / "out")
    assert_one_line(result, 2, "one.mp4 and", "would both be written to")
    assert not (clips / "out").exists()


def test_an_encoded_file_and_several_prompts_answer_as_the_clip(clips, model, encodings):
    options = ["--model", model, "--num-frames", 4, "--max-new-tokens", 5]
    first, second = (run("generate", clips / "one.mp4", "--prompt", text, *options) for text in ("What?", "Why?"))
    assert first.exit_code == 0, first.output
    both = run("generate", clips / "one.mp4", "--prompt", "What?", "--prompt", "Why?", *options)
    assert both.stdout == first.stdout + second.stdout
    assert len(encodings) == 1
    run("encode", clips / "one.mp4", "-o", clips, "--model", model, "--num-frames", 4)
    file = clips / "one.aot.safetensors"
    from_file = run("generate", file, "--prompt", "What?", "--prompt", "Why?", *options)
    assert from_file.stdout == both.stdout
    other = run("generate", file, "--prompt", "What?", *options, "--retention-ratio", 0.5)
    assert_one_line(other, 1, "encoded at a retention_ratio of 0.1, but the call asks for 0.5")
    file.write_bytes(file.read_bytes()[:-1])
    assert_one_line(run("generate", file, *options), 1, "one.aot.safetensors is cut short")


# --- chat


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "aot_llava_cli", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
        os.close(slave)
        self.text = ""

    def read_until(self, wanted, seconds=240):
        start, end = len(self.text), time.monotonic() + seconds
        while wanted not in self.text[start:]:
            if not select.select([self.master], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {wanted!r} in {self.text[start:]!r}")
            self.text += os.read(self.master, 4096).decode(errors="replace")
        return self.text[start:].replace("\r\n", "\n")

    def type(self, line):
        os.write(self.master, line.encode() + b"\n")


def test_a_chat_in_a_real_terminal(clips):
    """The mini model answers rightly; a second question goes on from the first, and each command does what it says."""
    terminal = Terminal("chat", clips / "one.mp4")
    try:
        assert "/quit ends" in terminal.read_until("\n> ")
        terminal.type(MINI_QUESTION)
        assert "\nright\n" in terminal.read_until("\n> ")
        terminal.type("/ratio 0.5")
        assert "Video tokens 1569" in terminal.read_until("\n> ")
        terminal.type("/ratio 7")
        assert "'7' is not a share of the tokens" in terminal.read_until("\n> ")
        terminal.type(f"/video {clips / 'bad.mp4'}")
        assert "cannot be read as a video" in terminal.read_until("\n> ")
        terminal.type(f"/video {clips / 'two.mp4'}")
        assert "Video tokens 315" in terminal.read_until("\n> ")
        terminal.type("/what")
        assert "/quit ends" in terminal.read_until("\n> ")
        terminal.type(MINI_QUESTION)
        assert "\nright\n" in terminal.read_until("\n> ")
        terminal.type("/quit")
        assert terminal.process.wait(60) == 0
    finally:
        terminal.process.kill()
        os.close(terminal.master)


def test_later_turns_go_on_from_one_cache(clips, model, capsys):
    """They are what the whole conversation without a cache gives."""
    from aot_llava_cli.conversation import Conversation

    llava, processor = answer.load(str(model), None)
    talk = Conversation(llava, processor, max_new_tokens=4, num_frames=4)
    talk.take("one", str(clips / "one.mp4"), None)
    widths = []
    handle = llava.model.language_model.register_forward_pre_hook(
        lambda _module, _args, given: widths.append(given["inputs_embeds"].shape[1]), with_kwargs=True
    )
    talk.ask("What?")
    first, asked = talk._ids, len(widths)
    talk.ask("And why?")
    handle.remove()
    new = talk._ids.shape[1] - first.shape[1]
    assert widths[asked] == new - 4 + 1  # the question, and the last token of the answer before
    inputs = processor(text=processor.video_token, videos=[talk._encoded], return_tensors="pt")
    inputs["input_ids"] = talk._ids[:, :-4]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    whole = llava.generate(**inputs, **answer.greedily(4)).sequences
    assert torch.equal(whole, talk._ids)
