"""The model's forward pass from cached tower output to the answers of many questions, a clip being read once."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.models.qwen2.modeling_qwen2 import rotate_half

from mini_checkpoint.training.model.conversations import QuestionTokens
from modeling_aot_llava.cache_name import CACHE

from .key_dropout import hidden_prompt_keys
from .token_mixing import Mixing
from .tracking_supervision import TRACKING_HEAD, TRACKING_LAYER


@dataclass
class Answers:
    """What the model says and does when each question is asked alone about its clip.

    Attributes:
        logits: (Q, 2, vocabulary) at `questions.asks_at`.
        video_hidden: for each layer of the language model, and its end, what it knows of the video tokens, newline
            excluded: (C, F * P, width).
        asked_hidden: for each layer and the end, (Q, width) at `questions.asks_at[:, 0]`.
        looks_at_video: for each of the layers asked for, the attention that the first head pays to each video token at
            `questions.asks_at[:, 0]`: (Q, F * P).
        looks_at_question: likewise to each token of the question up to there: (Q, L).
        looks_back: for each clip, the attention that the tracking head pays to each video token at the video tokens
            asked for: (M, F * P).
    """

    logits: Tensor
    video_hidden: tuple[Tensor, ...]
    asked_hidden: tuple[Tensor, ...]
    looks_at_video: dict[int, Tensor]
    looks_at_question: dict[int, Tensor]
    looks_back: list[Tensor]


def answer(
    model: LlavaOnevisionForConditionalGeneration,
    before_video: Tensor,
    features: Tensor,
    questions: QuestionTokens,
    clip_of_question: Tensor,
    position_scale: Tensor | None = None,
    look_layers: tuple[int, ...] = (),
    tracking_tokens: tuple[Tensor, ...] = (),
    mixing: Mixing | None = None,
    hidden_keys: Tensor | None = None,
) -> Answers:
    """Asks the stock model.

    Args:
        before_video: (n,) token ids.
        features: (C, F, N, D), what the projector reads.
        clip_of_question: (Q,), ascending.
        position_scale: (C,), factors for the distances between the positions of video tokens; 1 by default.
        look_layers: counted from 0.
        tracking_tokens: for each clip (M,), the video tokens whose look back is wanted.
        mixing: of the video tokens, newline excluded; none by default.
        hidden_keys: (C, layers, heads, F * P), the video tokens that a head does not see, for a model whose attention
            is `key_dropout`; none by default. What the looks tell is what the heads would pay if they saw all.
    """
    inner = model.model
    video = _video_embeddings(inner, features)
    if mixing is not None:
        video = mixing.of(video)
    num_clips, num_video = video.shape[:2]
    newline = inner.image_newline.expand(num_clips, 1, -1)
    start = inner.language_model.embed_tokens(before_video).expand(num_clips, -1, -1)
    scale = video.new_ones(num_clips) if position_scale is None else position_scale
    positions = _positions(len(before_video), num_video, scale)
    out_of_sight = {}
    if hidden_keys is not None:
        out_of_sight["hidden_keys"] = hidden_prompt_keys(hidden_keys, len(before_video), positions.shape[1])
    with _queries(inner.language_model, {TRACKING_LAYER: TRACKING_HEAD}) as queries:
        read = inner.language_model(
            inputs_embeds=torch.cat([start, video, newline], dim=1),
            position_ids=positions,
            attention_mask={"full_attention": None},
            use_cache=True,
            output_hidden_states=True,
            **out_of_sight,
        )
    cache = getattr(read, CACHE)
    of_video = slice(len(before_video), len(before_video) + num_video)
    query = _turned(inner.language_model, queries[TRACKING_LAYER], positions)[:, of_video]
    keys = cache.layers[TRACKING_LAYER].keys[:, TRACKING_HEAD]
    looks_back = [
        _attention(query[clip, tokens], keys[clip], _is_past(tokens + of_video.start, keys.shape[1]))[:, of_video]
        for clip, tokens in enumerate(tracking_tokens)
    ]
    packed = _pack(questions, clip_of_question, num_clips)
    seen = positions.shape[1]
    # A question sees the whole video and its own past.
    own_past = (packed.question.unsqueeze(1) == packed.question.unsqueeze(2)).tril()
    mask = torch.cat([own_past.new_ones(*own_past.shape[:2], seen), own_past], dim=-1)
    question_positions = positions[:, -1:] + 1 + packed.place
    with _queries(inner.language_model, dict.fromkeys(look_layers, 0)) as queries:
        asked = inner.language_model(
            input_ids=packed.ids,
            position_ids=question_positions,
            attention_mask={"full_attention": mask.unsqueeze(1)},
            **{CACHE: cache},
            use_cache=True,
            output_hidden_states=True,
            **out_of_sight,
        )
    hidden = asked.last_hidden_state
    row, column = clip_of_question.unsqueeze(1), packed.start.unsqueeze(1) + questions.asks_at
    own = (seen + packed.start.unsqueeze(1) + torch.arange(questions.ids.shape[1], device=hidden.device)).clamp(
        max=mask.shape[-1] - 1
    )
    looks_at_video, looks_at_question = {}, {}
    for layer, query in queries.items():
        query = _turned(inner.language_model, query, question_positions)
        attention = _attention(query, cache.layers[layer].keys[:, 0], mask)[row[:, 0], column[:, 0]]
        looks_at_video[layer] = attention[:, of_video]
        looks_at_question[layer] = attention.gather(1, own)
    video_hidden = tuple(layer[:, of_video] for layer in read.hidden_states)
    asked_hidden = tuple(layer[row[:, 0], column[:, 0]] for layer in asked.hidden_states)
    logits = model.lm_head(hidden[row, column])
    return Answers(logits, video_hidden, asked_hidden, looks_at_video, looks_at_question, looks_back)


@contextmanager
def _queries(language_model: nn.Module, head_of_layer: dict[int, int]) -> Iterator[dict[int, Tensor]]:
    """Collects the queries of one head of some layers, (C, W, d) before the rotary embedding, while the model runs."""
    queries: dict[int, Tensor] = {}

    def collect(layer: int, head: int, size: int):
        def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
            queries[layer] = output[..., head * size : (head + 1) * size]

        return hook

    attentions = [(layer, head, language_model.layers[layer].self_attn) for layer, head in head_of_layer.items()]
    handles = [
        attention.q_proj.register_forward_hook(collect(layer, head, attention.head_dim))
        for layer, head, attention in attentions
    ]
    try:
        yield queries
    finally:
        for handle in handles:
            handle.remove()


def _turned(language_model: nn.Module, query: Tensor, positions: Tensor) -> Tensor:
    cosine, sine = language_model.rotary_emb(query, positions)
    return query * cosine + rotate_half(query) * sine


def _attention(query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
    scores = query @ keys.transpose(-2, -1) * query.shape[-1] ** -0.5
    return scores.masked_fill(~mask, -math.inf).softmax(-1)


def _is_past(tokens: Tensor, length: int) -> Tensor:
    return torch.arange(length, device=tokens.device) <= tokens.unsqueeze(1)


@dataclass
class _Packed:
    """All questions of a clip in one row, so that they share what the model keeps of the clip.

    Attributes:
        ids, place, question: (C, W), a token, where it stands in its question, and the question's number, -1 on
            padding.
        start: (Q,), where each question begins in its row.
    """

    ids: Tensor
    place: Tensor
    question: Tensor
    start: Tensor


def _pack(questions: QuestionTokens, clip_of_question: Tensor, num_clips: int) -> _Packed:
    lengths = questions.asks_at[:, 1] + 1
    ends = lengths.cumsum(0)
    tokens_of_clip = lengths.new_zeros(num_clips).index_add(0, clip_of_question, lengths)
    start = ends - lengths - (tokens_of_clip.cumsum(0) - tokens_of_clip)[clip_of_question]
    width = int(tokens_of_clip.max())
    place = torch.arange(questions.ids.shape[1], device=lengths.device).expand_as(questions.ids)
    real = place < lengths.unsqueeze(1)
    row = clip_of_question.unsqueeze(1).expand_as(place)[real]
    column = (start.unsqueeze(1) + place)[real]
    number = torch.arange(len(lengths), device=lengths.device).unsqueeze(1).expand_as(place)

    def packed(values: Tensor, filler: int) -> Tensor:
        return values.new_full((num_clips, width), filler).index_put((row, column), values[real])

    return _Packed(packed(questions.ids, 0), packed(place, 0), packed(number, -1), start)


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
