"""The models of lmms-eval on the Qwen-VL family: the direct answers, in batches and through lmms-eval itself."""

import pytest
import torch
from PIL import Image
from qwen_vl_hosts import HOSTS, image_of, our_model, processor_of, stock_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from aot_llava_cli.mini import MINI_CHECKPOINT
from aot_llava_lmms_eval.answering_qwen_vl import QwenVLAnswerer, settings_of_host
from aot_llava_lmms_eval.arguments import HARNESS, split_arguments
from aot_llava_lmms_eval.conversations import of_context
from aot_llava_lmms_eval.frame_sampling import SAMPLINGS
from aot_llava_lmms_eval.names import QWEN_VL, model_id
from modeling_aot_llava.video_reading import read_video

NUM_FRAMES = 6
OPTIONS = {"max_new_tokens": 4, "temperature": 0}


@pytest.fixture(scope="module", params=HOSTS)
def host(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoint(host, tmp_path_factory):
    folder = tmp_path_factory.mktemp(host)
    our_model(HOSTS[host], stock_model(HOSTS[host])).save_pretrained(folder)
    processor = processor_of(HOSTS[host])
    processor.video_processor.size = {"shortest_edge": 64, "longest_edge": 2**13}  # small frames, soon encoded
    processor.save_pretrained(folder)
    return folder


def answerer(host, checkpoint, **arguments):
    given = {"pretrained": str(checkpoint), "max_frames_num": NUM_FRAMES, "dtype": "float32", **arguments}
    return QwenVLAnswerer(host, *split_arguments(model_id(host), given, settings_of_host(host)), "cpu")


def direct(checkpoint, video, question, ratio):
    """What processor and model give, without any of lmms-eval's."""
    model = AutoModelForImageTextToText.from_pretrained(checkpoint, retention_ratio=ratio)
    processor = AutoProcessor.from_pretrained(checkpoint, retention_ratio=ratio)
    content = [{"type": "video"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    frames, metadata = read_video(video, NUM_FRAMES)
    inputs = processor(
        text=[text], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
    written = model.generate(**inputs, do_sample=False, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
    return processor.decode(written, skip_special_tokens=True).strip()


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_a_batch_is_answered_as_each_alone_and_as_without_lmms_eval(host, checkpoint, local_task, ratio):
    model = answerer(host, checkpoint, retention_ratio=ratio)
    videos = [doc for doc in local_task.docs if doc["question"] == local_task.docs[0]["question"]] or local_task.docs
    conversations = [of_context(doc["question"], doc["video"]) for doc in videos[:2]]
    conversations += [of_context("What?", None), of_context("What is it?", Image.fromarray(image_of(2, 3)))]
    together = model.answer(model.prepare(conversations), OPTIONS)
    assert together == [model.answer([conversation], OPTIONS)[0] for conversation in conversations]
    for doc, answer in zip(videos[:2], together):
        assert answer.text == direct(checkpoint, doc["video"], doc["question"], ratio)


@pytest.mark.parametrize(
    "settings", [{"retention_ratio": 0.25}, {"retention_ratio": 1.0}, {"clip_segmentation": "dynamic"}]
)
def test_answers_are_those_without_to_the_bit_and_a_video_is_read_and_encoded_once(
    host, checkpoint, local_task, monkeypatch, settings
):
    reads, questions = [], [of_context(doc["question"], doc["video"]) for doc in local_task.docs[::2]]
    real = SAMPLINGS["uniform"]
    monkeypatch.setitem(SAMPLINGS, "uniform", lambda *given: reads.append(1) or real(*given))

    def answer_all(model):
        logits, tower_runs = [], []
        model.model.register_forward_hook(lambda _module, _inputs, outputs: logits.append(outputs.logits))
        model.model.model.visual.register_forward_hook(lambda *_: tower_runs.append(1))
        return [model.answer([question], OPTIONS)[0] for question in questions], logits, tower_runs

    expected, expected_logits, runs_for_each = answer_all(answerer(host, checkpoint, keep_encoded_gib=0, **settings))
    assert len(reads) == len(questions) == len(runs_for_each) == 5
    model = answerer(host, checkpoint, **settings)
    answers, logits, tower_runs = answer_all(model)
    assert len(reads) - 5 == len(tower_runs) == 3  # of three videos
    assert model.kept.num_reused == 2
    assert answers == expected
    assert all(map(torch.equal, logits, expected_logits))
    together = answerer(host, checkpoint, **settings)
    assert together.answer(together.prepare(questions), OPTIONS) == expected
    assert together.kept.num_reused == 2
    small = answerer(host, checkpoint, keep_encoded_gib=1e-9, **settings)  # room for none
    assert small.answer(small.prepare(questions), OPTIONS) == expected
    assert small.kept.num_reused == 0


def test_settings_are_aots_and_none_of_the_harness(host):
    names = settings_of_host(host)
    assert {"retention_ratio", "num_clips", "num_anchors", "clip_segmentation"} <= set(names)
    assert not set(names) & set(HARNESS)


def test_what_belongs_to_llava_or_to_another_host_is_refused(host, checkpoint):
    with pytest.raises(ValueError, match="conv_template=qwen_1_5 is LLaVA's"):
        answerer(host, checkpoint, conv_template="qwen_1_5")
    with pytest.raises(ValueError, match="add_time_instruction=True is LLaVA's"):
        answerer(host, checkpoint, add_time_instruction=True)
    others = [(other, checkpoint) for other in QWEN_VL if other != host]
    for name, folder in (*others, (host, MINI_CHECKPOINT)):
        with pytest.raises(ValueError, match=f"is no {name} checkpoint"):
            answerer(name, folder)
    with pytest.raises(ValueError, match="`num_clips` is 0"):
        answerer(host, checkpoint, num_clips=0)


def test_lmms_eval_runs_it_by_its_name(host, checkpoint, local_task, monkeypatch):
    pytest.importorskip("lmms_eval", reason="lmms-eval is not installed: make_environment makes one for it")
    from lmms_eval_runs import run

    monkeypatch.chdir(local_task.folder)
    arguments = f"pretrained={checkpoint},max_frames_num={NUM_FRAMES},dtype=float32,device=cpu,retention_ratio=0.5"
    torch.manual_seed(0)
    ran = run(model_id(host), arguments)
    assert ran["answers"] == [direct(checkpoint, doc["video"], doc["question"], 0.5) for doc in local_task.docs]
