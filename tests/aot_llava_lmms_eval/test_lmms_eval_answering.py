"""Conversations of all kinds through one model, in batches; needs no lmms-eval."""

import pytest
import torch
from PIL import Image

from aot_llava_cli.mini import MINI_CHECKPOINT
from aot_llava_lmms_eval.answering import Answerer, settings_of
from aot_llava_lmms_eval.arguments import split_arguments
from aot_llava_lmms_eval.conversations import as_qwen_1_5, of_context
from aot_llava_lmms_eval.names import AOT
from mini_checkpoint.questions import make_scene, save_clip
from mini_checkpoint.questions.render import render_clip

OPTIONS = {"max_new_tokens": 4, "temperature": 0}


def answerer(method=AOT, **arguments):
    given = {"pretrained": str(MINI_CHECKPOINT), "max_frames_num": 4, "dtype": "float32", **arguments}
    return Answerer(method, *split_arguments(method, given, settings_of(method)), "cpu")


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    """Videos of two lengths, pictures, and a text alone; questions of several lengths."""
    folder = tmp_path_factory.mktemp("answering")
    scene = make_scene(0, "held_out")
    save_clip(scene, folder / "clip.mp4")
    pictures = [Image.fromarray(frame) for frame in render_clip(scene, 3)]
    (folder / "frames").mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / "frames" / f"{number}.png")
    clip, frames = str(folder / "clip.mp4"), str(folder / "frames")
    return [
        of_context("What colour is the circle? Answer with one word.", clip),
        of_context("What?", None),
        of_context("Which way does the blue circle move: left, right, up or down? Answer with one word.", clip),
        of_context("How many objects are there?", frames),
        of_context("Is it the same in <image> as in <image>?", pictures[:2]),
        of_context("What is it?", str(folder / "frames" / "0.png")),
    ]


@pytest.mark.parametrize("method", [AOT, "visionzip", "fastv"])
def test_batch_is_answered_as_each_alone(method, conversations):
    model = answerer(method)
    together = model.answer(conversations, OPTIONS)
    alone = [model.answer([conversation], OPTIONS)[0] for conversation in conversations]
    assert together == alone
    assert all(0 < answer.num_tokens <= 4 for answer in alone)
    assert len({answer.text for answer in alone}) > 1


def test_prompt_and_frames_are_those_asked_for(conversations, monkeypatch):
    model = answerer(conv_template="qwen_1_5", frame_sampling="llava_onevision", retention_ratio=0.25)
    seen = {}
    generate = model.model.generate
    monkeypatch.setattr(model, "_generate", lambda **inputs: (seen.update(inputs), generate(**inputs))[1])
    of_frames = conversations[3]
    model.answer([of_frames], OPTIONS)
    assert seen["pixel_values_videos"].shape[1] == 4  # of 3
    tokens = 4 * model.model.config.pooled_grid_size**2 + 1
    text = as_qwen_1_5(model.processor, of_frames).replace("<video>", "<video>" * tokens)
    assert torch.equal(seen["input_ids"], model.processor.tokenizer(text, return_tensors="pt").input_ids)


@pytest.mark.parametrize("method", [AOT, "visionzip", "fastvid", "fastv", "pdrop"])
def test_llava_video(method, conversations, monkeypatch):
    """Average pooling, newlines after each row, the sentence about the times: as its checkpoints have them."""
    layers = {"fastv": {"layer": 1}, "pdrop": {"layers": (1, 2)}}.get(method, {})
    model = answerer(
        method,
        mm_spatial_pool_mode="average",
        mm_newline_position="grid",
        frame_sampling="llava_vid",
        add_time_instruction=True,
        retention_ratio=0.5,
        **layers,
    )
    seen = {}
    generate = model._generate
    monkeypatch.setattr(model, "_generate", lambda **inputs: (seen.update(inputs), generate(**inputs))[1])
    together = model.answer([conversations[0], conversations[2]], OPTIONS)
    assert together == [model.answer([conversations[row]], OPTIONS)[0] for row in (0, 2)]
    side = model.model.config.pooled_grid_size
    video = model.processor.video_token * (4 * side * (side + 1))
    prompt = model.processor.decode(seen["input_ids"][0])
    assert f"{video}\nThe video lasts for 8.00 seconds, and 4 frames are uniformly sampled from it." in prompt


def test_settings_are_checked_before_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text((MINI_CHECKPOINT / "config.json").read_text())
    for method, arguments, complaint in (
        (AOT, {"num_clips": 0}, "`num_clips` is 0, but it must be an integer from 1"),
        ("dycoke", {"retention_ratio": 0.1}, "retention_ratio is 0.1, but DyCoke keeps every fourth frame whole"),
        ("holitom", {"mm_newline_position": "grid"}, "holitom is not defined for a model with 'grid' newlines"),
    ):
        with pytest.raises(ValueError, match=complaint):
            answerer(method, pretrained=str(tmp_path), **arguments)


def test_checkpoint_of_another_model(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    with pytest.raises(ValueError, match="is a qwen2 checkpoint, but one of LLaVA-OneVision or LLaVA-Video is needed"):
        answerer(pretrained=str(tmp_path))


def test_missing_checkpoint(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        answerer(pretrained=str(tmp_path / "nowhere"))
