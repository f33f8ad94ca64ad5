"""The whole path from patch features to video tokens, against the float64 reference.

Both recipes, every option, many shapes; exact token counts; gradients; and inputs that tempt a
division by zero, an overflow or a NaN.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import make_video, relative_error, small_config
from reference.naive_aot import naive_compress

from modeling_aot_llava.spatiotemporal_pruning import compress_video_features
from modeling_aot_llava.token_budget import plan_token_budget

CLOSE = 1e-5
RELEASED = {"recipe": "released", "keep_ratio": 0.37}


def compress(video, config, num_video_tokens=None):
    return compress_video_features(
        video.features,
        video.local_attention,
        video.global_attention,
        config,
        frame_features=video.frame_features,
        num_video_tokens=num_video_tokens,
    )


def truth(video, config, fields, **options):
    """The reference, told the same fields; the window is the config's."""
    fields = {name: value for name, value in fields.items() if not name.startswith("anchor_se")}
    return naive_compress(
        video.features,
        video.local_attention,
        video.global_attention,
        frame_features=video.frame_features,
        **{**fields, "local_window_size": config.local_window_size},
        **options,
    )


def assert_equal(ours, expected):
    """Every decision the same, and the tokens close."""
    assert torch.equal(ours.anchors.local, expected.local_anchors)
    assert torch.equal(ours.anchors.global_, expected.global_anchors)
    assert torch.equal(ours.pooled_kept, expected.pooled_kept)
    assert ours.clip_lengths == expected.clip_lengths
    assert torch.equal(ours.temporal_kept, expected.temporal_kept)
    assert ours.tokens.shape == expected.tokens.shape
    assert relative_error(ours.tokens, expected.tokens) < CLOSE


def assert_equals_truth(num_frames, grid, fields, width=16, seed=0):
    config = small_config(grid, **fields)
    video = make_video(num_frames, grid, width=width, seed=seed)
    assert_equal(compress(video, config), truth(video, config, fields))


SHAPES = [(1, 7), (2, 4), (3, 5), (5, 6), (8, 9), (9, 2), (17, 7), (16, 10)]
RATIOS = [0.04, 0.1, 0.25, 0.6, 0.95]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize(("num_frames", "grid"), SHAPES)
def test_paper_recipe_of_any_shape(num_frames, grid, ratio):
    assert_equals_truth(num_frames, grid, {"retention_ratio": ratio, "num_clips": 3}, seed=24)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
@pytest.mark.parametrize(("num_frames", "grid"), [(2, 7), (3, 4), (8, 9), (17, 7), (16, 10)])
def test_released_recipe_of_any_shape(num_frames, grid, share):
    fields = {**RELEASED, "num_anchors": int(share * grid**2), "num_clips": 3}
    assert_equals_truth(num_frames, grid, fields, seed=21)


OPTIONS = [
    {"local_anchor_ratio": 0.0},
    {"local_anchor_ratio": 1.0},
    {"local_window_size": 1},
    {"local_window_size": 4},
    {"local_window_size": 7},
    {"num_anchors": 14},
    {"num_anchors": 48},
    {"num_anchors": 49},
    {"sinkhorn_epsilon": 0.03},
    {"sinkhorn_epsilon": 1.0},
    {"sinkhorn_iterations": 1},
    {"sinkhorn_iterations": 7, "sinkhorn_tolerance": 0.0},
    {"sinkhorn_tolerance": 1e-4},
    {"intra_frame_weight": 0.0},
    {"intra_frame_weight": 25.0},
    {"inter_frame_weight": 0.0},
    {"inter_frame_weight": 3.0},
    {"intra_frame_aggregation": "cosine"},
    {"intra_frame_aggregation": "none"},
    {"inter_frame_aggregation": "cosine"},
    {"inter_frame_aggregation": "none"},
    {"intra_frame_aggregation": "none", "inter_frame_aggregation": "none"},
    {"num_clips": 1},
    {"num_clips": 16},
]


def name_of(fields):
    return ",".join(f"{name}={value}" for name, value in fields.items())


@pytest.mark.parametrize("fields", OPTIONS, ids=name_of)
def test_every_option_of_the_paper_recipe(fields):
    assert_equals_truth(9, 7, {"retention_ratio": 0.3, "num_clips": 2, **fields}, seed=2)


