"""The model's forward pass from cached tower output to the answers of many questions, a clip being read once."""

import torch
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration

from .conversations import QuestionTokens


def answer_logits(
    model: LlavaOnevisionForConditionalGeneration,
    before_video: Tensor,
    features: Tensor,
    questions: QuestionTokens,
    clip_of_question: Tensor,
    position_scale: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What the stock model predicts when each question is asked alone about its clip.

    Args:
        before_video: (n,) token ids.
        features: (C, F, N, D), what the projector reads.
        clip_of_question: (Q,).
        position_scale: (C,), factors for the distances between the positions of video tokens; 1 by default.

    Returns:
        Logits (Q, 2, vocabulary) at `questions.asks_at`, and for each layer of the language model what it read of the
        video tokens, newline excluded: (C, F * P, width).
    """
    inner = model.model
    video = _video_embeddings(inner, features)
    num_clips, num_video = video.shape[:2]
    newline = inner.image_newline.expand(num_clips, 1, -1)
    start = inner.language_model.embed_tokens(before_video).expand(num_clips, -1, -1)
    scale = video.new_ones(num_clips) if position_scale is None else position_scale
    positions = _positions(len(before_video), num_video, scale)
    read = inner.language_model(
        inputs_embeds=torch.cat([start, video, newline], dim=1),
        position_ids=positions,
        attention_mask={"full_attention": None},
        use_cache=True,
        output_hidden_states=True,
    )
    cache = read.past_key_values
    cache.batch_select_indices(clip_of_question)
    length = questions.ids.shape[1]
    seen = positions.shape[1]
    # A question sees the whole video and its own past.
    causal = torch.ones(length, length, dtype=torch.bool, device=features.device).tril()
    mask = torch.cat([causal.new_ones(length, seen), causal], dim=1).expand(len(questions.ids), 1, -1, -1)
    after = torch.arange(1, length + 1, device=features.device)
    hidden = inner.language_model(
        input_ids=questions.ids,
        position_ids=positions[clip_of_question, -1:] + after,
        attention_mask={"full_attention": mask},
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    rows = torch.arange(len(hidden), device=features.device).unsqueeze(1)
    of_video = slice(len(before_video), len(before_video) + num_video)
    return model.lm_head(hidden[rows, questions.asks_at]), tuple(h[:, of_video] for h in read.hidden_states)


def _video_embeddings(inner, features: Tensor) -> Tensor:
    """Projector and pooling as `get_video_features` does it: (C, F, N, D) -> (C, F * P, width)."""
    projected = inner.multi_modal_projector(features.flatten(0, 1))
    return inner.apply_pooling(projected).unflatten(0, features.shape[:2]).flatten(1, 2)


def _positions(num_before: int, num_video: int, scale: Tensor) -> Tensor:
    """(C, n): consecutive ones, but for the video tokens, whose distances are scaled."""
    clips = len(scale)
    before = torch.arange(num_before, dtype=scale.dtype, device=scale.device).expand(clips, -1)
    # The newline is one more step of the same size; with scale 1 these are 0, 1, 2, ...
    video = torch.arange(num_video + 1, dtype=scale.dtype, device=scale.device) * scale.unsqueeze(1)
    return torch.cat([before, num_before + video], dim=1)
