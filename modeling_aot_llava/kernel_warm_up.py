"""Runs on GPUs before the first video: compiles the Triton kernels that videos will need, so that none waits."""

from collections.abc import Iterable

import torch

from .fused_kernels import can_run_kernels, power_of_2_from
from .sinkhorn_kernel import sinkhorn_tile
from .spatiotemporal_pruning import compress_video_features, recipe_of
from .token_anchors import attention_received
from .token_budget import plan_token_budget

# Frames of the videos that are expected where nothing else is said.
EXPECTED_FRAMES = range(1, 129)


@torch.no_grad()
def warm_up_kernels(
    config,
    dtype: torch.dtype,
    tower_device: torch.device,
    transport_device: torch.device,
    num_frames: Iterable[int] = EXPECTED_FRAMES,
) -> None:
    """Runs AOT on empty videos, once for each kind of size that a kernel is compiled for.

    No kernel is compiled for a number of frames, so these are few, whatever `num_frames` is. Where no kernels run, as
    on a CPU, nothing is done.

    Args:
        config: an `AOTLlavaOnevisionConfig`. Videos at another retention ratio may need other kernels.
        dtype: the vision tower's.
        tower_device, transport_device: where the vision tower and the projector are.
        num_frames: the lengths of videos to be ready for, each at least 1.

    Raises:
        ValueError: if the config is invalid, or there is no plan for a number of frames.
    """
    budgets = {_kinds_of_size(config, frames): frames for frames in num_frames}
    projected = _projected_patches(config, dtype, tower_device)
    if can_run_kernels((projected,)):
        attention_received(projected, projected, scale=1.0)
    if can_run_kernels((torch.empty(1, device=transport_device),)):
        for frames in budgets.values():
            _compress_nothing(config, frames, transport_device)
            _transport_padded_frames(config, frames, transport_device)


def _kinds_of_size(config, num_frames: int) -> tuple:
    budget = plan_token_budget(config, num_frames)
    others = config.patch_grid_size**2 - budget.patch_anchors
    return (
        sinkhorn_tile(max(1, others), budget.patch_anchors),
        sinkhorn_tile(budget.pooled_anchors, budget.pooled_anchors),
        max(budget.clip_lengths) > 1,
    )


def _projected_patches(config, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    # As the vision tower's projections leave them: heads side by side in a row.
    vision = config.vision_config
    rows = torch.zeros(1, config.patch_grid_size**2, vision.hidden_size, dtype=dtype, device=device)
    return rows.unflatten(-1, (vision.num_attention_heads, -1)).transpose(1, 2)


def _compress_nothing(config, num_frames: int, device: torch.device) -> None:
    features = torch.zeros(num_frames, config.patch_grid_size**2, 1, dtype=torch.float32, device=device)
    attention = features.squeeze(-1)
    compress_video_features(features, attention, attention, config, features[:, 0])


def _transport_padded_frames(config, num_frames: int, device: torch.device) -> None:
    # Where the number of tokens depends on the video, any may come along time, up to all pooled positions.
    recipe = recipe_of(config, plan_token_budget(config, num_frames))
    positions = config.pooled_grid_size**2
    for exponent in range(power_of_2_from(positions).bit_length()):
        kept = torch.arange(positions, device=device).unsqueeze(0) < 2**exponent
        index, mask = recipe.positions(kept)
        if mask is None:
            return
        num_tokens = index.shape[1]
        cost = torch.zeros(1, num_tokens, num_tokens, dtype=torch.float32, device=device)
        recipe.transport(cost, mask, mask)