@pytest.mark.parametrize("fields", OPTIONS, ids=name_of)
def test_every_option_of_the_released_recipe(fields):
    assert_equals_truth(9, 7, {**RELEASED, "num_anchors": 25, "num_clips": 2, **fields}, seed=3)


@pytest.mark.parametrize("keep_ratio", [0.0, 0.21, 0.5, 0.83, 1.0])
def test_keep_ratio(keep_ratio):
    fields = {"recipe": "released", "keep_ratio": keep_ratio, "num_anchors": 25, "num_clips": 2}
    assert_equals_truth(8, 7, fields, seed=4)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.2, 0.4, 1.0])
def test_temporal_threshold(threshold):
    fields = {"temporal_threshold": threshold, "retention_ratio": 0.4, "num_clips": 2}
    assert_equals_truth(8, 7, fields, seed=5)


def test_temporal_thresholds_in_use_keep_some_tokens_and_aggregate_others():
    video = make_video(8, 7, seed=5)
    kept = []
    for threshold in (0.0, 0.1, 0.2, 0.4, 1.0):
        config = small_config(7, temporal_threshold=threshold, retention_ratio=0.4, num_clips=2)
        kept.append(int(compress(video, config).temporal_kept.sum()))
    assert kept[0] == 0
    assert kept == sorted(kept)
    assert 0 < kept[2] < kept[-1]


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("recipe", [{}, {**RELEASED, "num_anchors": 25}], ids=["paper", "released"])
@pytest.mark.parametrize("num_frames", [1, 2, 13])
def test_dynamic_clips(num_frames, recipe, threshold):
    fields = {
        "clip_segmentation": "dynamic",
        "dynamic_similarity_threshold": threshold,
        "retention_ratio": 0.4,
        "num_clips": 3,
        **recipe,
    }
    assert_equals_truth(num_frames, 7, fields, seed=6)


def test_dynamic_clips_never_outnumber_what_the_budget_can_anchor():
    config = small_config(7, clip_segmentation="dynamic", dynamic_similarity_threshold=1.0, num_clips=2)
    plan = plan_token_budget(config, 12)
    clips = compress(make_video(12, 7), config).clip_lengths
    assert len(clips) == plan.num_video_tokens // plan.pooled_anchors < 12


def test_dynamic_clips_need_frame_features():
    video = make_video(4, 7)
    config = small_config(7, clip_segmentation="dynamic")
    with pytest.raises(ValueError, match="frame_features"):
        compress_video_features(video.features, video.local_attention, video.global_attention, config)


def test_uniform_clips_need_none():
    video = make_video(4, 7)
    without = compress_video_features(video.features, video.local_attention, video.global_attention, small_config(7))
    assert torch.equal(without.tokens, compress(video, small_config(7)).tokens)


def test_one_anchor_a_frame():
    assert_equals_truth(9, 7, {"num_anchors": 1, "retention_ratio": 0.3, "num_clips": 2})


@pytest.mark.parametrize("num_video_tokens", [1, 2, 3, 40, 127, 128])
def test_the_prompts_own_number_of_tokens(num_video_tokens):
    fields = {"num_clips": 3}
    config, video = small_config(7, **fields), make_video(8, 7, seed=7)
    ours = compress(video, config, num_video_tokens)
    assert len(ours.tokens) == num_video_tokens
    assert_equal(ours, truth(video, config, fields, num_video_tokens=num_video_tokens))


def test_the_grid_of_the_published_models():
    fields = {"local_window_size": 9, "retention_ratio": 0.1, "num_clips": 2}
    assert_equals_truth(5, 27, fields, width=24, seed=8)


# ------------------------------------------------------------------------------ random anchors


@pytest.mark.parametrize("recipe", [{}, {**RELEASED, "num_anchors": 20}], ids=["paper", "released"])
def test_random_anchors_go_the_same_way_as_chosen_ones(recipe):
    fields = {"anchor_selection": "random", "retention_ratio": 0.4, "num_clips": 2, **recipe}
    config, video = small_config(7, anchor_seed=5, **fields), make_video(8, 7, seed=9)
    ours = compress(video, config)
    mask = ours.anchors.local | ours.anchors.global_
    assert mask.sum(-1).tolist() == [plan_token_budget(config, 8).patch_anchors] * 8

    del fields["anchor_selection"]
    expected = truth(video, config, fields, anchor_mask=mask)
    assert torch.equal(ours.pooled_kept, expected.pooled_kept)
    assert torch.equal(ours.temporal_kept, expected.temporal_kept)
    assert relative_error(ours.tokens, expected.tokens) < CLOSE


