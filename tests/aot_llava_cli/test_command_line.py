"""The command `aot-llava generate`, and the mini checkpoint and clip that it runs on when nothing is named."""

import json
import re
import shutil
import subprocess
import sys
import threading

import av
import numpy as np
import pytest
from command_results import assert_one_line
from PIL import Image
from random_checkpoint import save_random_checkpoint
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor
from typer.testing import CliRunner

from aot_llava_cli import answer
from aot_llava_cli.__main__ import app
from aot_llava_cli.mini import MINI_CHECKPOINT, MINI_CLIP, MINI_QUESTION
from mini_checkpoint.questions import ask, make_scene, render_clip

SUMMARY = re.compile(r"Video tokens (\d+) → (\d+) \((\d+\.\d)%\), first token after (\d+\.\d\d) s")


# The scene that the shipped clip shows: `save_clip(make_scene(MINI_SEED, "held_out"), MINI_CLIP)`.
MINI_SEED = 30_000_022


def run(*arguments):
    """Runs the command in this process."""
    return CliRunner().invoke(app, ["generate", *map(str, arguments)], prog_name="aot-llava")


def video_tokens(text):
    """The counts before and after, from the summary line."""
    before, after, *_ = SUMMARY.search(text).groups()
    return int(before), int(after)


# The main job


def test_the_program_alone_answers_right_from_a_tenth_of_the_tokens():
    command = [sys.executable, "-m", "aot_llava_cli", "generate"]
    result = subprocess.run(command, check=False, capture_output=True, text=True, encoding="utf-8")
    assert result.returncode == 0, result.stderr
    (question,) = [question for question in ask(make_scene(MINI_SEED, "held_out")) if question.text == MINI_QUESTION]
    assert result.stdout == f"{question.answer}\n"
    assert f"Question: {MINI_QUESTION}" in result.stderr
    assert "Mini model" in result.stderr
    assert "Mini clip" in result.stderr
    assert SUMMARY.fullmatch(result.stderr.splitlines()[-1])
    assert video_tokens(result.stderr) == (3136, 314)
    assert "(10.0%)" in result.stderr
    assert "Warning" not in result.stderr


def test_a_checkpoint_whose_generation_config_has_beams_answers_greedily(tmp_path):
    """Beams cannot be streamed."""
    answers = []
    for name in ("plain", "beams"):
        shutil.copytree(MINI_CHECKPOINT, tmp_path / name)
        if name == "beams":
            file = tmp_path / name / "generation_config.json"
            options = {
                **json.loads(file.read_text()),
                "num_beams": 4,
                "num_return_sequences": 2,
                "length_penalty": 2.0,
            }
            file.write_text(json.dumps(options))
        result = run(MINI_CLIP, "--prompt", MINI_QUESTION, "--model", tmp_path / name, "--num-frames", 4)
        assert result.exit_code == 0, result.output
        answers.append(result.stdout)
    assert answers[0] == answers[1] != ""


def test_every_option_takes_effect(tmp_path):
    video, model = tmp_path / "my clip.mp4", tmp_path / "stock"
    shutil.copy(MINI_CLIP, video)
    save_random_checkpoint(
        model,
        model_class=LlavaOnevisionForConditionalGeneration,
        processor_class=LlavaOnevisionProcessor,
        text_config={"num_hidden_layers": 1},
    )
    options = [
        "--model",
        model,
        "--retention-ratio",
        0.25,
        "--num-frames",
        8,
        "--max-new-tokens",
        5,
    ]
    result = run(video, "--prompt", "What moves?", *options)
    assert result.exit_code == 0, result.output
    assert video_tokens(result.stderr) == (1568, 392)
    assert "Question: What moves?" in result.stderr
    assert "Mini" not in result.stderr


def test_the_answer_depends_on_the_prompt():
    """One clip, two questions, two right answers."""
    asked = [question for question in ask(make_scene(MINI_SEED, "held_out")) if question.type in ("colour", "count")]
    answers = [run("--prompt", question.text).stdout.strip() for question in asked]
    assert answers == [question.answer for question in asked]


def test_a_named_model_is_asked_for_a_description():
    result = run("--model", MINI_CHECKPOINT, "--num-frames", 2)
    assert "Question: Describe the video." in result.stderr


def test_at_ratio_one_every_token_stays():
    result = run("--num-frames", 2, "--max-new-tokens", 1, "--retention-ratio", 1)
    assert video_tokens(result.stderr) == (392, 392)


def test_the_count_is_what_was_read_also_where_the_video_decides(tmp_path):
    """At a threshold of 1 all 34 tokens of a frame stay, though the prompt has 78 placeholders."""
    save_random_checkpoint(tmp_path, temporal_threshold=1.0)
    result = run("--model", tmp_path, "--num-frames", 4, "--max-new-tokens", 3)
    assert video_tokens(result.stderr) == (784, 4 * 34)


