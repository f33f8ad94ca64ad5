"""Frames whose grid is no square: windows, pooling and the budget against naive ones."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from modeling_aot_llava import AOTLlavaOnevisionConfig
from modeling_aot_llava.spatial_pooling import coverage_of, coverage_steps, pool_grid, pooling_matrix
from modeling_aot_llava.token_anchors import select_token_anchors
from modeling_aot_llava.token_budget import FrameGrid, plan_token_budget

sides = st.integers(1, 13)
quick = settings(max_examples=60, deadline=None)


def naive_anchors(local, global_, num_anchors, window, local_ratio, grid):
    height, width = grid
    windows = [
        [
            row * width + column
            for row in range(top, min(top + window, height))
            for column in range(left, min(left + window, width))
        ]
        for top in range(0, height, window)
        for left in range(0, width, window)
    ]
    per_window = math.floor(num_anchors * local_ratio) // len(windows)
    chosen = set()
    for patches in windows:
        chosen |= set(sorted(patches, key=lambda patch: (-local[patch], patch))[:per_window])
    rest = sorted(set(range(height * width)) - chosen, key=lambda patch: (-global_[patch], patch))
    return chosen, set(rest[: num_anchors - len(chosen)])


@quick
@given(data=st.data(), height=sides, width=sides, window=st.integers(1, 6), local_ratio=st.floats(0, 1))
def test_anchors_are_the_best_of_each_window_and_of_the_rest(data, height, width, window, local_ratio):
    num_anchors = data.draw(st.integers(1, height * width))
    random = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    local, global_ = torch.rand(2, 3, height * width, generator=random).round(decimals=1).unbind()
    anchors = select_token_anchors(local, global_, num_anchors, window, local_ratio, grid=(height, width))
    assert anchors.count == num_anchors
    for frame in range(3):
        expected = naive_anchors(
            local[frame].tolist(), global_[frame].tolist(), num_anchors, window, local_ratio, (height, width)
        )
        found = (anchors.local[frame], anchors.global_[frame])
        assert tuple(set(mask.nonzero().flatten().tolist()) for mask in found) == expected


@quick
@given(height=sides, width=sides, mode=st.sampled_from(["bilinear", "average", "none"]))
def test_the_pooling_matrix_pools(height, width, mode):
    grid = FrameGrid((height, width), mode)
    if not grid.num_pooled:  # the average of 2 x 2 patches of a single row
        return
    matrix = pooling_matrix((height, width), mode=mode)
    values = torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(0))
    pooled = pool_grid(values, mode)
    assert pooled.shape[-2:] == grid.pooled
    assert matrix.shape == (grid.num_pooled, grid.num_patches)
    torch.testing.assert_close(values.flatten(2) @ matrix.T, pooled.flatten(2))
    steps = matrix * coverage_steps(grid.num_pooled)
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    everything = coverage_of(torch.ones(1, grid.num_patches, dtype=torch.bool), matrix)
    assert everything.unique().tolist() == [coverage_steps(grid.num_pooled)]


@quick
@given(height=sides, width=sides, num_frames=st.integers(1, 40), ratio=st.floats(0.01, 0.99))
def test_the_budget_is_met_without_pooling(height, width, num_frames, ratio):
    grid = FrameGrid((height, width), "none")
    config = AOTLlavaOnevisionConfig(retention_ratio=ratio)
    plan = plan_token_budget(config, num_frames, grid=grid)
    assert plan.grid is grid
    clips = max(1, min(8, num_frames // 2))
    everything = num_frames * height * width
    assert plan.num_video_tokens == min(everything, max(clips, math.floor(ratio * everything + 0.5)))
    assert sum(plan.kept_per_frame) == plan.num_video_tokens
    assert max(plan.kept_per_frame) <= height * width
    assert 1 <= plan.patch_anchors <= height * width


def test_a_square_grid_needs_no_name():
    local, global_ = torch.rand(2, 2, 49, generator=torch.Generator().manual_seed(1)).unbind()
    square, named = (select_token_anchors(local, global_, 12, 3, 0.5, grid=grid) for grid in (None, (7, 7)))
    assert torch.equal(square.local, named.local)
    assert torch.equal(square.global_, named.global_)


def test_bilinear_pooling_is_that_of_the_base_model_on_a_square():
    values = torch.randn(1, 3, 27, 27, generator=torch.Generator().manual_seed(2))
    assert torch.equal(pool_grid(values, "bilinear"), functional.interpolate(values, size=(14, 14), mode="bilinear"))