def random_mask(seed, num_frames=4, video_seed=0, grid=7):
    fields = {"anchor_selection": "random", "num_anchors": 12, "num_clips": num_frames}
    config = small_config(grid, anchor_seed=seed, **fields)
    anchors = compress(make_video(num_frames, grid, width=2, seed=video_seed), config).anchors
    return anchors.local | anchors.global_


def test_random_anchors_depend_on_the_seed_alone():
    state = torch.get_rng_state()
    mask = random_mask(seed=1)
    assert torch.equal(torch.get_rng_state(), state), "the caller's generator was used"
    torch.rand(3)
    assert torch.equal(random_mask(seed=1, video_seed=99), mask)
    assert not torch.equal(random_mask(seed=2), mask)
    assert not torch.equal(mask[0], mask[1])


def test_random_anchors_are_uniform():
    """12 of 49 in 1000 frames: each patch 245 +- 13.6 times; five sigma is 68."""
    counts = random_mask(seed=0, num_frames=1000).sum(0)
    assert counts.sum() == 12_000
    assert (counts - 12_000 / 49).abs().max() < 68


# ------------------------------------------------------------------------- counts and masks


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_frames=st.integers(1, 14),
    grid=st.integers(1, 8),
    ratio=st.floats(0.01, 0.99),
    num_clips=st.integers(1, 8),
    segmentation=st.sampled_from(["uniform", "dynamic"]),
    threshold=st.sampled_from([-1.0, 0.5, 0.8, 1.0]),
    seed=st.integers(0, 1000),
)
def test_exactly_the_planned_number_of_tokens(num_frames, grid, ratio, num_clips, segmentation, threshold, seed):
    config = small_config(
        grid,
        retention_ratio=ratio,
        num_clips=num_clips,
        clip_segmentation=segmentation,
        dynamic_similarity_threshold=threshold,
    )
    plan = plan_token_budget(config, num_frames)
    video = compress(make_video(num_frames, grid, width=3, seed=seed), config)

    assert video.tokens.shape == (plan.num_video_tokens, 3)
    assert sum(video.clip_lengths) == num_frames
    assert len(video.clip_lengths) >= len(plan.clip_lengths)
    if segmentation == "uniform":
        assert video.clip_lengths == plan.clip_lengths
    masks = video.anchors.local, video.anchors.global_, video.pooled_kept, video.temporal_kept
    assert all(mask.dtype == torch.bool for mask in masks)
    assert not (video.anchors.local & video.anchors.global_).any()
    num_anchors = (video.anchors.local | video.anchors.global_).sum(-1)
    assert num_anchors.tolist() == [plan.patch_anchors] * num_frames
    assert video.pooled_kept.sum(-1).tolist() == [plan.pooled_anchors] * num_frames

    assert not (video.temporal_kept & ~video.pooled_kept).any()
    firsts = [sum(video.clip_lengths[:clip]) for clip in range(len(video.clip_lengths))]
    assert not video.temporal_kept[firsts].any()
    quotas = [int(row.sum()) for row in video.temporal_kept]
    assert len(firsts) * plan.pooled_anchors + sum(quotas) == plan.num_video_tokens
    later = [quota for frame, quota in enumerate(quotas) if frame not in firsts]
    assert later == sorted(later, reverse=True)
    assert not later or later[0] - later[-1] <= 1


def test_the_released_count_follows_from_its_masks():
    video = compress(make_video(9, 7), small_config(7, **RELEASED, num_anchors=25, num_clips=2))
    firsts = video.pooled_kept[[0, 5]].sum()
    assert len(video.tokens) == 2 * firsts + video.temporal_kept.sum()
    assert not video.temporal_kept[[0, 5]].any()


