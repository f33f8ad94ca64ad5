"""The mini checkpoint as an AOT folder, and what transformers answers from it, for the tests of vLLM.

Asked once, before any engine is made: vLLM changes classes of transformers in the process in which it builds a model.
"""

import os

import numpy as np
import pytest
import torch
from cases import (
    CASES,
    CLIPS_AT_RATIOS,
    FRAMES_OF_FILES,
    QUESTIONS_ABOUT_FILES,
    SEEDS,
    Answer,
    Case,
    frames_of,
    image_of,
)
from random_checkpoint import save_random_checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPooling

from aot_llava_cli.mini import MINI_CHECKPOINT
from mini_checkpoint.questions import make_scene, save_clip
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor
from modeling_aot_llava.video_reading import read_video

os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine in this process: it starts in half the time
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")


@pytest.fixture(scope="session", autouse=True)
def vllm():
    reason = "vLLM is not installed: tests/serving/make_environment makes an environment for it"
    return pytest.importorskip("vllm", reason=reason)


@pytest.fixture(scope="session")
def loaded():
    """Model and processor of the mini checkpoint."""
    return _load(MINI_CHECKPOINT)


@pytest.fixture(scope="session")
def folder(loaded, tmp_path_factory):
    """The folder that is served, with the model's code in it."""
    folder = tmp_path_factory.mktemp("served") / "mini-aot"
    for part in loaded:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folder_of_even_heads(tmp_path_factory):
    """A model with random weights whose heads two ranks can share: the mini checkpoint's vision tower has three."""
    folder = tmp_path_factory.mktemp("served") / "random-aot"
    heads = {"hidden_size": 128, "num_attention_heads": 4}
    save_random_checkpoint(folder, vision_config=heads, text_config=heads)
    return folder


@pytest.fixture(scope="session")
def folder_of_llava_video(tmp_path_factory):
    """The mini checkpoint on LLaVA-Video's path: average pooling, a newline after each row of each frame."""
    folder = tmp_path_factory.mktemp("served") / "mini-llava-video-aot"
    for part in _load(MINI_CHECKPOINT, mm_spatial_pool_mode="average", mm_newline_position="grid"):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """A folder of video files, one for each seed."""
    folder = tmp_path_factory.mktemp("clips")
    for seed in SEEDS:
        save_clip(make_scene(seed, "held_out"), folder / f"{seed}.mp4")
    return folder


@pytest.fixture(scope="session")
def answers(loaded, answers_about_files, answers_of_even_heads, answers_of_llava_video) -> dict[str, Answer]:
    """What transformers answers to each case. With it, all that is asked of transformers has been asked."""
    return {name: _answer(*loaded, case) for name, case in CASES.items()}


@pytest.fixture(scope="session")
def answers_about_files(loaded, clips) -> dict[tuple[int, float], Answer]:
    """What transformers answers about each video file, at each ratio that the server is asked for."""
    return {
        (seed, ratio): _answer(*loaded, question, [read_video(str(clips / f"{seed}.mp4"), FRAMES_OF_FILES)[0]])
        for (seed, ratio), question in QUESTIONS_ABOUT_FILES.items()
    }


@pytest.fixture(scope="session")
def answers_of_even_heads(folder_of_even_heads) -> dict[str, Answer]:
    """What transformers answers to the clips at ratios from the random model."""
    loaded = _load(folder_of_even_heads)
    return {name: _answer(*loaded, CASES[name]) for name in CLIPS_AT_RATIOS}


@pytest.fixture(scope="session")
def answers_of_llava_video(folder_of_llava_video) -> dict[str, Answer]:
    """What transformers answers to the clips at ratios from the model with LLaVA-Video's path."""
    loaded = _load(folder_of_llava_video)
    return {name: _answer(*loaded, CASES[name]) for name in CLIPS_AT_RATIOS}


def _load(folder, **fields):
    model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(folder, **fields)
    return model.eval(), AOTLlavaOnevisionProcessor.from_pretrained(folder, **fields)


def _answer(model, processor, case: Case, videos=None) -> Answer:
    # A full prompt leaves the ratio to the model's config in `generate`; for vLLM it means all tokens.
    model.config.retention_ratio = case.ratio or 0.1
    videos = videos or [frames_of(*clip) for clip in case.clips]
    images = [image_of(seed) for seed in case.images]
    ratio = {"retention_ratio": case.ratio} if case.ratio else {}
    if len({len(video) for video in videos}) < 2:
        inputs = processor(
            text=case.prompt, images=images or None, videos=videos or None, return_tensors="pt", **ratio
        )
    else:  # pixels of different lengths do not fit into one tensor: encoded one by one, and put together by hand
        alone = [processor(text="<video>", videos=[video], return_tensors="pt", **ratio) for video in videos]
        with torch.no_grad():
            counts = [len(one.input_ids[0]) - 1 for one in alone]
            outputs = [
                model.model.get_video_features(one.pixel_values_videos, kept_video_tokens=[count], return_dict=True)
                for one, count in zip(alone, counts)
            ]
        parts = case.prompt.split("<video>")
        text = parts[0] + "".join("<video>" * (count + 1) + part for count, part in zip(counts, parts[1:]))
        inputs = processor.tokenizer(text, return_tensors="pt")
        features = [output.pooler_output[0] for output in outputs]
        inputs["mm_encoder_outputs"] = {"video": BaseModelOutputWithPooling(pooler_output=features)}
    output = model.generate(
        **inputs, do_sample=False, max_new_tokens=case.max_tokens, output_scores=True, return_dict_in_generate=True
    )
    prompt = inputs["input_ids"][0].tolist()
    tokens = output.sequences[0, len(prompt) :].tolist()
    logprobs = [float(score[0].log_softmax(-1)[token]) for score, token in zip(output.scores, tokens)]
    text = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    return Answer(tuple(prompt), tuple(tokens), text, np.array(logprobs))
