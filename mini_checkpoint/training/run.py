"""The whole run: vision tower, cached features, language model, checkpoint."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Tokenizer

from benchmarks.device import choose_device
from hub_upload.whole_file import write_whole
from mini_checkpoint.questions import ask, make_scene
from mini_checkpoint.questions.vocabulary import HELD_OUT_LOOKS

from .data.feature_cache import FeatureCache, feature_cache
from .data.frame_pool import frame_pool
from .data.grounding_questions import ground
from .export.checkpoint import check_output, export
from .export.model_card import model_card
from .model.clock_heads import keep_clocks
from .model.conversations import first_tokens
from .model.mini_model import build_model
from .model.tokenizer import build_tokenizer
from .recipe import FeatureRecipe, LanguageStage, Recipe
from .stages.attention_check import attention_on_objects
from .stages.evaluation import evaluate
from .stages.language_training import LanguageLearner, train_language
from .stages.optimizers import require_muon
from .stages.training_loop import append_log, load_state
from .stages.vision_pretraining import PretrainedTower, pretrain_vision

# Seeds of scenes. Every use has a stream of its own, so that no two see the same clip.
VISION_SEED = 0
CLIP_SEED = 1_000_000
# Of each stage of the language model.
LONG_CLIP_SEEDS = (2_000_000, 4_000_000, 6_000_000)
TOKENIZER_SEEDS = range(3_000_000, 3_000_500)
HELD_OUT_VISION_SEED = 10_000_000
HELD_OUT_SEED = 11_000_000
FINAL_SEED = 12_000_000


def run(
    recipe: Recipe,
    state: Path,
    output: Path,
    device: str | None = None,
    export_only: bool = False,
    last_stage_of: Path | None = None,
    workers: int = 2,
) -> None:
    """Trains, or goes on with the state in the folder, and writes the checkpoint.

    Args:
        device: where to; the CUDA device by default where there is one.
        export_only: train no further.
        last_stage_of: a checkpoint that has all behind it but the language model's last stage, which alone is run.
        workers: processes that draw frames; 0 draws them in this one.

    Raises:
        ImportError: if torch is too old.
        OSError: if something cannot be read or written.
        ValueError: if one of the folders holds something else, there is no such device, the state is that of another
            recipe, or nothing to export, or the checkpoint is broken or another model's.
    """
    require_muon()
    check_output(output, last_stage_of)
    if output.resolve() in (state.resolve(), *state.resolve().parents):
        raise ValueError(f"--state {state} lies in --output {output}: name another folder for one of them")
    device = choose_device(device)
    stages = _stages(recipe, only_last=last_stage_of is not None)
    if export_only and not (state / f"{stages[0].name}.pt").exists():
        raise ValueError(f"there is nothing to export in {state}: its language model has not begun to learn")
    torch.manual_seed(recipe.seed)
    tokenizer = _tokenizer()
    model = build_model(recipe.shape, tokenizer, recipe.seed)
    if last_stage_of is not None:
        _take_over(model, last_stage_of)
    state.mkdir(parents=True, exist_ok=True)
    _claim(state, recipe, last_stage_of)
    model.to(device)
    if not export_only and last_stage_of is None:
        _vision_phase(recipe, model.model.vision_tower, state, workers)
    steps = _language_phase(recipe, stages, model, tokenizer, state, export_only, workers)
    _export(recipe, model.eval(), tokenizer, state, output, steps, last_stage_of, workers)


@dataclass(frozen=True)
class _NumberedStage:
    """A stage of the language model; `index` counts from 0, the name from 1."""

    index: int
    stage: LanguageStage

    @property
    def name(self) -> str:
        return f"language_{self.index + 1}"


def _stages(recipe: Recipe, only_last: bool) -> list[_NumberedStage]:
    stages = [_NumberedStage(index, stage) for index, stage in enumerate(recipe.language)]
    return stages[-1:] if only_last else stages


def _take_over(model: LlavaOnevisionForConditionalGeneration, checkpoint: Path) -> None:
    """Loads the weights of a checkpoint of the same model; of another or a broken one, raises ValueError."""
    try:
        loaded = LlavaOnevisionForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
        model.load_state_dict(loaded.state_dict())
    except SafetensorError as error:
        raise ValueError(f"the weights of {checkpoint} cannot be read: {error}; get them anew") from error
    except RuntimeError as error:
        raise ValueError(f"{checkpoint} holds another model than the recipe's: {error}") from error


def _tokenizer() -> Qwen2Tokenizer:
    scenes = [make_scene(seed, "train") for seed in TOKENIZER_SEEDS]
    times = np.linspace(0, 1, 8)
    questions = [question for scene in scenes for question in (*ask(scene), *ground(scene, times, 100, seed=0))]
    return build_tokenizer([question.text for question in questions], [question.answer for question in questions])


def _vision_phase(recipe: Recipe, vision_tower: nn.Module, state: Path, workers: int) -> None:
    vision = recipe.vision
    tower = PretrainedTower(vision_tower).to(vision_tower.device)
    frames = frame_pool(state / "frames.npy", "train", VISION_SEED, vision.scenes, vision.frames_a_scene, workers)
    held_out = frame_pool(
        state / "held_out_frames.npy",
        "held_out",
        HELD_OUT_VISION_SEED,
        vision.held_out_scenes,
        vision.held_out_frames_a_scene,
        workers,
    )
    pretrain_vision(tower, frames, held_out, vision, recipe.seed, state, min(1, workers))
    append_log(state, phase="vision", attention_received=attention_on_objects(vision_tower, held_out))


def _language_phase(
    recipe: Recipe,
    stages: list[_NumberedStage],
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    state: Path,
    export_only: bool,
    workers: int,
) -> int:
    """Leaves the model as the state has it, and returns the number of steps that it learnt."""
    learner = LanguageLearner(model).to(model.device)
    if not export_only:
        keep_clocks(model.model, first_tokens(tokenizer))
        tower, count = model.model.vision_tower, recipe.features.held_out_clips
        held_out = _held_out(recipe, tower, state / "held_out.npy", HELD_OUT_SEED, count, workers)
    steps = sum(stage.schedule.steps for stage in recipe.language[: stages[0].index])
    for each in stages:
        begins_with = [parameter.detach().clone() for parameter in learner.parameters()]
        if not export_only:
            caches = _training_clips(recipe.features, each.index, tower, state, workers)
            seed = recipe.seed + each.index
            train_language(each.name, learner, tokenizer, caches, held_out, each.stage, seed, state)
        steps += load_state(state / f"{each.name}.pt", learner)
        _average(learner, begins_with, each.stage.beginning_share)
    return steps


@torch.no_grad()
def _average(learner: LanguageLearner, begins_with: list[torch.Tensor], beginning_share: float) -> None:
    for parameter, beginning in zip(learner.parameters(), begins_with):
        parameter.lerp_(beginning, beginning_share)


def _training_clips(
    sizes: FeatureRecipe, stage: int, vision_tower: nn.Module, state: Path, workers: int
) -> list[FeatureCache]:
    """The short clips, which all stages see, and the stage's own long ones."""
    uses = (
        ("clips", CLIP_SEED, sizes.clips, sizes.frames),
        (f"long_{stage + 1}", LONG_CLIP_SEEDS[stage], sizes.long_clips[stage], sizes.long_frames),
    )
    return [
        feature_cache(state / f"{name}.npy", vision_tower, "train", seed, count, frames, min(1, workers))
        for name, seed, count, frames in uses
    ]


