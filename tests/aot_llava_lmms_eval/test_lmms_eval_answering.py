"""Conversations of all kinds through one model, in batches; needs no lmms-eval."""

import json
import shutil

import pytest
import torch
from numbered_clips import write_clip
from PIL import Image
from transformers import GenerationConfig

from aot_llava_cli.mini import MINI_CHECKPOINT
from aot_llava_lmms_eval.answering import Answer, Answerer, reset_penalties, settings_of
from aot_llava_lmms_eval.arguments import split_arguments
from aot_llava_lmms_eval.conversations import as_qwen_1_5, of_context
from aot_llava_lmms_eval.names import AOT
from mini_checkpoint.questions import make_scene, save_clip
from mini_checkpoint.questions.render import render_clip

OPTIONS = {"max_new_tokens": 4, "temperature": 0}
LLAVA_VIDEO = {"mm_spatial_pool_mode": "average", "mm_newline_position": "grid", "add_time_instruction": True}


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
def test_batch_prepared_beforehand_is_answered_as_each_alone(method, conversations):
    model = answerer(method)
    prepared = model.prepare(conversations)
    assert list(prepared) == conversations
    together = model.answer(prepared, OPTIONS)
    alone = [model.answer([conversation], OPTIONS)[0] for conversation in conversations]
    assert together == alone
    assert all(0 < answer.num_tokens <= 4 for answer in alone)
    assert len({answer.text for answer in alone}) > 1


