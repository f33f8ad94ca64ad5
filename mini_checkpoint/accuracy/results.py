"""From replies to figures: everything that the tables and the plot show, as JSON takes it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from aot_llava_baselines.cost import ReadingCost
from mini_checkpoint.questions import QUESTION_TYPES, Question

from .scoring import CONFIDENCE, NUM_DRAWS, Estimate, draw_clips, is_right, share
from .settings import AOT, FULL, FULL_TOKENS, GROUPS, Setting
from .survey import Reply


def summarise(
    questions: Sequence[Sequence[Question]],
    replies: dict[Setting, Sequence[Reply]],
    tokens_per_frame: int,
    cost_of: Callable[[Setting, Reply], ReadingCost],
    about: dict[str, Any],
) -> dict[str, Any]:
    """All results.

    Args:
        questions: of each clip.
        replies: of each setting, one for each clip.
        tokens_per_frame: P, that the stock model's language model reads of a frame.
        cost_of: a setting's FLOPs of reading a clip.
        about: what else there is to say of the run.
    """
    everything = [question for of_clip in questions for question in of_clip]
    kinds = [kind for kind in QUESTION_TYPES if any(question.type == kind for question in everything)]
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **about,
        "clips": len(questions),
        "questions": len(everything),
        "confidence": CONFIDENCE,
        "draws": NUM_DRAWS,
        "chance": _chance(everything),
        "types": {
            kind: {
                "questions": sum(question.type == kind for question in everything),
                "chance": _chance([question for question in everything if question.type == kind]),
            }
            for kind in kinds
        },
        "settings": _figures(questions, replies, tokens_per_frame, cost_of, kinds),
        "groups": {
            title: names
            for title, members in GROUPS.items()
            if (names := [setting.name for setting in members if setting in replies])
        },
    }


def _figures(
    questions: Sequence[Sequence[Question]],
    replies: dict[Setting, Sequence[Reply]],
    tokens_per_frame: int,
    cost_of: Callable[[Setting, Reply], ReadingCost],
    kinds: list[str],
) -> dict[str, dict[str, Any]]:
    draws = draw_clips(len(questions))
    marks = {setting: _marks(questions, of_setting) for setting, of_setting in replies.items()}
    full = {setting.num_frames: setting for setting in replies if setting.reduction == FULL_TOKENS}
    aot = {_budget(setting): setting for setting in replies if setting.reduction == AOT and not setting.fields}

    def accuracy(setting: Setting, kind: str | None = None) -> Estimate:
        return share(_right(marks[setting], kind), _asked(marks[setting], kind), draws)

    def share_of_full(setting: Setting) -> Estimate | None:
        other = full.get(setting.num_frames)
        return None if other is None else share(_right(marks[setting]), _right(marks[other]), draws)

    def difference_to_aot(setting: Setting) -> Estimate | None:
        other = aot.get(_budget(setting), setting)
        if other == setting:
            return None
        return share(_right(marks[setting]) - _right(marks[other]), _asked(marks[setting]), draws)

    figures = {}
    for setting, of_setting in replies.items():
        video_tokens = float(np.mean([reply.video_tokens for reply in of_setting]))
        all_tokens = setting.num_frames * tokens_per_frame
        costs = [cost_of(setting, reply) for reply in of_setting]
        whole = cost_of(_full_of(setting), Reply(all_tokens, []))

        def mean(part: str, costs: Sequence[ReadingCost] = costs) -> float:
            return float(np.mean([getattr(cost, part) for cost in costs]))

        figures[setting.name] = {
            "series": setting.series,
            "label": setting.label,
            "reduction": setting.reduction,
            "retention_ratio": setting.retention_ratio,
            "frames": setting.num_frames,
            "fields": dict(setting.fields),
            "video_tokens": video_tokens,
            "share_of_video_tokens": video_tokens / all_tokens,
            "prefill_flops": mean("eq17"),
            "tower_flops": mean("tower"),
            "share_of_prefill_flops": mean("eq17") / whole.eq17,
            "share_of_flops": mean("with_tower") / whole.with_tower,
            "share_of_computed_flops": mean("as_computed") / whole.as_computed,
            "frames_read": _frames_read(of_setting, setting.num_frames),
            "accuracy": accuracy(setting),
            "share_of_full": share_of_full(setting),
            "difference_to_aot": difference_to_aot(setting),
            "by_type": {kind: accuracy(setting, kind) for kind in kinds},
        }
    return figures


def _full_of(setting: Setting) -> Setting:
    return replace(FULL, num_frames=setting.num_frames)


def _frames_read(replies: Sequence[Reply], num_frames: int) -> float:
    """By the vision tower's last layer, on average."""
    return float(np.mean([(reply.frames_per_layer or [num_frames])[-1] for reply in replies]))


def _marks(questions: Sequence[Sequence[Question]], replies: Sequence[Reply]) -> list[list[tuple[str, bool]]]:
    """For each question of each clip its type, and whether it was answered right."""
    return [
        [(question.type, is_right(question, answer)) for question, answer in zip(of_clip, reply.answers)]
        for of_clip, reply in zip(questions, replies)
    ]


def _right(marks: list[list[tuple[str, bool]]], kind: str | None = None) -> np.ndarray:
    return np.array([sum(right for of_kind, right in of_clip if kind in (None, of_kind)) for of_clip in marks])


def _asked(marks: list[list[tuple[str, bool]]], kind: str | None = None) -> np.ndarray:
    return np.array([sum(kind in (None, of_kind) for of_kind, _ in of_clip) for of_clip in marks])


def _budget(setting: Setting) -> tuple[float, int]:
    return setting.retention_ratio, setting.num_frames


def _chance(questions: Sequence[Question]) -> float:
    return sum(1 / question.num_answers for question in questions) / len(questions)