def _export(
    recipe: Recipe,
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    state: Path,
    output: Path,
    steps: int,
    last_stage_of: Path | None,
    workers: int,
) -> None:
    tower, count = model.model.vision_tower, recipe.features.final_clips
    clips = _held_out(recipe, tower, state / "final.npy", FINAL_SEED, count, workers)
    results = evaluate(model, tokenizer, clips)
    append_log(state, phase="final", step=steps, **results)
    withheld = sorted(f"{colour} {shape}" for colour, shape in HELD_OUT_LOOKS)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    card = model_card(recipe, results, num_parameters, withheld, steps, last_stage_of is not None)
    export(model, tokenizer, card, output, last_stage_of)


def _held_out(
    recipe: Recipe, vision_tower: nn.Module, file: Path, seed: int, clips: int, workers: int
) -> FeatureCache:
    return feature_cache(file, vision_tower, "held_out", seed, clips, recipe.features.long_frames, min(1, workers))


def _claim(state: Path, recipe: Recipe, last_stage_of: Path | None) -> None:
    """Notes recipe and beginning in a new state folder; refuses a folder that holds another state or anything else."""
    file = state / "recipe.json"
    begins_with = None
    if last_stage_of is not None:
        begins_with = hashlib.sha256((last_stage_of / "model.safetensors").read_bytes()).hexdigest()
    text = json.dumps({**recipe.as_dict(), "last_stage_of": begins_with}, indent=1)
    if not file.exists():
        if any(state.iterdir()):
            raise ValueError(f"{state} is not empty and holds no state: name another folder with --state")
        write_whole(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    elif json.loads(file.read_text(encoding="utf-8")) != json.loads(text):
        raise ValueError(f"{state} holds the state of another recipe: name another folder with --state")
