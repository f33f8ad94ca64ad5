"""What the tests' random checkpoints are like."""

import torch
from random_checkpoint import random_model, random_tokenizer, save_random_checkpoint
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor


def test_a_random_checkpoint_is_a_stock_one_underneath(tmp_path):
    save_random_checkpoint(
        tmp_path,
        model_class=LlavaOnevisionForConditionalGeneration,
        processor_class=LlavaOnevisionProcessor,
        vision_config={"image_size": 56},
    )
    model, loading = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    processor = LlavaOnevisionProcessor.from_pretrained(tmp_path)
    assert processor.num_image_tokens == 16
    assert processor.video_token_id == model.config.video_token_id
    assert processor.image_token_id == model.config.image_token_id
    assert processor.tokenizer.padding_side == "left"


def test_a_random_model_is_seeded_and_leaves_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    first, again, other = (random_model(seed=seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_its_tokenizer_keeps_every_byte():
    tokenizer = random_tokenizer()
    text = "<|im_start|>user <image><video>\nÉ 漢 it's 12<|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text