@pytest.mark.parametrize("clip_lengths", [(1,), (1, 1, 1), (1, 3, 1, 2)])
def test_a_released_clip_of_one_frame_is_read_once(clip_lengths):
    """The other clips' first frames are read twice: as they are, and with later frames merged in."""
    num_frames = sum(clip_lengths)
    config = small_config(
        7,
        **RELEASED,
        num_anchors=25,
        num_clips=1,
        clip_segmentation="dynamic",
        dynamic_similarity_threshold=0.5,
        retention_ratio=0.99,
    )
    video = make_video(num_frames, 7)
    scenes = torch.eye(16)[: len(clip_lengths)]
    video.frame_features = scenes.repeat_interleave(torch.tensor(clip_lengths), dim=0)
    compressed = compress(video, config)
    assert compressed.clip_lengths == clip_lengths
    firsts = [sum(clip_lengths[:clip]) for clip in range(len(clip_lengths))]
    kept = compressed.pooled_kept.sum(-1)
    expected = sum(int(kept[first]) * (1 if length == 1 else 2) for first, length in zip(firsts, clip_lengths))
    assert len(compressed.tokens) == expected + int(compressed.temporal_kept.sum())


# --------------------------------------------------------------------- dtypes and hard inputs

RECIPES = {
    "paper": {"retention_ratio": 0.4, "num_clips": 2},
    "paper, dynamic": {"retention_ratio": 0.4, "num_clips": 2, "clip_segmentation": "dynamic"},
    "paper, threshold": {"retention_ratio": 0.4, "num_clips": 2, "temporal_threshold": 0.2},
    "paper, cosine": {
        "num_clips": 2,
        "intra_frame_aggregation": "cosine",
        "inter_frame_aggregation": "cosine",
    },
    "released": {**RELEASED, "num_anchors": 12, "num_clips": 2},
}


def some_zero(features):
    features = features.clone()
    features[:, ::3] = 0
    return features


def some_equal(features):
    features = features.clone()
    features[:, 1::2] = features[:, :1]
    features[1:] = features[0]
    return features


