"""The shipped mini checkpoint: how often it is right, from all tokens and from a tenth of them."""

import os
from collections import Counter

import pytest
import torch
from safetensors import safe_open
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from aot_llava_cli import answer
from aot_llava_cli.mini import MINI_CHECKPOINT
from mini_checkpoint.accuracy.scoring import is_right
from mini_checkpoint.accuracy.settings import SETTINGS
from mini_checkpoint.accuracy.survey import Checkpoint, ask_about
from mini_checkpoint.questions import ask, make_scene

NUM_CLIPS = 100
# Clips that neither the training run nor its model card nor `python -m mini_checkpoint.accuracy` looks at.
FIRST_SEED = 20_000_000
NAMES = (
    "full tokens, 100 %",
    "AOT, 10 %",
    "λ inter = 0.1, 10 %",
    "AOT, local anchors, cosine merging, 10 %",
    "random tokens, 10 %",
)
FULL, AOT, LIGHTER, BEST, RANDOM = (SETTINGS[name] for name in NAMES)


# Minutes, so `.ci/run` measures what training has brought, and the README's command leaves it out.
measured = pytest.mark.training


@pytest.fixture(scope="module")
def right():
    """Right answers to all questions about the clips under each setting, and the number of questions."""
    model, processor = answer.load(str(MINI_CHECKPOINT), retention_ratio=None)
    stock = LlavaOnevisionForConditionalGeneration.from_pretrained(MINI_CHECKPOINT).float().eval()
    checkpoint = Checkpoint(model, processor, stock)
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count())
    right, asked = Counter(), 0
    try:
        for seed in range(FIRST_SEED, FIRST_SEED + NUM_CLIPS):
            scene = make_scene(seed, "held_out")
            questions = ask(scene)
            asked += len(questions)
            for name, reply in ask_about(scene, (FULL, AOT, LIGHTER, BEST, RANDOM), checkpoint).items():
                right[name] += sum(map(is_right, questions, reply.answers))
    finally:
        torch.set_num_threads(threads)
    return right, asked


@measured
def test_it_answers_from_all_tokens(right):
    """84.3 % on these clips, 87.4 % on those of the model card; the rest is for machines that round in another way."""
    right, asked = right
    assert right[FULL.name] >= 0.84 * asked


@measured
@pytest.mark.parametrize(
    "setting", [AOT, LIGHTER, BEST], ids=["defaults", "lighter merging along time", "local, cosine"]
)
def test_a_tenth_of_the_tokens_keeps_95_percent_of_the_right_answers(right, setting):
    """Defaults, all but one weight, the best of `mini_checkpoint.accuracy`: 97.6, 100.0 and 101.3 % on these clips."""
    right, _ = right
    assert right[setting.name] >= 0.95 * right[FULL.name]


@measured
def test_random_tokens_are_much_worse(right):
    """By 10.9, 12.9 and 14.0 points on these clips."""
    right, asked = right
    assert right[RANDOM.name] <= right[AOT.name] - 0.1 * asked
    assert right[RANDOM.name] <= right[LIGHTER.name] - 0.12 * asked
    assert right[RANDOM.name] <= right[BEST.name] - 0.13 * asked


def test_it_is_a_stock_checkpoint_and_small():
    """Its weights are in half precision, and complete."""
    with safe_open(MINI_CHECKPOINT / "model.safetensors", framework="pt") as weights:
        assert {str(weights.get_slice(name).get_dtype()) for name in weights.keys()} == {"F16"}  # noqa: SIM118
    assert sum(file.stat().st_size for file in MINI_CHECKPOINT.iterdir()) < 8_000_000
    _, loading = LlavaOnevisionForConditionalGeneration.from_pretrained(MINI_CHECKPOINT, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_the_chat_template_writes_the_models_prompt():
    processor = LlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT)
    content = [{"type": "text", "text": "What?"}, {"type": "video"}, {"type": "image"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert prompt == "<|im_start|>user <image><video>\nWhat?<|im_end|><|im_start|>assistant\n"
