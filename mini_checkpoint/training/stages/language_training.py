"""The second phase: projector, newline and language model learn to answer, on the frozen tower's cached output.

Always with all video tokens of the frames; how many frames, and how far apart the positions of the tokens are, differs
from step to step, so that the model does not count on a certain number of tokens. Later stages put noise on them.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Tokenizer

from mini_checkpoint.questions import Question, Scene, ask, visible_objects
from mini_checkpoint.training.data.feature_cache import FeatureCache
from mini_checkpoint.training.data.grounding_questions import ground
from mini_checkpoint.training.model.conversations import (
    NO_ANSWER,
    beginning_tokens,
    joined,
    question_tokens,
    tokens_before_video,
)
from mini_checkpoint.training.recipe import LanguageStage

from .answering import answer
from .evaluation import evaluate
from .key_dropout import KEY_DROPOUT, draw_hidden_keys
from .pointing_supervision import HIGH_LAYER, LAYERS, FindingHeads, Names, pointers, pointing_loss
from .token_mixing import draw_mixing
from .tracking_supervision import POOLED_GRID, TrackingHeads, look_back_loss, track_targets
from .training_loop import train

END_WEIGHT = 0.1
# About so many tokens all that is asked about a clip has.
QUESTION_TOKENS = 250


class LanguageLearner(nn.Module):
    """The whole model, of which the tower is frozen, with heads that are thrown away afterwards."""

    def __init__(self, model: LlavaOnevisionForConditionalGeneration):
        super().__init__()
        self.model = model
        width = model.config.text_config.hidden_size
        self.tracking, self.finding = TrackingHeads(width), FindingHeads(width)
        model.model.vision_tower.requires_grad_(False)
        model.model.language_model.set_attn_implementation(KEY_DROPOUT)


def train_language(
    name: str,
    learner: LanguageLearner,
    tokenizer: Qwen2Tokenizer,
    caches: list[FeatureCache],
    held_out: FeatureCache,
    stage: LanguageStage,
    seed: int,
    state_folder: Path,
) -> None:
    """Trains the learner, or goes on with the state of the phase of this name in the folder."""
    device = next(learner.parameters()).device
    before_video, names = tokens_before_video(tokenizer).to(device), Names(tokenizer, device)

    def loss_of(batch: dict) -> tuple[Tensor, dict[str, float]]:
        questions = batch["questions"].to(device)
        answers = answer(
            learner.model,
            before_video,
            batch["features"].to(device),
            questions,
            batch["clip_of_question"].to(device),
            batch["position_scale"].to(device),
            look_layers=LAYERS,
            tracking_tokens=tuple((track.owner >= 0).nonzero()[:, 0].to(device) for track in batch["tracks"]),
            mixing=None if batch["mixing"] is None else batch["mixing"].to(device),
            hidden_keys=None if batch["hidden_keys"] is None else batch["hidden_keys"].to(device),
        )
        is_asked = questions.answers[:, 0] != NO_ANSWER
        word, end = (
            functional.cross_entropy(answers.logits[is_asked, i], questions.answers[is_asked, i]) for i in (0, 1)
        )
        looking_back = look_back_loss(answers.looks_back, batch["tracks"])
        at_video = {layer: attention[~is_asked] for layer, attention in answers.looks_at_video.items()}
        at_names = {layer: attention[is_asked] for layer, attention in answers.looks_at_question.items()}
        pointing = pointing_loss(at_video, batch["pointers"])
        asking = names.asking_loss(at_names, questions[is_asked])
        loss = word + END_WEIGHT * end + stage.pointing_weight * (pointing + asking + looking_back)
        right = (answers.logits[:, 0].argmax(-1) == questions.answers[:, 0])[is_asked].float().mean()
        terms = {"answer": word, "looking_back": looking_back, "pointing": pointing, "asking": asking, "right": right}
        if stage.tracking_weight:
            scale = batch["position_scale"].to(device)
            terms["tracking"] = learner.tracking.loss(answers.video_hidden, batch["tracks"], scale)
            loss = loss + stage.tracking_weight * terms["tracking"]
        if stage.finding_weight:
            found = answers.asked_hidden[HIGH_LAYER + 1][~is_asked]
            terms["finding"] = learner.finding.loss(found, batch["pointers"])
            loss = loss + stage.finding_weight * terms["finding"]
        figures = {name: term.item() for name, term in terms.items()}
        return loss, {**figures, "frames": batch["features"].shape[1]}

    def held_out_accuracy() -> dict[str, float]:
        return evaluate(learner.model, tokenizer, held_out)["accuracy"]

    text = learner.model.config.text_config
    draw = partial(draw_batch, caches, tokenizer, stage, (text.num_hidden_layers, text.num_attention_heads), seed)
    train(name, learner, draw, loss_of, stage.schedule, state_folder, held_out_accuracy, workers=0)


def draw_batch(
    caches: list[FeatureCache],
    tokenizer: Qwen2Tokenizer,
    stage: LanguageStage,
    layers_and_heads: tuple[int, int],
    seed: int,
    step: int,
) -> dict:
    """Draws clips of one number of frames, with all of their questions that these frames can answer."""
    draw = np.random.default_rng([seed, step])
    num_frames = _num_frames(stage, step, draw)
    candidates = [cache for cache in caches if cache.num_frames >= num_frames]
    # The shortest clips that are long enough, of which there are most; clips of the wanted length are taken whole.
    cache = min(candidates, key=lambda cache: cache.num_frames)
    count = max(1, stage.tokens_a_step // (num_frames * POOLED_GRID**2 + QUESTION_TOKENS))
    features, tracks, pointing, questions, clip_of_question = [], [], [], [], []
    for row, clip in enumerate(draw.choice(len(cache), count, replace=False)):
        scene = cache.scene(int(clip))
        frames = _choose_frames(scene, cache.num_frames, num_frames, draw)
        times = frames / (cache.num_frames - 1)
        asked = ground(scene, times, _of_now(stage.grounding_questions, stage, step), seed=step)
        if num_frames > 1:
            asked += [question for question in ask(scene) if is_answerable(question, scene, times, cache.num_frames)]
        features.append(cache.of_clip(int(clip), frames))
        tracks.append(track_targets(scene, times))
        named = pointers(scene, times, tracks[-1])
        pointing += named
        questions += [question_tokens(tokenizer, asked), beginning_tokens(tokenizer, [name.text for name in named])]
        clip_of_question += [row] * (len(asked) + len(named))
    scales = np.exp(draw.uniform(np.log(stage.smallest_position_scale), 0, count))
    scales = np.where(draw.random(count) < stage.unscaled_share, 1.0, scales)
    mixing = hidden_keys = None
    if stage.largest_mixture:
        mixing = draw_mixing(draw, count, num_frames, POOLED_GRID**2, stage.largest_mixture)
    if stage.largest_hidden_share:
        num_video = num_frames * POOLED_GRID**2
        hidden_keys = draw_hidden_keys(draw, count, *layers_and_heads, num_video, stage.largest_hidden_share)
    return {
        "features": torch.stack(features),
        "mixing": mixing,
        "hidden_keys": hidden_keys,
        "tracks": tracks,
        "pointers": pointing,
        "questions": joined(questions),
        "clip_of_question": torch.tensor(clip_of_question),
        "position_scale": torch.tensor(scales, dtype=torch.float32),
    }


def is_answerable(question: Question, scene: Scene, times: np.ndarray, all_frames: int) -> bool:
    """Whether the frames at these times show what the question is about; all frames of a cached clip do.

    Frames that were left out may hide a short appearance, how far something moved, and what came first.
    """
    if len(times) == all_frames or question.type in ("colour", "where", "change"):
        return True
    seen = [index for time in times for index, *_ in visible_objects(scene, float(time))]
    least = min(seen.count(index) for index in range(len(scene.objects)))
    return {"count": 1, "brief": 1, "direction": 2}.get(question.type, len(times)) <= least


def _num_frames(stage: LanguageStage, step: int, draw: np.random.Generator) -> int:
    counts, weights = zip(*_of_now(stage.frame_counts, stage, step))
    return int(draw.choice(counts, p=np.array(weights) / sum(weights)))


def _of_now(parts: tuple, stage: LanguageStage, step: int):
    progress = step / stage.schedule.steps
    return next(value for until, value in parts if progress < until)


def _choose_frames(scene: Scene, available: int, wanted: int, draw: np.random.Generator) -> np.ndarray:
    """The first, the last, and random ones between, in order; or a single one that shows something."""
    if wanted == 1:
        return draw.choice([i for i in range(available) if visible_objects(scene, i / (available - 1))], 1)
    between = draw.choice(np.arange(1, available - 1), wanted - 2, replace=False)
    return np.array([0, *sorted(between), available - 1])
