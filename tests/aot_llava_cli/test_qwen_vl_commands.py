"""The commands on checkpoints of the Qwen-VL family."""

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
from aot_llava_cli.answer import greedily
from aot_llava_cli.conversation import Conversation
from aot_llava_cli.drawing.compressed_qwen_video import compress, read_frames
from aot_llava_cli.drawing.frame_picture import GLOBAL_ANCHOR, LOCAL_ANCHOR, paint_anchors
from aot_llava_cli.encoded_folder import is_done
from modeling_aot_llava.mrope_positions import modality_types
from modeling_aot_llava.qwen_vl_encoded_video import QwenVLEncodedVideo
from modeling_aot_llava.qwen_vl_encoding import encode_video
from modeling_aot_llava.qwen_vl_model import AOTQwenVLForConditionalGeneration

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


def test_visualize_refuses_what_keeps_every_token(checkpoint, clip):
    result = run("visualize", clip, "--model", checkpoint, "--retention-ratio", "0.999")
    assert_one_line(result, 1, "keeps every video token")


# --- encoded once, asked often


@pytest.fixture
def encodings(monkeypatch):
    """Counts the videos that were encoded."""
    calls, encode = [], AOTQwenVLForConditionalGeneration.encode_video

    def count(self, **inputs):
        calls.append(1)
        return encode(self, **inputs)

    monkeypatch.setattr(AOTQwenVLForConditionalGeneration, "encode_video", count)
    return calls


PROMPTS = ("--prompt", "What?", "--prompt", "And then?")


@pytest.mark.parametrize("of_video", [[], ["--num-frames", 6]])
def test_an_encoded_file_and_several_prompts_answer_as_the_clip(checkpoint, clip, tmp_path, encodings, of_video):
    options = ["--model", checkpoint, "--max-new-tokens", 5]
    alone = [run("generate", clip, *options, *of_video, *PROMPTS[first : first + 2]) for first in (0, 2)]
    both = run("generate", clip, *options, *of_video, *PROMPTS)
    assert both.stdout == "".join(result.stdout for result in alone)
    assert len(encodings) == 1
    result = run("encode", clip, "-o", tmp_path, "--model", checkpoint, *of_video)
    assert result.exit_code == 0, result.output
    file = tmp_path / "clip.aot.safetensors"
    for more in ([], of_video, ["--retention-ratio", 0.25]):
        from_file = run("generate", file, *options, *more, *PROMPTS)
        assert from_file.stdout == both.stdout
    (counts,) = set(re.findall(r"Video tokens \d+ → \d+", from_file.stderr))
    assert counts in both.stderr
    assert_one_line(run("generate", file, *options, "--retention-ratio", 0.5), 1, "but the call asks for 0.5")
    assert_one_line(run("generate", file, *options, "--num-frames", 10), 1, "call asks for num_frames=10")


def test_the_next_run_goes_on_and_what_was_encoded_otherwise_stays(checkpoint, clip, tmp_path, encodings):
    command = ["encode", clip, "-o", tmp_path, "--model", checkpoint]
    assert run(*command).exit_code == 0
    file = tmp_path / "clip.aot.safetensors"
    encoded, before = QwenVLEncodedVideo.load(file), file.read_bytes()
    assert re.fullmatch(r"clip\.mp4 \(sha256 [0-9a-f]{16}\)", encoded.source)
    assert encoded.source_size == SIZE[::-1]
    assert run(*command).exit_code == 0
    assert len(encodings) == 1
    for otherwise in (["--retention-ratio", 0.5], ["--num-frames", 6]):
        result = run(*command, *otherwise)
        assert_one_line(result, 1, "1 of 1 clips")
        assert "encoded in another way" in result.stderr
    model, processor = loaded(checkpoint)
    with torch.no_grad():
        next(model.model.visual.merger.parameters()).add_(1)
    with pytest.raises(ValueError, match=r"encoded in another way.*made by another model"):
        is_done(file, str(clip), model, processor, None)
    assert file.read_bytes() == before


def test_a_chat_answers_and_takes_another_ratio_and_video(checkpoint, clip, tmp_path):
    run("encode", clip, "-o", tmp_path, "--model", checkpoint)
    options = ["--model", checkpoint, "--max-new-tokens", 5]
    half = run("generate", clip, *options, "--retention-ratio", 0.5, "--prompt", "What?")
    first = run("generate", clip, *options, "--prompt", "What?")
    lines = ["What?", "/ratio 0.5", "What?", f"/video {tmp_path / 'clip.aot.safetensors'}", "What?", "/quit"]
    result = CliRunner().invoke(app, ["chat", str(clip), *map(str, options)], input="\n".join(lines))
    assert result.exit_code == 0, result.output
    assert result.stdout == first.stdout + half.stdout + first.stdout
    assert "Video tokens 120" in result.stderr  # of 4 frames of 60, at a half


@pytest.mark.parametrize("clips", ["uniform", "dynamic"])
def test_later_turns_go_on_from_one_cache(checkpoint, clip, clips, capsys):
    """They are what the whole conversation without a cache gives."""
    model, processor = loaded(checkpoint)
    model.config.clip_segmentation, model.config.dynamic_similarity_threshold = clips, 0.99
    talk = Conversation(model, processor, max_new_tokens=4, num_frames=8)
    talk.take("clip", str(clip), None)
    talk.ask("What?")
    talk.ask("And why?")
    inputs = processor(text=processor.video_token, videos=[talk._encoded], return_tensors="pt")
    inputs["input_ids"] = talk._ids[:, :-4]
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = modality_types(inputs["input_ids"], model.config)
    assert torch.equal(model.generate(**inputs, **greedily(4)).sequences, talk._ids)
