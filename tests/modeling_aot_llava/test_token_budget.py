"""The token budget: B is met to the token, and shared as ALGORITHM.md section 7 says.

The processor writes B placeholders before any pixel is seen; a plan that is off by one token breaks
generation. Where a float ratio lies on the brink of rounding, either neighbour is right, so B and M
are checked against the exact number and everything else against the reference, given B and M.
"""

import math
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import small_config
from reference.naive_aot import ANCHORS_BY_RATIO, naive_budget

from modeling_aot_llava import AOTLlavaOnevisionConfig
from modeling_aot_llava.token_budget import plan_token_budget, released_keep_ratio

ROUNDING = Fraction(1, 2) + Fraction(1, 10**9)
GRIDS = (27, 26, 24, 16, 10, 7, 5, 2, 1)
CONFIGS = {grid: small_config(grid) for grid in GRIDS}

grids = st.sampled_from(GRIDS)
frame_counts = st.integers(1, 128)
clip_counts = st.integers(1, 16)
ratios = st.one_of(
    st.floats(0, 1, exclude_min=True, exclude_max=True),
    st.integers(1, 999).map(lambda thousandths: thousandths / 1000),
)
quick = settings(max_examples=300, deadline=None, derandomize=True)


def configured(grid, ratio, num_clips):
    config = CONFIGS[grid]
    config.retention_ratio, config.num_clips = ratio, num_clips
    return config


def exact_anchors(ratio, num_patches):
    """M before it is rounded."""
    for (low, at_low), (high, at_high) in pairwise(ANCHORS_BY_RATIO):
        if low <= ratio <= high:
            slope = (at_high - at_low) / (Fraction(str(high)) - Fraction(str(low)))
            return (at_low + slope * (ratio - Fraction(str(low)))) * num_patches / 729
    raise AssertionError(ratio)


def assert_evenly_shared(plan, num_frames):
    firsts = {sum(plan.clip_lengths[:clip]) for clip in range(len(plan.clip_lengths))}
    quotas = [kept for frame, kept in enumerate(plan.kept_per_frame) if frame not in firsts]
    assert len(plan.kept_per_frame) == num_frames
    assert all(plan.kept_per_frame[frame] == plan.pooled_anchors for frame in firsts)
    assert quotas == sorted(quotas, reverse=True)
    assert all(0 <= quota <= plan.pooled_anchors for quota in quotas)
    assert not quotas or quotas[0] - quotas[-1] <= 1


@pytest.mark.parametrize(
    ("ratio", "budget", "anchors", "pooled_anchors"),
    [(0.10, 627, 126, 34), (0.15, 941, 144, 39), (0.20, 1254, 196, 53), (0.25, 1568, 205, 55)],
)
def test_operating_points_of_the_paper(ratio, budget, anchors, pooled_anchors):
    plan = plan_token_budget(AOTLlavaOnevisionConfig(retention_ratio=ratio), 32)
    assert plan.num_video_tokens == budget
    assert plan.patch_anchors == anchors
    assert plan.pooled_anchors == pooled_anchors
    assert plan.clip_lengths == (4,) * 8
    assert sum(plan.kept_per_frame) == budget


def test_the_plan_at_ten_percent_frame_by_frame():
    # 627 - 8 * 34 = 355 tokens for 24 later frames: 19 of them keep 15, the last 5 keep 14.
    plan = plan_token_budget(AOTLlavaOnevisionConfig(), 32)
    expected = [34, 15, 15, 15] * 6 + [34, 15, 14, 14] + [34, 14, 14, 14]
    assert plan.kept_per_frame == tuple(expected)