# What can go wrong


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["missing.mp4"], ["missing.mp4 does not exist", "Give the path of a video file"]),
        (["."], [". is a folder", "Give the path of a video file"]),
        (["--retention-ratio", "0"], ["--retention-ratio", "'0'", "above 0 up to 1"]),
        (["--retention-ratio", "1.5"], ["--retention-ratio", "1.5", "above 0 up to 1"]),
        (["--retention-ratio", "nan"], ["--retention-ratio", "nan", "above 0 up to 1"]),
        (["--retention-ratio", "some"], ["--retention-ratio", "'some'", "above 0 up to 1"]),
        (["--num-frames", "0"], ["--num-frames", "'0'", "1 or more"]),
        (["--num-frames", "1.5"], ["--num-frames", "'1.5'", "1 or more"]),
        (["--max-new-tokens", "-3"], ["--max-new-tokens", "'-3'", "1 or more"]),
        (
            ["--model", "./missing"],
            ["--model", "'./missing' does not exist", "Hub ID like owner/name"],
        ),
        (["--model", "missing"], ["--model", "'missing' does not exist", "Hub ID like owner/name"]),
    ],
)
def test_a_bad_argument_is_one_line_before_anything_is_loaded(arguments, parts, monkeypatch):
    monkeypatch.setattr(answer, "load_processor", lambda *_: pytest.fail("it loaded the checkpoint"))
    result = run(*arguments)
    assert_one_line(result, 2, *parts)
    assert len(result.stderr.splitlines()) == 1


def test_a_folder_without_a_checkpoint_is_named(tmp_path):
    assert_one_line(run("--model", tmp_path), 2, str(tmp_path), "has no config.json")


@pytest.mark.parametrize("kind", ["empty", "text", "truncated"])
def test_a_file_that_is_no_video_is_named(kind, tmp_path):
    video = tmp_path / f"{kind}.mp4"
    whole = MINI_CLIP.read_bytes()
    video.write_bytes({"empty": b"", "text": b"not a video", "truncated": whole[: len(whole) // 2]}[kind])
    assert_one_line(run(video), 1, str(video))


@pytest.mark.parametrize("command", ["generate", "visualize"])
def test_a_video_is_read_before_the_weights(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(answer, "load_model", lambda *_: pytest.fail("it loaded the weights"))
    (tmp_path / "text.mp4").write_text("not a video")
    result = CliRunner().invoke(app, [command, "text.mp4"], prog_name="aot-llava")
    assert_one_line(result, 1, "text.mp4 cannot be read as a video")
    assert [file.name for file in tmp_path.iterdir()] == ["text.mp4"]


def test_a_video_is_read_while_the_weights_load(monkeypatch):
    """Each waits for the other to have begun."""
    loads, reads = threading.Event(), threading.Event()
    load_model, read_question = answer.load_model, answer.read_question

    def load(*arguments):
        loads.set()
        assert reads.wait(60)
        return load_model(*arguments)

    def read(*arguments, **options):
        reads.set()
        assert loads.wait(60)
        return read_question(*arguments, **options)

    monkeypatch.setattr(answer, "load_model", load)
    monkeypatch.setattr(answer, "read_question", read)
    result = run("--max-new-tokens", 1)
    assert result.exit_code == 0, result.output
    assert not [thread for thread in threading.enumerate() if "ThreadPool" in thread.name]


def test_what_goes_wrong_while_reading_is_one_line(monkeypatch):
    def read(*_, **__):
        raise ValueError("clip.mp4 cannot be read: frame 7 is damaged.")

    monkeypatch.setattr(answer, "read_question", read)
    assert_one_line(run(), 1, "frame 7 is damaged")


def test_a_folder_of_pictures_is_a_video(tmp_path):
    for number in range(2):
        Image.new("RGB", (40, 40), (100 * number, 0, 0)).save(tmp_path / f"{number}.png")
    result = run(tmp_path, "--max-new-tokens", 1)
    assert result.exit_code == 0, result.output
    assert video_tokens(result.stderr)[0] == 2 * 196


@pytest.mark.parametrize(
    ("video", "parts"),
    [
        ("http://127.0.0.1:9/clip.mp4", ["http://127.0.0.1:9/clip.mp4 cannot be downloaded", "check the address"]),
        ("data:video/mp4;base64," + "A" * 20_000, ["data:video/mp4;base64,A", "cannot be read as a video"]),
        ("file:///missing/clip.mp4", ["file:///missing/clip.mp4 does not exist: check the path"]),
    ],
)
def test_an_address_that_cannot_be_read_is_one_short_line(video, parts):
    result = run(video)
    assert_one_line(result, 1, *parts)
    assert max(map(len, result.stderr.splitlines())) < 400


def test_damaged_weights_are_one_line(tmp_path):
    save_random_checkpoint(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert_one_line(run("--model", tmp_path), 1, str(tmp_path), "weights")


def test_another_kind_of_model_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    assert_one_line(run("--model", tmp_path), 1, str(tmp_path), "qwen2", "LLaVA-OneVision")


def test_control_c_ends_quietly(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(answer, "load_model", interrupted)
    result = run()
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_a_typing_error_is_answered_without_importing_torch():
    code = "import sys, aot_llava_cli.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# The mini clip


def test_the_mini_clip_shows_its_scene():
    scene = make_scene(MINI_SEED, "held_out")
    with av.open(str(MINI_CLIP)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(frames.astype(int) - render_clip(scene, len(frames)).astype(int)).mean() < 4