@pytest.mark.parametrize("keep_encoded_gib", [0, 1.0])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (AOT, {"retention_ratio": 0.2}),
        (AOT, {"retention_ratio": 0.5, **LLAVA_VIDEO}),
        ("vidcom2", {"retention_ratio": 0.5, **LLAVA_VIDEO}),
    ],
)
def test_clips_of_different_lengths_are_one_batch(method, settings, keep_encoded_gib, clips):
    """Each question is answered as alone; a second one about a clip, too, from what the batch made of it."""
    asked = [of_context(f"{question} Answer with one word.", clip) for question, clip in clips]
    model = answerer(method, keep_encoded_gib=keep_encoded_gib, max_frames_num=8, **settings)
    prepared = model.prepare(asked)
    (batch,) = prepared.batches
    assert batch.inputs["num_video_frames"].tolist() == [2, 8, 5]
    together = model.answer(prepared, OPTIONS)
    again = model.answer(asked, OPTIONS)
    assert model.kept.num_reused == (3 if keep_encoded_gib else 0)
    alone = answerer(method, keep_encoded_gib=0, max_frames_num=8, **settings)
    assert together == again == [alone.answer([one], OPTIONS)[0] for one in asked]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Questions and a clip each."""
    folder = tmp_path_factory.mktemp("clips")
    questions = ("What colour is the circle?", "Which way does it move?", "How many objects are there?")
    lengths = (2, 12, 5)
    return [(text, str(write_clip(folder / f"{length}.mp4", length))) for text, length in zip(questions, lengths)]


@pytest.fixture
def with_unreadable(conversations, tmp_path):
    """A conversation between two, of which the one's video is not there and the other's is none."""
    (tmp_path / "text.mp4").write_text("no video")
    unreadable = [str(tmp_path / "gone.mp4"), str(tmp_path / "text.mp4")]
    asked = [of_context("What?", unreadable[0]), conversations[3], of_context("Which way?", unreadable[1])]
    return asked, unreadable


def test_unreadable_video_stops_by_default(with_unreadable):
    with pytest.raises((OSError, ValueError), match=r"gone\.mp4"):
        answerer().answer(with_unreadable[0], OPTIONS)


def test_unreadable_videos_are_left_out_as_llava_onevision_does(with_unreadable, conversations):
    asked, unreadable = with_unreadable
    model = answerer(unreadable_videos="llava_onevision")
    prepared = model.prepare(asked)
    assert prepared.errors.keys() == {0, 2}
    assert all(video in prepared.errors[row] for row, video in zip((0, 2), unreadable))
    expected = [of_context("What?", None), conversations[3], of_context("Which way?", None)]
    assert model.answer(prepared, OPTIONS) == model.answer(expected, OPTIONS)


def test_unreadable_videos_are_named_in_the_answer_as_llava_vid_does(with_unreadable, conversations):
    asked, unreadable = with_unreadable
    model = answerer(unreadable_videos="llava_vid")
    first, readable, last = model.answer(asked, OPTIONS)
    # lmms-eval, models/simple/llava_vid.py, `generate_until`.
    assert [first, last] == [Answer(f"Video {video} can not load, check the source", 0) for video in unreadable]
    assert [readable] == model.answer([conversations[3]], OPTIONS)
    assert model.prepare(asked).errors.keys() == {0, 2}


def test_pictures_that_cannot_be_read_stop_whatever_is_said_of_videos(tmp_path):
    model = answerer(unreadable_videos="llava_vid")
    with pytest.raises((OSError, ValueError), match="gone"):
        model.answer([of_context("What?", str(tmp_path / "gone.png"))], OPTIONS)


def test_penalties_of_the_checkpoint_are_reset_and_it_is_said(conversations, tmp_path, caplog):
    """They would act on the prompt: a word of the question could not be the answer."""
    checkpoint = shutil.copytree(MINI_CHECKPOINT, tmp_path / "checkpoint")
    file = checkpoint / "generation_config.json"
    given = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**given, "repetition_penalty": 9.5, "no_repeat_ngram_size": 1}))
    asked, expected = [conversations[2]], answerer().answer([conversations[2]], OPTIONS)
    assert expected[0].text in ("left", "right", "up", "down")
    assert not caplog.records
    model = answerer(pretrained=str(checkpoint))
    assert model.answer(asked, OPTIONS) == expected
    first, second = (record.getMessage() for record in caplog.records)
    assert "generation config says repetition_penalty=9.5" in first
    assert "it is set to 1.0. With --gen_kwargs repetition_penalty=9.5 it acts on both." in first
    assert "no_repeat_ngram_size=1" in second
    assert model.answer(asked, {**OPTIONS, "no_repeat_ngram_size": 1}) != expected  # who asks for it gets it


def test_penalties_that_are_off_are_left(caplog):
    for off in (GenerationConfig(), GenerationConfig(repetition_penalty=1.0, no_repeat_ngram_size=0)):
        before = off.to_dict()
        reset_penalties(off)
        assert off.to_dict() == before
    assert not caplog.records


def test_prompt_and_frames_are_those_asked_for(conversations, monkeypatch):
    model = answerer(conv_template="qwen_1_5", frame_sampling="llava_onevision", retention_ratio=0.25)
    seen = {}
    generate = model.model.generate
    monkeypatch.setattr(model, "_generate", lambda **inputs: (seen.update(inputs), generate(**inputs))[1])
    of_frames = conversations[3]
    model.answer([of_frames], OPTIONS)
    assert seen["pixel_values_videos"].shape[1] == 4  # of 3
    tokens = round(0.25 * 4 * model.model.config.pooled_grid_size**2) + 1  # and a newline
    text = as_qwen_1_5(model.processor, of_frames).replace("<video>", "<video>" * tokens)
    assert torch.equal(seen["input_ids"], model.processor.tokenizer(text, return_tensors="pt").input_ids)


@pytest.mark.parametrize("method", [AOT, "visionzip", "fastvid", "fastv", "pdrop", "vidcom2", "framefusion"])
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
    # AOT's prompts have the tokens that it keeps, the other methods' all of them; and a newline for each row of each.
    video = model.processor.video_token * (round((0.5 if method == AOT else 1.0) * 4 * side**2) + 4 * side)
    prompt = model.processor.decode(seen["input_ids"][0])
    assert f"{video}\nThe video lasts for 8.00 seconds, and 4 frames are uniformly sampled from it." in prompt


def test_flashvid_runs_llava_video_with_a_newline_after_each_frame(conversations):
    settings = {"mm_spatial_pool_mode": "average", "retention_ratio": 0.5, "inner_ratio": 0.5, "layer": 2}
    model = answerer("flashvid", mm_newline_position="frame", keep_encoded_gib=0, **settings)
    asked = [conversations[0], conversations[2]]
    together = model.answer(asked, OPTIONS)
    assert together == [model.answer([one], OPTIONS)[0] for one in asked]
    (batch,) = model.prepare(asked).batches
    side = model.model.config.pooled_grid_size
    placeholders = (batch.inputs["input_ids"] == model.processor.video_token_id).sum(1)
    assert placeholders.tolist() == [4 * (side**2 + 1)] * 2


def test_settings_are_checked_before_weights_are_read(tmp_path):
    (tmp_path / "config.json").write_text((MINI_CHECKPOINT / "config.json").read_text())
    for method, arguments, complaint in (
        (AOT, {"num_clips": 0}, "`num_clips` is 0, but it must be an integer from 1"),
        ("dycoke", {"retention_ratio": 0.1}, "retention_ratio is 0.1, but DyCoke keeps every fourth frame whole"),
        *(
            (name, {"mm_newline_position": "grid"}, f"{name} is not defined for a model with 'grid' newlines")
            for name in ("holitom", "flashvid", "stc_pruner", "stc_cacher", "earlytom")
        ),
        ("flashvid", {}, "layer is 20, but the language model has 6 layers, counted from 0"),
        ("earlytom", {"layer": 4}, r"merging_layers is \(10, 21, 23\), but the model reads 7 layers of its vision"),
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
