"""Asks all questions about one clip, under many settings."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.video_questions import Scene, ask, render_clip
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

from .answering import answer_questions
from .clip_tokens import ClipTokens
from .settings import Setting


@dataclass(frozen=True)
class Reply:
    """What came of one clip under one setting.

    Attributes:
        video_tokens: how many the language model read, newline not counted.
        answers: one for each question of `ask`.
    """

    video_tokens: int
    answers: list[str]


def ask_about(
    scene: Scene,
    settings: Iterable[Setting],
    model: AOTLlavaOnevisionForConditionalGeneration,
    processor: AOTLlavaOnevisionProcessor,
) -> dict[str, Reply]:
    """Asks all questions about a scene's clip; the replies by name of the setting."""
    questions = ask(scene)
    replies: dict[str, Reply] = {}
    for num_tokens, videos in _of_one_length(_video_tokens(scene, settings, model, processor)).items():
        answers = answer_questions(model, processor, torch.stack(list(videos.values())), questions)
        replies |= {name: Reply(num_tokens, given) for name, given in zip(videos, answers)}
    return replies


def _video_tokens(scene: Scene, settings: Iterable[Setting], model, processor) -> dict[str, Tensor]:
    with_frames: dict[int, list[Setting]] = defaultdict(list)
    for setting in settings:
        with_frames[setting.num_frames].append(setting)
    tokens = {}
    for num_frames, members in with_frames.items():
        clip = ClipTokens(model, processor, render_clip(scene, num_frames))
        tokens |= {setting.name: clip.of(setting) for setting in members}
    return tokens


def _of_one_length(videos: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    groups: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, tokens in videos.items():
        groups[len(tokens)][name] = tokens
    return groups