HARD_FEATURES = {
    "zero": torch.zeros_like,
    "some zero": some_zero,
    "constant": torch.ones_like,
    "duplicated": some_equal,
    "opposite": lambda features: features[:1, :1] * features[..., :1].sign(),
    "huge": lambda features: features.clamp(-3, 3) * 1e4,
    "tiny": lambda features: features * 1e-6,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("hard", HARD_FEATURES)
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_features_give_nan(recipe, hard, dtype):
    video = make_video(5, 5, width=8, seed=10)
    video.features = HARD_FEATURES[hard](video.features).to(dtype).requires_grad_()
    video.frame_features = HARD_FEATURES[hard](video.frame_features).to(dtype)
    config = small_config(5, **RECIPES[recipe])
    compressed = compress(video, config)
    assert compressed.tokens.dtype == dtype
    assert compressed.tokens.isfinite().all()
    if config.recipe == "paper" and config.temporal_threshold is None:
        assert len(compressed.tokens) == plan_token_budget(config, 5).num_video_tokens
    largest = video.features.abs().max() * (1 + 1e-2)
    assert compressed.tokens.abs().max() <= largest, "a token is a convex combination of patches"
    compressed.tokens.float().sum().backward()
    assert video.features.grad.isfinite().all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_zero_vectors_have_cosine_zero_with_everything(recipe):
    fields = {**RECIPES[recipe], "num_anchors": 24}
    config, video = small_config(7, **fields), make_video(5, 7, seed=13)
    video.features, video.frame_features = some_zero(video.features), some_zero(video.frame_features)
    video.features[2] = 0
    assert_equal(compress(video, config), truth(video, config, fields))


@pytest.mark.parametrize("value", [1e-30, 1e-15, 1e15, 1e25, 1e35])
@pytest.mark.parametrize("recipe", RECIPES)
def test_no_finite_magnitude_gives_nan(recipe, value):
    """The squares of these numbers leave the range of float32."""
    video = make_video(5, 5, width=8, seed=10)
    video.features = video.features.sign() * value
    compressed = compress(video, small_config(5, **RECIPES[recipe]))
    assert compressed.tokens.isfinite().all()


@pytest.mark.parametrize("attention", [0.0, 1.0])
@pytest.mark.parametrize("recipe", RECIPES)
def test_flat_attention_decides_by_position(recipe, attention):
    video = make_video(4, 7)
    video.local_attention = torch.full_like(video.local_attention, attention)
    video.global_attention = torch.full_like(video.global_attention, attention)
    compressed = compress(video, small_config(7, **RECIPES[recipe]))
    assert compressed.tokens.isfinite().all()
    assert (compressed.anchors.local[0] == compressed.anchors.local).all()
    assert (compressed.pooled_kept[0] == compressed.pooled_kept).all()


def cross_attention(grid):
    """High on the middle row and column: each weighs 1/8 in a pooled position, far below half."""
    attention = torch.zeros(grid, grid)
    attention[grid // 2] = attention[:, grid // 2] = 1.0
    attention[0, 0] = 0.5
    return attention.flatten()


@pytest.mark.parametrize("seed", range(4))
def test_released_frames_without_a_covered_position(seed):
    """Scattered anchors cover no position by half; the other frames go on as ever."""
    fields = {**RELEASED, "num_anchors": 14, "local_anchor_ratio": 0.0, "num_clips": 2}
    config, video = small_config(7, **fields), make_video(9, 7, seed=seed)
    video.global_attention[[0, 7]] = cross_attention(7)
    ours = compress(video, config)
    assert ours.pooled_kept.sum(-1)[[0, 7]].tolist() == [0, 0]
    assert ours.temporal_kept.any()
    assert_equal(ours, truth(video, config, fields))


def test_a_released_video_without_any_covered_position_is_empty():
    config = small_config(7, **RELEASED, num_anchors=1, num_clips=2)
    assert compress(make_video(6, 7), config).tokens.shape == (0, 16)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_tiny_epsilon_gives_no_nan(recipe):
    video = make_video(4, 5, width=8)
    video.features.requires_grad_()
    compressed = compress(video, small_config(5, sinkhorn_epsilon=1e-3, **RECIPES[recipe]))
    assert compressed.tokens.isfinite().all()
    compressed.tokens.sum().backward()
    assert video.features.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """Half-precision input gives the float32 result of the same numbers, rounded once."""
    video, config = make_video(8, 7, seed=11), small_config(7, retention_ratio=0.3, num_clips=2)
    video.features = video.features.to(dtype)
    half = compress(video, config).tokens
    video.features = video.features.float()
    assert torch.equal(half, compress(video, config).tokens.to(dtype))


@pytest.fixture(params=[torch.float64, torch.bfloat16, "meta"], ids=str)
def another_default(request):
    """The process's default dtype or device is another one than usual."""
    if isinstance(request.param, torch.dtype):
        before = torch.get_default_dtype()
        torch.set_default_dtype(request.param)
        yield
        torch.set_default_dtype(before)
    else:
        before = torch.get_default_device()
        torch.set_default_device(request.param)
        yield
        torch.set_default_device(before)


DEFAULTS_CONFIGS = {
    **{name: small_config(5, **fields) for name, fields in RECIPES.items()},
    "random anchors": small_config(5, anchor_selection="random"),
}
DEFAULTS_VIDEO = make_video(5, 5, seed=14)
UNDER_USUAL_DEFAULTS = {name: compress(DEFAULTS_VIDEO, config) for name, config in DEFAULTS_CONFIGS.items()}


@pytest.mark.parametrize("name", DEFAULTS_CONFIGS)
def test_the_default_dtype_and_device_change_nothing(another_default, name):
    video, expected = compress(DEFAULTS_VIDEO, DEFAULTS_CONFIGS[name]), UNDER_USUAL_DEFAULTS[name]
    assert torch.equal(video.tokens, expected.tokens)
    assert torch.equal(video.anchors.all, expected.anchors.all)
    assert torch.equal(video.temporal_kept, expected.temporal_kept)


def test_the_input_is_left_alone():
    video = make_video(6, 5)
    before = [video.features.clone(), video.local_attention.clone(), video.global_attention.clone()]
    compress(video, small_config(5))
    after = [video.features, video.local_attention, video.global_attention]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


# ----------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("recipe", ["paper", "paper, threshold", "paper, cosine", "released"])
def test_gradients_equal_the_references(recipe):
    fields = RECIPES[recipe]
    config, video = small_config(6, **fields), make_video(5, 6, width=8, seed=12)
    video.features.requires_grad_()
    ours = compress(video, config).tokens
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    (ours * weights).sum().backward()
    our_gradient, video.features.grad = video.features.grad, None

    (truth(video, config, fields).tokens * weights).sum().backward()
    assert relative_error(our_gradient, video.features.grad) < 1e-4
