"""Table 3: how long Sinkhorn takes by its iterations, beside the time to the first token of the same run."""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import compress
from unittest.mock import patch

import torch
import transformers
from torch import Tensor

from benchmarks.device import choose_device
from benchmarks.measure import seconds
from benchmarks.shapes import SHAPES, build_models, make_prompt, random_videos
from modeling_aot_llava.optimal_transport import sinkhorn
from modeling_aot_llava.paper_recipe import PaperRecipe
from modeling_aot_llava.recipe import Recipe
from modeling_aot_llava.token_budget import TokenBudget, plan_token_budget

# Milliseconds that the paper prints, of 32 frames on an A100: within frames, between frames.
PAPER = {50: (0.50, 1.50), 100: (0.51, 1.60)}
FRAMES_OF_PAPER = 32


def measure_sinkhorn(options: argparse.Namespace) -> str:
    """The table, as Markdown: all iterations made, and as the model stops them.

    Args:
        options: `iterations`, `frames`, `shape`, `repeats` and `device`, as the program reads them.

    Raises:
        ValueError: if there is no such device.
        MemoryError: if the model does not fit into its memory.
    """
    device = choose_device(options.device)
    on_gpu = device.type == "cuda"
    shape = options.shape or ("7b" if on_gpu else "tiny")
    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    _, model = build_models(SHAPES[shape], torch.bfloat16 if on_gpu else torch.float32, device)
    budget = plan_token_budget(model.config, options.frames)
    within, between = _costs(model, budget)
    first_token = _median(partial(_first_token, model, budget), options.repeats, device)

    where = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    lines = [
        f"### Table 3: Sinkhorn, {options.frames} frames, {where}",
        "",
        "| iterations | stops | within frames, ms / paper's | between, ms / paper's | both | % of the first token |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    for iterations in options.iterations:
        for tolerance in (0.0, model.config.sinkhorn_tolerance):
            spent = [
                _median(partial(_transport, costs, iterations, tolerance), options.repeats, device)
                for costs in (within, between)
            ]
            stops = f"change below {tolerance:g}" if tolerance else "never"
            printed = PAPER.get(iterations) if options.frames == FRAMES_OF_PAPER else None
            cells = [_cell(*figures) for figures in zip(spent, printed or (None, None))]
            share = f"{100 * sum(spent) / first_token:.1f}"
            lines.append(f"| {iterations} | {stops} | {' | '.join(cells)} | {1000 * sum(spent):.2f} | {share} |")
    lines += ["", f"First token ({shape} shape, random weights): {1000 * first_token:.0f} ms."]
    return "\n".join(lines) + "\n"


def _costs(model, budget: TokenBudget) -> tuple[list[Tensor], list[Tensor]]:
    """The costs of all transports of a video: those within frames, and those of each step along time."""
    costs: list[Tensor] = []
    transport = Recipe.transport

    def record(recipe: Recipe, cost: Tensor, *masks: Tensor | None) -> Tensor:
        costs.append(cost.clone())
        return transport(recipe, cost, *masks)

    with patch.object(Recipe, "transport", record):
        _first_token(model, budget)
    is_within = [sum(cost.shape[-2:]) == model.config.patch_grid_size**2 for cost in costs]
    return list(compress(costs, is_within)), [cost for cost, within in zip(costs, is_within) if not within]


def _transport(costs: list[Tensor], iterations: int, tolerance: float) -> None:
    for cost in costs:
        sinkhorn(cost, max_iterations=iterations, tolerance=tolerance, largest_cost=PaperRecipe.largest_cost)


def _first_token(model, budget: TokenBudget) -> None:
    pixels = random_videos(model.config, 1, len(budget.kept_per_frame), model.lm_head.weight)
    model.generate(**make_prompt(model.config, budget.num_video_tokens, pixels), max_new_tokens=1)


@torch.inference_mode()
def _median(run: Callable[[], None], repeats: int, device: torch.device) -> float:
    run()
    return sorted(seconds(run, device) for _ in range(repeats))[repeats // 2]


def _cell(own: float, printed: float | None) -> str:
    return f"{1000 * own:.2f} / " + ("-" if printed is None else f"{printed:.2f}")
