"""Videos that are encoded once and asked about several times; needs no lmms-eval."""

import os
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

from aot_llava_baselines.interface import ReducedVideo
from aot_llava_cli.mini import MINI_CHECKPOINT
from aot_llava_lmms_eval.answering import Answerer, settings_of
from aot_llava_lmms_eval.arguments import split_arguments
from aot_llava_lmms_eval.conversations import of_context
from aot_llava_lmms_eval.frame_sampling import SAMPLINGS
from aot_llava_lmms_eval.kept_videos import KeptVideo, KeptVideos, key_of, moved
from aot_llava_lmms_eval.names import AOT
from mini_checkpoint.questions import ask, make_scene, save_clip

OPTIONS = {"max_new_tokens": 4, "temperature": 0}
LLAVA_VIDEO = {"mm_spatial_pool_mode": "average", "mm_newline_position": "grid", "add_time_instruction": True}


def answerer(method=AOT, **arguments):
    args = {"pretrained": str(MINI_CHECKPOINT), "max_frames_num": 2, "dtype": "float32", **arguments}
    return Answerer(method, *split_arguments(method, args, settings_of(method)), "cpu")


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Two clips, asked about in turn."""
    folder = tmp_path_factory.mktemp("kept_videos")
    asked = []
    for seed in (0, 1):
        scene = make_scene(seed, "held_out")
        save_clip(scene, folder / f"{seed}.mp4")
        asked.append([of_context(question.text, str(folder / f"{seed}.mp4")) for question in ask(scene)[:2]])
    return [question for of_clips in zip(*asked) for question in of_clips]


@pytest.fixture
def counts(monkeypatch):
    """How often a video was read and encoded."""
    found = {"read": 0, "encoded": 0}

    def counted(name, function):
        def run(*given, **options):
            found[name] += 1
            return function(*given, **options)

        return run

    monkeypatch.setitem(SAMPLINGS, "uniform", counted("read", SAMPLINGS["uniform"]))
    # Every way to run the tower begins there.
    monkeypatch.setattr(SiglipVisionEmbeddings, "forward", counted("encoded", SiglipVisionEmbeddings.forward))
    return found


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (AOT, {"retention_ratio": 0.1}),
        (AOT, {"retention_ratio": 0.15, "recipe": "released"}),
        (AOT, {**LLAVA_VIDEO, "retention_ratio": 1.0}),
        ("fastvid", {"retention_ratio": 0.2}),
        ("fastv", {**LLAVA_VIDEO, "retention_ratio": 0.5, "layer": 1}),
        ("earlytom", {"retention_ratio": 0.15, "merging_layers": "[2,5,6]", "layer": 4}),
    ],
)
def test_answers_are_those_without_to_the_bit_and_a_video_is_read_and_encoded_once(
    method, settings, questions, counts
):
    def answer_all(model):
        logits = []
        model.model.register_forward_hook(lambda _module, _inputs, outputs: logits.append(outputs.logits))
        return [model.answer([question], OPTIONS)[0] for question in questions], logits

    expected, expected_logits = answer_all(answerer(method, keep_encoded_gib=0, **settings))
    assert counts == {"read": 4, "encoded": 4}
    model = answerer(method, **settings)
    answers, logits = answer_all(model)
    assert counts == {"read": 6, "encoded": 6}
    assert model.kept.num_reused == 2
    assert answers == expected
    assert len({answer.text for answer in answers}) > 1
    assert all(map(torch.equal, logits, expected_logits))


def test_requests_that_are_prepared_before_the_video_is_encoded(questions, counts):
    """As a thread that reads ahead prepares them; in batches, too."""
    model = answerer()
    expected = answerer(keep_encoded_gib=0).answer(questions, OPTIONS)
    before = dict(counts)
    prepared = [model.prepare(questions[:3]), model.prepare(questions[3:])]
    assert [answer for batch in prepared for answer in model.answer(batch, OPTIONS)] == expected
    assert {name: counts[name] - before[name] for name in counts} == {"read": 2, "encoded": 1}  # both in one batch


def test_video_that_had_to_make_room_is_read_again(questions, counts):
    """There is room for one of the two, which come in turn."""
    expected = answerer(keep_encoded_gib=0).answer(questions, OPTIONS)
    model = answerer()
    model.answer(questions[:1], OPTIONS)
    (size,) = [video.num_bytes for video in model.kept._videos.values()]
    small = answerer(keep_encoded_gib=1.5 * size / 2**30)
    before = counts["read"]
    prepared = [small.prepare([question]) for question in questions]
    assert [small.answer(batch, OPTIONS)[0] for batch in prepared] == expected
    assert counts["read"] - before == 4
    assert small.kept.num_reused == 0
    assert small.answer([questions[1]], OPTIONS) == [expected[1]]
    assert small.kept.num_reused == 1


def test_another_file_under_the_same_name_is_read(questions, counts, tmp_path):
    clip = tmp_path / "clip.mp4"
    first, second = (of_context(questions[0].messages[0]["content"][1]["text"], str(clip)) for _ in range(2))
    model = answerer()
    for source in (questions[0].videos[0], questions[1].videos[0]):
        shutil.copy(source, clip)
        (answer,) = model.answer([first], OPTIONS)
        assert [answer] == answerer(keep_encoded_gib=0).answer([second], OPTIONS)
    assert model.kept.num_reused == 0


def test_video_that_could_not_be_read_is_tried_again(questions, tmp_path):
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"no video")
    asked = of_context("What?", str(clip))
    model = answerer()
    for _ in range(2):
        with pytest.raises((OSError, ValueError), match=r"clip\.mp4"):
            model.prepare([asked])
    going_on = answerer(unreadable_videos="llava_vid")
    assert going_on.prepare([asked, asked]).errors.keys() == {0, 1}


def test_video_that_had_to_make_room_and_cannot_be_read_any_more(questions, tmp_path):
    clip = tmp_path / "clip.mp4"
    shutil.copy(questions[0].videos[0], clip)
    asked = [of_context("What?", video) for video in (str(clip), questions[1].videos[0], str(clip))]
    model = answerer(unreadable_videos="llava_vid", keep_encoded_gib=1e-9)  # room for none
    prepared = [model.prepare([conversation]) for conversation in asked]
    for batch in prepared[:2]:
        model.answer(batch, OPTIONS)
    clip.unlink()
    assert model.answer(prepared[2], OPTIONS)[0].text == f"Video {clip} can not load, check the source"
    assert str(clip) in prepared[2].errors[0]


def test_conversations_of_another_form_are_not_kept(questions, counts):
    """Of two videos, or of a video and a picture; and an address says nothing of what lies there."""
    clip = questions[0].videos[0]
    model = answerer()
    for visuals in ([clip, clip], [clip, Image.new("RGB", (32, 32))]):
        for _ in range(2):
            model.answer([of_context("What?", visuals)], OPTIONS)
    assert model.kept.num_reused == 0
    assert key_of("https://somewhere/clip.mp4") is None


def test_key_is_of_path_time_and_size(tmp_path):
    file, folder = tmp_path / "a.mp4", tmp_path / "frames"
    file.write_bytes(b"1")
    folder.mkdir()
    (folder / "0.png").write_bytes(b"1")
    keys = [key_of(str(file)), key_of(str(folder))]
    (tmp_path / "link.mp4").symlink_to(file)
    assert key_of(str(tmp_path / "link.mp4")) == keys[0]
    os.utime(file, ns=(1, 1))
    os.utime(folder / "0.png", ns=(1, 1))
    keys += [key_of(str(file)), key_of(str(folder))]
    (folder / "1.png").write_bytes(b"1")
    file.write_bytes(b"12")
    os.utime(file, ns=(1, 1))
    keys += [key_of(str(file)), key_of(str(folder))]
    assert None not in keys
    assert len(set(keys)) == 6


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=40), st.integers(0, 20))
def test_bytes_are_bounded_and_the_last_ones_are_there(brought, max_bytes):
    """Against a plain list: what was brought or taken last stands last, and the first ones make room."""
    kept, expected = KeptVideos(max_bytes), []
    for key, size in brought:
        taken = kept.take(key)
        of_key = [entry for entry in expected if entry[0] == key]
        assert (taken is not None) == bool(of_key)
        expected = [entry for entry in expected if entry[0] != key] + of_key
        kept.bring(key, KeptVideo(torch.zeros(size, dtype=torch.uint8), 1, ""))
        if not of_key and size <= max_bytes:
            expected.append((key, size))
        while sum(size for _, size in expected) > max_bytes:
            expected.pop(0)
    assert list(kept._videos) == [key for key, _ in expected]
    assert sum(video.num_bytes for video in kept._videos.values()) <= max_bytes


def test_all_tensors_of_a_method_are_kept_and_counted():
    reduced = ReducedVideo(torch.zeros(3, 4), torch.arange(3), end=9)
    kept = KeptVideo(moved(reduced, "cpu"), 3, "")
    assert kept.num_bytes == 3 * 4 * 4 + 3 * 8
    assert kept.made.end == 9
    reduced.tokens.fill_(1)
    assert not kept.made.tokens.any()
