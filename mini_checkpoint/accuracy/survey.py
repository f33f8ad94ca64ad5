"""Asks all questions about one clip, under many settings."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from aot_llava_baselines import Baseline, BaselineGenerator, build_baseline
from aot_llava_baselines.cost import ModelShape, ReadingCost, reading_cost
from aot_llava_baselines.encoding import encode_video
from aot_llava_baselines.interface import EncodedVideo, ReducedVideo
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
        tokens_per_layer: how many each of its layers read, of a method that works in it; else empty.
        frames_per_layer: how many frames each layer of the vision tower read, of a method that leaves out some.
    """

    video_tokens: int
    answers: list[str]
    tokens_per_layer: list[int] = field(default_factory=list)
    frames_per_layer: list[int] = field(default_factory=list)


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
    frames_per_layer: dict[str, list[int]] = {}
    for num_frames, members in _by_frames(settings).items():
        frames = render_clip(scene, num_frames)
        before, inside = _reduced(frames, members, checkpoint, questions, frames_per_layer)
        videos |= before
        replies |= inside
    for (num_tokens, end), alike in _of_one_length(videos).items():
        places = torch.stack([video.places for video in alike.values()]) if end else None
        tokens = torch.stack([video.tokens for video in alike.values()])
        answers = answer_questions(checkpoint.model, checkpoint.processor, tokens, questions, places, end)
        replies |= {
            name: Reply(num_tokens, given, frames_per_layer=frames_per_layer.get(name, []))
            for name, given in zip(alike, answers)
        }
    return replies


def _reduced(
    frames,
    settings: list[Setting],
    checkpoint: Checkpoint,
    questions: list[Question],
    frames_per_layer: dict[str, list[int]],
) -> tuple[dict[str, ReducedVideo], dict[str, Reply]]:
    """What the language model reads of a clip; or at once the replies, where that depends on the question.

    Notes what the vision tower's layers read where it is not all.
    """
    videos, replies = {}, {}
    others = [setting for setting in settings if setting.reduction not in BASELINES]
    if others:
        clip = ClipTokens(checkpoint.model, checkpoint.processor, frames)
        videos = {setting.name: ReducedVideo(clip.of(setting)) for setting in others}
    baselines = [setting for setting in settings if setting.reduction in BASELINES]
    if baselines:
        pixels = pixels_of(checkpoint.processor, frames)
    encoded: dict[tuple | None, EncodedVideo] = {}
    for setting in baselines:
        generator = BaselineGenerator(checkpoint.stock, method_of(setting))
        method = generator.method
        if method.tower_settings not in encoded:
            encoded[method.tower_settings] = encode_video(checkpoint.stock, pixels, method=method)
        video = encoded[method.tower_settings]
        frames_per_layer[setting.name] = list(video.frames_per_layer)
        if method.works_inside:
            given = answer_one_by_one(generator, checkpoint.processor, video, questions)
            replies[setting.name] = Reply(*given, frames_per_layer[setting.name])
        else:
            videos[setting.name] = method.reduce(video)
    return videos, replies


def cost_of(setting: Setting, reply: Reply, shape: ModelShape) -> ReadingCost:
    """FLOPs of reading a clip, by what its layers were seen to read."""
    method = method_of(setting) if setting.reduction in BASELINES else Baseline()
    return reading_cost(
        method,
        shape,
        setting.num_frames,
        reply.video_tokens,
        frames_per_layer=reply.frames_per_layer,
        tokens_per_layer=reply.tokens_per_layer,
    )


def method_of(setting: Setting) -> Baseline:
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
