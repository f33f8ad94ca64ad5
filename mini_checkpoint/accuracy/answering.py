"""The model's answers about a clip, each question asked alone, as `generate` gives them on the processor's prompt.

All questions about a clip begin alike, up to the end of the video, so that part is read once; and videos of the same
number of tokens are read together.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from aot_llava_baselines import BaselineGenerator
from aot_llava_baselines.interface import EncodedVideo
from aot_llava_baselines.layer_loop import CACHE
from mini_checkpoint.questions import Question
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor


@torch.inference_mode()
def answer_questions(
    model: AOTLlavaOnevisionForConditionalGeneration,
    processor: AOTLlavaOnevisionProcessor,
    videos: Tensor,
    questions: list[Question],
    places: Tensor | None = None,
    num_places: int | None = None,
) -> list[list[str]]:
    """Asks each question about each video and decodes greedily.

    Args:
        videos: (V, n, D), what the language model reads of each, without the newline token.
        places: (V, n), the tokens' places among the `num_places` of the whole video, where they keep their position
            ids; if None, positions are counted anew.

    Returns:
        For each video the answers, stripped of white space. They may be one token longer than the longest right one.
    """
    tokenizer = processor.tokenizer
    num_videos, num_tokens, _ = videos.shape
    if places is None:
        places, num_places = torch.arange(num_tokens).expand(num_videos, -1), num_tokens
    prompts = [_prompt(processor, question) for question in questions]
    video_at = prompts[0].index(processor.video_token_id)
    before, after = prompts[0][:video_at], [prompt[video_at + 1 :] for prompt in prompts]

    num_placeholders = num_tokens + 1  # the newline's too
    start = torch.tensor([*before, *[processor.video_token_id] * num_placeholders])
    rest = tokenizer.pad({"input_ids": after}, padding_side="left", return_tensors="pt")
    # A question is padded between the video and its first word, where the mask hides it.
    ids = torch.cat([start.expand(len(questions), -1), rest.input_ids], dim=1)
    mask = torch.cat([torch.ones(len(questions), len(start), dtype=torch.long), rest.attention_mask], dim=1)

    read = _positions(len(before), places, num_places)
    written = num_places - num_tokens + (mask.cumsum(1) - 1)[:, len(start) :]
    positions = torch.cat([read.repeat_interleave(len(questions), 0), written.repeat(num_videos, 1)], dim=1)
    cache = _read(model, torch.tensor(before, device=model.device), videos, read)
    cache.batch_repeat_interleave(len(questions))
    output = model.generate(
        input_ids=ids.repeat(num_videos, 1).to(model.device),
        attention_mask=mask.repeat(num_videos, 1).to(model.device),
        position_ids=positions.to(model.device),
        **{CACHE: cache},
        max_new_tokens=1 + max(len(tokenizer(question.answer).input_ids) for question in questions),
        do_sample=False,
    )
    texts = processor.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    stripped = [text.strip() for text in texts]
    return [stripped[row : row + len(questions)] for row in range(0, len(stripped), len(questions))]


def _prompt(processor: AOTLlavaOnevisionProcessor, question: Question) -> list[int]:
    """The prompt as tokens, with one placeholder for the whole video."""
    content = [{"type": "video"}, {"type": "text", "text": question.text}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor.tokenizer(text).input_ids


def _positions(num_before: int, places: Tensor, num_places: int) -> Tensor:
    """Position ids of the prompt's beginning, each video and its newline: (V, num_before + n + 1)."""
    before = torch.arange(num_before).expand(len(places), -1)
    newline = torch.full((len(places), 1), num_before + num_places)
    return torch.cat([before, num_before + places.cpu(), newline], dim=1)


def _read(
    model: AOTLlavaOnevisionForConditionalGeneration, before: Tensor, videos: Tensor, positions: Tensor
) -> DynamicCache:
    """What the language model remembers of the prompt's beginning and each video, newline included."""
    start = model.get_input_embeddings()(before).expand(len(videos), -1, -1)
    newline = model.model.image_newline.to(videos).expand(len(videos), 1, -1)
    cache = DynamicCache(config=model.config.get_text_config())
    model.model.language_model(
        inputs_embeds=torch.cat([start, videos, newline], dim=1),
        position_ids=positions.to(model.device),
        use_cache=True,
        **{CACHE: cache},
    )
    return cache


@torch.inference_mode()
def answer_one_by_one(
    generator: BaselineGenerator,
    processor: AOTLlavaOnevisionProcessor,
    video: EncodedVideo,
    questions: list[Question],
) -> tuple[int, list[str], list[int]]:
    """Asks each question alone, for methods that look at the question to choose among the video's tokens.

    Returns:
        How many video tokens came to the language model, the answers as `answer_questions` gives them, and how many
        video tokens each layer read, which is the same for all questions.
    """
    reduced = generator.method.reduce(video)
    num_placeholders = video.num_placeholders
    video_token = processor.video_token_id
    longest = max(len(processor.tokenizer(question.answer).input_ids) for question in questions)
    answers: list[str] = []
    layers = generator.model.model.language_model.layers
    for question in questions:
        prompt = _prompt(processor, question)
        video_at = prompt.index(video_token)
        ids = [*prompt[:video_at], *[video_token] * num_placeholders, *prompt[video_at + 1 :]]
        with _rows_read(layers) as rows:
            output = generator.answer(
                torch.tensor([ids], device=generator.model.device),
                reduced,
                num_placeholders,
                max_new_tokens=1 + longest,
                do_sample=False,
            )
        answers.append(processor.decode(output, skip_special_tokens=True).strip())
    beside_video = len(prompt)  # its text, and the newline that ends the video in the placeholder's stead
    return len(reduced.tokens), answers, [max(0, number - beside_video) for number in rows[: len(layers)]]


@contextmanager
def _rows_read(layers: Iterable[nn.Module]) -> Iterator[list[int]]:
    """Yields a list of how many rows the attention of each layer reads, call after call."""
    rows: list[int] = []
    handles = [
        layer.self_attn.o_proj.register_forward_hook(lambda _module, given, _output: rows.append(given[0].shape[1]))
        for layer in layers
    ]
    try:
        yield rows
    finally:
        for handle in handles:
            handle.remove()
