"""A local task of clips and questions for lmms-eval, and the direct answers to hold its runs against."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from numbered_clips import av
from PIL import Image
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from aot_llava_baselines import BaselineGenerator, build_baseline
from aot_llava_cli.mini import MINI_CHECKPOINT
from mini_checkpoint.questions import ask, make_scene, save_clip
from mini_checkpoint.questions.render import render_clip
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor
from modeling_aot_llava.video_reading import read_video

NUM_FRAMES = 8
MAX_NEW_TOKENS = 4
# Of each clip, so that two processes have one question more to share than they can: 9.
QUESTIONS_OF_CLIP = 3


@dataclass(frozen=True)
class LocalTask:
    """Where the task lies, and its documents."""

    folder: Path
    docs: list[dict]


@pytest.fixture(scope="session")
def local_task(tmp_path_factory) -> LocalTask:
    """One clip as mp4, one as webm, one as a folder of frames."""
    folder = tmp_path_factory.mktemp("lmms_eval")
    scenes = [make_scene(seed, "held_out") for seed in range(3)]
    videos = [folder / "0.mp4", folder / "1.webm", folder / "2"]
    save_clip(scenes[0], videos[0])
    _save_webm(render_clip(scenes[1], 24), videos[1])
    _save_frames(render_clip(scenes[2], 12), videos[2])
    docs = [
        {"video": str(video), "question": question.text, "answer": question.answer}
        for scene, video in zip(scenes, videos)
        for question in ask(scene)[:QUESTIONS_OF_CLIP]
    ]
    (folder / "questions.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return LocalTask(folder, docs)


def _save_webm(frames, path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=8)
        stream.height, stream.width, _ = frames[0].shape
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _save_frames(frames, folder):
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number:03}.png")


@pytest.fixture(scope="session")
def aot_answers(local_task):
    """`aot_answers(retention_ratio=...)`: what AOT's own processor and `generate` give, question by question."""

    def answers(**fields) -> list[str]:
        model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(MINI_CHECKPOINT, **fields).eval()
        ratio = {"retention_ratio": fields.get("retention_ratio", 0.1)}
        processor = AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT, **ratio)
        return [_direct(model.generate, processor, doc, prompt_of(processor, doc)) for doc in local_task.docs]

    return answers


@pytest.fixture(scope="session")
def stock():
    """The stock model and the stock processor."""
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(MINI_CHECKPOINT).eval()
    return model, LlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT)


@pytest.fixture(scope="session")
def stock_answers(local_task, stock):
    """What the stock model answers."""
    model, processor = stock
    return [_direct(model.generate, processor, doc, prompt_of(processor, doc)) for doc in local_task.docs]


@pytest.fixture(scope="session")
def method_answers(local_task, stock):
    """`method_answers("fastv", ...)`: what a method on the stock model answers."""
    model, processor = stock

    def answers(name: str, **settings) -> list[str]:
        generate = BaselineGenerator(model, build_baseline(name, **settings)).generate
        return [_direct(generate, processor, doc, prompt_of(processor, doc)) for doc in local_task.docs]

    return answers


def prompt_of(processor, doc) -> str:
    content = [{"type": "video"}, {"type": "text", "text": doc["question"]}]
    return processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)


@torch.inference_mode()
def _direct(generate, processor, doc, prompt) -> str:
    frames, _ = read_video(doc["video"], NUM_FRAMES)
    inputs = processor(text=prompt, videos=[frames], do_sample_frames=False, return_tensors="pt")
    written = generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)[0, inputs["input_ids"].shape[1] :]
    return processor.tokenizer.decode(written, skip_special_tokens=True).strip()