@quick
@given(grid=grids, num_frames=frame_counts, ratio=ratios, num_clips=clip_counts)
def test_every_plan_spends_exactly_its_budget(grid, num_frames, ratio, num_clips):
    plan = plan_token_budget(configured(grid, ratio, num_clips), num_frames)
    all_tokens = num_frames * math.ceil(grid / 2) ** 2
    clips = max(1, min(num_clips, num_frames // 2))

    assert sum(plan.kept_per_frame) == plan.num_video_tokens
    exact = Fraction(ratio) * all_tokens
    if plan.num_video_tokens not in (clips, all_tokens):
        assert abs(plan.num_video_tokens - exact) <= ROUNDING
    assert min(all_tokens, max(clips, exact - ROUNDING)) <= plan.num_video_tokens
    assert plan.num_video_tokens <= min(all_tokens, max(clips, exact + ROUNDING))

    assert len(plan.clip_lengths) == clips
    assert sum(plan.clip_lengths) == num_frames
    assert list(plan.clip_lengths) == sorted(plan.clip_lengths, reverse=True)
    assert plan.clip_lengths[0] - plan.clip_lengths[-1] <= 1
    assert 1 <= plan.pooled_anchors <= math.ceil(grid / 2) ** 2
    assert_evenly_shared(plan, num_frames)


@quick
@given(grid=grids, num_frames=frame_counts, ratio=ratios, num_clips=clip_counts)
def test_every_plan_is_the_reference_plan(grid, num_frames, ratio, num_clips):
    plan = plan_token_budget(configured(grid, ratio, num_clips), num_frames)
    assert abs(plan.patch_anchors - exact_anchors(ratio, grid**2)) <= ROUNDING or (
        plan.patch_anchors == 1 and exact_anchors(ratio, grid**2) < 1
    )
    expected = naive_budget(
        num_frames,
        grid,
        num_anchors=plan.patch_anchors,
        num_clips=num_clips,
        num_video_tokens=plan.num_video_tokens,
    )
    assert {**asdict(plan), **asdict(expected)} == asdict(plan)


@quick
@given(data=st.data(), grid=grids, num_frames=frame_counts, ratio=ratios, num_clips=clip_counts)
def test_the_prompt_may_decide_the_budget(data, grid, num_frames, ratio, num_clips):
    config = configured(grid, ratio, num_clips)
    all_tokens = num_frames * math.ceil(grid / 2) ** 2
    own = plan_token_budget(config, num_frames)
    given_tokens = data.draw(st.integers(1, all_tokens))
    plan = plan_token_budget(config, num_frames, num_video_tokens=given_tokens)

    assert plan.num_video_tokens == sum(plan.kept_per_frame) == given_tokens
    assert len(plan.clip_lengths) <= given_tokens
    assert_evenly_shared(plan, num_frames)
    if given_tokens == own.num_video_tokens:
        assert plan == own
        return
    exact = exact_anchors(Fraction(given_tokens, all_tokens), grid**2)
    assert abs(plan.patch_anchors - exact) <= ROUNDING or (plan.patch_anchors == 1 and exact < 1)
    expected = naive_budget(
        num_frames,
        grid,
        num_anchors=plan.patch_anchors,
        num_clips=num_clips,
        num_video_tokens=given_tokens,
    )
    assert {**asdict(plan), **asdict(expected)} == asdict(plan)


@pytest.mark.parametrize("ratio", [0.03, 0.1, 0.33, 0.9])
def test_the_configs_own_budget_from_the_prompt_changes_nothing(ratio):
    config = AOTLlavaOnevisionConfig(retention_ratio=ratio)
    for num_frames in (1, 2, 7, 32, 33):
        own = plan_token_budget(config, num_frames)
        assert plan_token_budget(config, num_frames, own.num_video_tokens) == own


@pytest.mark.parametrize("num_video_tokens", [0, -1, 4 * 16 + 1])
def test_an_impossible_budget_is_refused(num_video_tokens):
    with pytest.raises(ValueError, match="num_video_tokens"):
        plan_token_budget(small_config(7), 4, num_video_tokens=num_video_tokens)


@pytest.mark.parametrize(("ratio", "budget"), [(3 / 32, 2), (5 / 32, 3), (7 / 32, 4)])
def test_half_a_token_is_rounded_up(ratio, budget):
    # One frame of 16 pooled tokens: 1.5, 2.5 and 3.5 tokens; rounding to even would give 2, 2, 4.
    assert plan_token_budget(small_config(7, retention_ratio=ratio), 1).num_video_tokens == budget


@pytest.mark.parametrize(("anchors", "pooled_anchors"), [(2, 1), (6, 2), (10, 3), (14, 4)])
def test_half_a_pooled_anchor_is_rounded_up(anchors, pooled_anchors):
    # 16 patches are pooled to 4 tokens: M / 4 is 0.5, 1.5, 2.5, 3.5.
    config = small_config(4, num_anchors=anchors, retention_ratio=0.25)
    assert plan_token_budget(config, 32).pooled_anchors == pooled_anchors


def test_one_frame_keeps_the_whole_budget():
    plan = plan_token_budget(AOTLlavaOnevisionConfig(), 1)
    assert (plan.num_video_tokens, plan.pooled_anchors) == (20, 20)
    assert plan.clip_lengths == (1,)
    assert plan.kept_per_frame == (20,)


def test_a_tiny_ratio_leaves_one_token_a_clip_and_one_anchor_a_frame():
    plan = plan_token_budget(AOTLlavaOnevisionConfig(retention_ratio=1e-9), 32)
    assert plan.num_video_tokens == 8
    assert plan.patch_anchors == 1
    assert plan.kept_per_frame == (1, 0, 0, 0) * 8


def test_given_anchors_replace_the_papers_table():
    plan = plan_token_budget(AOTLlavaOnevisionConfig(num_anchors=205), 32)
    assert (plan.patch_anchors, plan.pooled_anchors, plan.num_video_tokens) == (205, 55, 627)


def test_fewer_tokens_than_clips_make_fewer_clips():
    plan = plan_token_budget(AOTLlavaOnevisionConfig(), 32, num_video_tokens=3)
    assert plan.clip_lengths == (11, 11, 10)
    assert [count for count in plan.kept_per_frame if count] == [1, 1, 1]


@pytest.mark.parametrize(("clip_lengths", "times_read"), [((4, 4), 4), ((1, 7), 3), ((1, 1, 6), 4)])
def test_the_released_keep_ratio_meets_the_budget(clip_lengths, times_read):
    """First frames and final anchors are read whole; a clip of one frame has no final anchors."""
    plan = plan_token_budget(small_config(7, retention_ratio=0.4, num_anchors=12, num_clips=2), 8)
    plan = plan.with_clips(clip_lengths)
    assert (plan.num_video_tokens, plan.pooled_anchors) == (51, 7)
    later_tokens = (8 - len(clip_lengths)) * 7
    assert times_read * 7 + released_keep_ratio(plan) * later_tokens == pytest.approx(51)


# --- a number of anchors in the config


RATIOS_OF_CALLS = {0.1: 126, 0.15: 144, 0.2: 196, 0.25: 205}


@pytest.mark.parametrize("of_call", RATIOS_OF_CALLS)
@pytest.mark.parametrize("of_file", RATIOS_OF_CALLS)
def test_anchors_that_are_the_ratios_own_do_not_bind_a_call_with_another(of_file, of_call):
    """As in folders that were published with the number spelt out."""
    config = AOTLlavaOnevisionConfig(retention_ratio=of_file, num_anchors=RATIOS_OF_CALLS[of_file])
    asked = plan_token_budget(AOTLlavaOnevisionConfig(retention_ratio=of_call), 32)
    assert plan_token_budget(config, 32, asked.num_video_tokens) == asked
    assert asked.patch_anchors == RATIOS_OF_CALLS[of_call]


def test_a_file_with_the_ratios_own_anchors_follows_the_ratio(tmp_path):
    AOTLlavaOnevisionConfig(num_anchors=126).save_pretrained(tmp_path)
    assert plan_token_budget(AOTLlavaOnevisionConfig.from_pretrained(tmp_path), 32).patch_anchors == 126
    given = AOTLlavaOnevisionConfig.from_pretrained(tmp_path, retention_ratio=0.2)
    later = AOTLlavaOnevisionConfig.from_pretrained(tmp_path)
    later.retention_ratio = 0.2
    for config in (given, later):
        assert plan_token_budget(config, 32).patch_anchors == 196
    assert AOTLlavaOnevisionConfig.from_pretrained(tmp_path, num_anchors=126, retention_ratio=0.2).num_anchors == 126


def test_another_number_of_anchors_stays(tmp_path):
    AOTLlavaOnevisionConfig(num_anchors=100).save_pretrained(tmp_path)
    config = AOTLlavaOnevisionConfig.from_pretrained(tmp_path, retention_ratio=0.2)
    assert plan_token_budget(config, 32).patch_anchors == 100
    assert plan_token_budget(config, 32, 627).patch_anchors == 100


@pytest.mark.parametrize("count", [1.5, "16", True, [16]], ids=repr)
def test_a_count_that_is_no_integer_is_refused(count):
    with pytest.raises(ValueError, match="`num_video_tokens` is"):
        plan_token_budget(CONFIGS[7], 4, count)


@pytest.mark.parametrize("ratio", [1, 1.0, 0.9999])
def test_released_anchors_that_are_all_local_and_too_few_are_refused(ratio):
    few, windows = {"recipe": "released", "local_anchor_ratio": ratio}, 9
    for anchors in (1, windows - 1):
        config = small_config(7, **few, num_anchors=anchors)
        if ratio == 1:
            with pytest.raises(ValueError, match=rf"`local_anchor_ratio` is 1.*all {anchors} anchors.*9 windows"):
                plan_token_budget(config, 4)
        else:
            assert plan_token_budget(config, 4).patch_anchors == anchors
    assert plan_token_budget(small_config(7, **few, num_anchors=windows), 4).patch_anchors == windows
    assert plan_token_budget(small_config(7, local_anchor_ratio=ratio, num_anchors=1), 4).patch_anchors == 1
