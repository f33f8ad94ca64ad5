"""The commands on checkpoints of the Qwen-VL family: generate and visualize answer, encode and chat refuse."""

import json
import re

import numpy as np
import pytest
import torch
from command_results import assert_one_line
from numbered_clips import draw_frame, read_number, write_clip
from PIL import Image
from qwen_vl_hosts import HOSTS, our_model, processor_of, stock_model
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from aot_llava_cli.__main__ import app
from aot_llava_cli.drawing.compressed_qwen_video import compress, read_frames
from aot_llava_cli.drawing.frame_picture import GLOBAL_ANCHOR, LOCAL_ANCHOR, paint_anchors
from modeling_aot_llava.qwen_vl_encoding import encode_video

SIZE, RATE, NUM_FRAMES = (80, 48), 10, 40


def run(command, *arguments):
    return CliRunner().invoke(app, [command, *map(str, arguments)], prog_name="aot-llava")


@pytest.fixture(scope="module", params=HOSTS)
def checkpoint(request, tmp_path_factory):
    host = HOSTS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    our_model(host, stock_model(host)).save_pretrained(folder)
    processor_of(host).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=NUM_FRAMES, rate=RATE, size=SIZE)


def loaded(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)


def asked_by_hand(checkpoint, clip, prompt, **sampling):
    """The answer, and the placeholders of the whole video and of what was kept."""
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(checkpoint),
        AutoProcessor.from_pretrained(checkpoint),
    )
    content = [{"type": "video", "path": str(clip)}, {"type": "text", "text": prompt}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=sampling,
    )
    answer = model.generate(**inputs, max_new_tokens=5, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    kept = int((inputs["input_ids"] == model.config.video_token_id).sum())
    return processor.decode(answer, skip_special_tokens=True), int(inputs["video_grid_thw"].prod()) // 4, kept


@pytest.mark.parametrize(
    ("options", "sampling"), [([], {"fps": 2.0}), (["--num-frames", 6], {"num_frames": 6, "fps": None})]
)
def test_generate_streams_the_models_answer_and_counts_its_tokens(checkpoint, clip, options, sampling):
    expected, whole, kept = asked_by_hand(checkpoint, clip, "What?", **sampling)
    result = run("generate", clip, "--model", checkpoint, "--prompt", "What?", "--max-new-tokens", 5, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{expected}\n"
    assert f"Video tokens {whole} → {kept} ({kept / whole:.1%})" in result.stderr


def test_generate_takes_several_questions_and_another_ratio(checkpoint, clip):
    prompts = [part for prompt in ("What?", "And then?") for part in ("--prompt", prompt)]
    options = ["--model", checkpoint, "--max-new-tokens", 5, "--retention-ratio", 0.5]
    alone = [run("generate", clip, *options, "--prompt", prompt).stdout for prompt in ("What?", "And then?")]
    result = run("generate", clip, *options, *prompts)
    assert result.stdout == "".join(alone)
    assert "(50.0%)" in result.stderr


def test_visualize_draws_what_the_model_keeps(checkpoint, clip, tmp_path):
    result = run("visualize", clip, "--model", checkpoint, "--output", tmp_path / "a.png", "--html", "--num-frames", 8)
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "a.png").size[0] > 500
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', (tmp_path / "a.html").read_text())[1])
    assert len(facts["frames"]) == 4
    assert facts["tokenGrid"] == facts["patchGrid"] == [6, 10]
    assert all(len(frame["tokens"]) == 60 for frame in facts["frames"])
    kept = sum(frame["tokens"].count(str(facts["tokenParts"].index("kept"))) for frame in facts["frames"])
    assert f"Video tokens 240 → {kept} " in result.stderr


def test_the_map_is_of_the_tokens_that_are_kept_and_the_pictures_of_their_frames(checkpoint, clip):
    model, processor = (
        AutoModelForImageTextToText.from_pretrained(checkpoint),
        AutoProcessor.from_pretrained(checkpoint),
    )
    frames = read_frames(processor, clip, 8)
    video = compress(model, processor, clip, frames)
    inputs = frames.inputs
    with torch.no_grad():
        grid, pixels = inputs["video_grid_thw"][0].tolist(), inputs["pixel_values_videos"]
        expected = encode_video(model.model, pixels, tuple(grid), video.tokens_after).is_kept
    kept = torch.from_numpy(np.stack([frame.kept for frame in video.frames]))
    assert torch.equal(kept.flatten(1), expected)
    numbers = [read_number(np.asarray(picture)) for picture in video.pictures]
    assert len(numbers) == 4
    assert numbers[0] == 0
    assert all(later - number >= 8 for number, later in zip(numbers, numbers[1:]))
    painted = np.asarray(paint_anchors(Image.fromarray(draw_frame(0, *SIZE)), video.frames[0], (200, 120)))
    for colour, anchors in ((LOCAL_ANCHOR, "local_anchors"), (GLOBAL_ANCHOR, "global_anchors")):
        # The outer pixels of a cell of 20 x 20 are its colour where it is an anchor, and of no other's.
        outlined = (painted[::20, 10::20] == colour).all(-1)
        assert np.array_equal(outlined, getattr(video.frames[0], anchors))


def test_what_is_made_of_encoded_videos_is_refused_in_one_line(checkpoint, clip, tmp_path):
    options = ["--model", checkpoint]
    assert_one_line(run("encode", clip, "--output", tmp_path / "out", *options), 1, "one of LLaVA-OneVision or")
    assert not (tmp_path / "out").exists()
    assert_one_line(run("chat", clip, *options), 1, "one of LLaVA-OneVision or LLaVA-Video is needed")
    assert_one_line(run("visualize", clip, *options, "--retention-ratio", "0.999"), 1, "keeps every video token")
