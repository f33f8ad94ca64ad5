"""Held-out accuracy, with all video tokens."""

from collections import defaultdict

import torch
from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Tokenizer

from mini_checkpoint.questions import ask
from mini_checkpoint.training.data.feature_cache import FeatureCache
from mini_checkpoint.training.model.conversations import question_tokens, tokens_before_video

from .answering import answer


@torch.inference_mode()
def evaluate(model: LlavaOnevisionForConditionalGeneration, tokenizer: Qwen2Tokenizer, held_out: FeatureCache) -> dict:
    """Asks every question about every clip.

    Returns:
        `accuracy`, the share of right answers by type and over `all`; `chance` and `questions`, chance and number
        likewise; `clips` and `frames` of a clip. An answer is right if greedy decoding writes it and ends.
    """
    device = model.device
    before_video = tokens_before_video(tokenizer).to(device)
    right, chance = defaultdict(list), defaultdict(list)
    for clip in range(len(held_out)):
        asked = ask(held_out.scene(clip))
        tokens = question_tokens(tokenizer, asked).to(device)
        features = held_out.of_clip(clip).to(device)
        clip_of_question = torch.zeros(len(asked), dtype=torch.long, device=device)
        logits = answer(model, before_video, features.unsqueeze(0), tokens, clip_of_question).logits
        for question, is_right in zip(asked, (logits.argmax(-1) == tokens.answers).all(-1).tolist()):
            for kind in (question.type, "all"):
                right[kind].append(is_right)
                chance[kind].append(1 / question.num_answers)
    return {
        "accuracy": {kind: round(sum(values) / len(values), 4) for kind, values in sorted(right.items())},
        "chance": {kind: round(sum(values) / len(values), 4) for kind, values in sorted(chance.items())},
        "questions": {kind: len(values) for kind, values in sorted(right.items())},
        "clips": len(held_out),
        "frames": held_out.num_frames,
    }
