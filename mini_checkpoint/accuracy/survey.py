"""Asks all questions about one clip, under many settings."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from aot_llava_baselines import BaselineGenerator, build_baseline
from aot_llava_baselines.encoding import encode_video
from aot_llava_baselines.interface import ReducedVideo
from mini_checkpoint.questions import Question, Scene, ask, render_clip
from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

from .answering import answer_one_by_one, answer_questions
from .clip_tokens import ClipTokens, pixels_of
from .settings import BASELINES, Setting


@dataclass(frozen=True)
class Reply:
    """What came of one clip under one setting.

    Attributes:
        video_tokens: how many the language model's first layer read, newline not counted.
        answers: one for each question of `ask`.
    """

    video_tokens: int
    answers: list[str]


@dataclass(frozen=True)
class Checkpoint:
    """What is asked: the checkpoint as AOT loads it, and as the stock class does, for the other methods."""

    model: AOTLlavaOnevisionForConditionalGeneration
    processor: AOTLlavaOnevisionProcessor
    stock: LlavaOnevisionForConditionalGeneration


def ask_about(scene: Scene, settings: Iterable[Setting], checkpoint: Checkpoint) -> dict[str, Reply]:
    """Asks all questions about a scene's clip; the replies by name of the setting."""
    questions = ask(scene)
    replies: dict[str, Reply] = {}
    videos: dict[str, ReducedVideo] = {}
    for num_frames, members in _by_frames(settings).items():
        frames = render_clip(scene, num_frames)
        before, inside = _reduced(frames, members, checkpoint, questions)
        videos |= before
        replies |= inside
    for (num_tokens, end), alike in _of_one_length(videos).items():
        places = torch.stack([video.places for video in alike.values()]) if end else None
        tokens = torch.stack([video.tokens for video in alike.values()])
        answers = answer_questions(checkpoint.model, checkpoint.processor, tokens, questions, places, end)
        replies |= {name: Reply(num_tokens, given) for name, given in zip(alike, answers)}
    return replies


def _reduced(
    frames, settings: list[Setting], checkpoint: Checkpoint, questions: list[Question]
) -> tuple[dict[str, ReducedVideo], dict[str, Reply]]:
    """What the language model reads of a clip; or at once the replies, where that depends on the question."""
    videos, replies = {}, {}
    others = [setting for setting in settings if setting.reduction not in BASELINES]
    if others:
        clip = ClipTokens(checkpoint.model, checkpoint.processor, frames)
        videos = {setting.name: ReducedVideo(clip.of(setting)) for setting in others}
    baselines = [setting for setting in settings if setting.reduction in BASELINES]
    if baselines:
        encoded = encode_video(checkpoint.stock, pixels_of(checkpoint.processor, frames))
        for setting in baselines:
            generator = BaselineGenerator(checkpoint.stock, method_of(setting))
            if generator.method.works_inside:
                replies[setting.name] = Reply(*answer_one_by_one(generator, checkpoint.processor, encoded, questions))
            else:
                videos[setting.name] = generator.method.reduce(encoded)
    return videos, replies


def method_of(setting: Setting):
    """The method of a setting of `BASELINES`."""
    return build_baseline(setting.reduction, **{"retention_ratio": setting.retention_ratio, **setting.fields})


def _by_frames(settings: Iterable[Setting]) -> dict[int, list[Setting]]:
    with_frames: dict[int, list[Setting]] = defaultdict(list)
    for setting in settings:
        with_frames[setting.num_frames].append(setting)
    return with_frames


def _of_one_length(videos: dict[str, ReducedVideo]) -> dict[tuple[int, int | None], dict[str, ReducedVideo]]:
    groups: dict[tuple[int, int | None], dict[str, ReducedVideo]] = defaultdict(dict)
    for name, video in videos.items():
        groups[len(video.tokens), video.end][name] = video
    return groups
