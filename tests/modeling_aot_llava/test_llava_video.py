"""LLaVA-Video's path: pooling and newline tokens as LLaVA-NeXT has them, and what its authors' script for AOT does.

The golden vectors were computed with LLaVA-NeXT and with the released program of AOT; see `tests/golden/README.md`.
"""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import make_video, small_config
from reference.naive_newlines import with_newlines_by_hand
from safetensors import safe_open

from modeling_aot_llava import AOTLlavaOnevisionConfig
from modeling_aot_llava.spatial_pooling import insert_newlines, pooling_matrix
from modeling_aot_llava.spatiotemporal_pruning import add_newlines, compress_video_features
from modeling_aot_llava.token_budget import newline_places, plan_token_budget

GOLDEN = Path(__file__).parents[1] / "golden" / "llava_video"
POOL_MODES = ("bilinear", "average")
POSITIONS = ("grid", "frame", "one_token", "no_token")
# file -> tokens, newlines among them, tolerance: the program stops Sinkhorn on the mean of all frames of the call.
INTRA_ONLY = {
    "aot_intra_only_frames10_anchors180": (609, 130, 1e-5),
    "aot_intra_only_frames40_anchors144": (1998, 520, 6e-3),
}


def read(name):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        numbers = file.metadata()
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, numbers


def released_without_clips(golden, numbers):
    """The compressed video of a file whose program had no clips."""
    config = AOTLlavaOnevisionConfig(
        recipe="released",
        clip_segmentation="none",
        num_anchors=int(numbers["anchors"]),
        mm_spatial_pool_mode="average",
        mm_newline_position="grid",
    )
    features, attention = golden["features"], (golden["shallow_attention"], golden["deep_attention"])
    return compress_video_features(features, *attention, config), config


# --- Golden vectors -------------------------------------------------------------------------------


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mode", POOL_MODES)
def test_the_uncompressed_video_is_llava_nexts(mode, position):
    golden, _ = read("uncompressed_frames4")
    pooled = pooling_matrix(27, mode=mode) @ golden["features"]
    config = AOTLlavaOnevisionConfig(mm_spatial_pool_mode=mode)
    places = newline_places(4, config.pooled_grid_size, position)
    video = insert_newlines(pooled.flatten(0, 1), torch.arange(pooled[..., 0].numel()), golden["newline"], places)
    torch.testing.assert_close(video, golden[f"{mode}_{position}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", INTRA_ONLY)
def test_released_without_clips_is_the_authors_script(name):
    golden, numbers = read(name)
    video, config = released_without_clips(golden, numbers)
    num_tokens, num_newlines, tolerance = INTRA_ONLY[name]
    assert torch.equal(video.anchors.all, golden["anchor_mask"].bool())
    assert torch.equal(video.pooled_kept, golden["pooled_mask"].bool())
    assert len(video.tokens) == num_tokens - num_newlines
    tokens = add_newlines(video, golden["newline"], config)
    assert tokens.shape == golden["video_tokens"].shape
    torch.testing.assert_close(tokens, golden["video_tokens"], rtol=0, atol=tolerance)
    assert int((tokens == golden["newline"]).all(-1).sum()) == num_newlines


def test_before_the_clips_the_program_is_the_same_with_and_without_them():
    """With clips newlines take part in its transport, which is refused here; anchors and pooling are comparable."""
    golden, numbers = read("aot_inter_frames32_anchors108")
    video, _ = released_without_clips(golden, numbers)
    kept = golden["pooled_mask"].bool()
    assert torch.equal(video.anchors.all, golden["anchor_mask"].bool())
    assert torch.equal(video.pooled_kept, kept)
    torch.testing.assert_close(video.tokens, golden["pooled_features"][kept], rtol=0, atol=6e-3)


# --- Newlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize("segmentation", ["uniform", "dynamic"])
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("mode", POOL_MODES)
def test_newlines_stand_where_rows_and_frames_end(mode, position, segmentation):
    fields = {"clip_segmentation": segmentation, "retention_ratio": 0.2, "num_clips": 3}
    config = small_config(7, **fields, mm_spatial_pool_mode=mode, mm_newline_position=position)
    source = make_video(num_frames=8, grid=7)
    video = compress_video_features(
        source.features, source.local_attention, source.global_attention, config, source.frame_features
    )
    side = {"bilinear": 4, "average": 3}[mode]
    first_frames = {sum(video.clip_lengths[:clip]) for clip in range(len(video.clip_lengths))}
    tokens, tokens_of_frames = iter(video.tokens), []
    for frame in range(8):
        mask = (video.pooled_kept if frame in first_frames else video.temporal_kept)[frame]
        tokens_of_frames.append({place: next(tokens) for place in mask.nonzero().flatten().tolist()})
    assert next(tokens, None) is None

    newline = torch.full((16,), 7.0)
    expected = with_newlines_by_hand(tokens_of_frames, newline, position, side)
    assert torch.equal(add_newlines(video, newline, config), expected)


@pytest.mark.parametrize("position", ["frame", "one_token", "no_token"])
def test_a_compressed_video_may_have_fewer(position):
    newline = torch.full((16,), 7.0)
    source = make_video(num_frames=8, grid=7)
    results = []
    for fields in (
        {"mm_newline_position": "grid", "aot_newline_position": position},
        {"mm_newline_position": position},
    ):
        config = small_config(7, retention_ratio=0.2, mm_spatial_pool_mode="average", **fields)
        video = compress_video_features(source.features, source.local_attention, source.global_attention, config)
        results.append(add_newlines(video, newline, config))
    assert torch.equal(*results)


def test_newlines_neither_take_part_nor_count():
    source = make_video(num_frames=8, grid=7)
    videos = []
    for position in POSITIONS:
        config = small_config(7, mm_spatial_pool_mode="average", mm_newline_position=position)
        video = compress_video_features(source.features, source.local_attention, source.global_attention, config)
        assert len(video.tokens) == plan_token_budget(config, 8).num_video_tokens
        videos.append(video.tokens)
    assert all(torch.equal(tokens, videos[0]) for tokens in videos)


@given(num_frames=st.integers(1, 128), side=st.integers(1, 14), position=st.sampled_from(POSITIONS))
def test_newline_places(num_frames, side, position):
    every = {"grid": side, "frame": side**2, "one_token": num_frames * side**2}.get(position)
    expected = [place for place in range(num_frames * side**2) if every and (place + 1) % every == 0]
    assert list(newline_places(num_frames, side, position)) == expected
    count = {"grid": num_frames * side, "frame": num_frames, "one_token": 1, "no_token": 0}[position]
    assert len(expected) == count


# --- The budget -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "budget", "anchors", "pooled_anchors", "read"),
    [
        (0.10, 1082, 108, 25, 1914),
        (0.15, 1622, 144, 33, 2454),
        (0.20, 2163, 176, 41, 2995),
        (0.25, 2704, 198, 46, 3536),
    ],
)
def test_operating_points_of_the_paper(ratio, budget, anchors, pooled_anchors, read):
    config = AOTLlavaOnevisionConfig(retention_ratio=ratio, mm_spatial_pool_mode="average", mm_newline_position="grid")
    plan = plan_token_budget(config, 64)
    assert (plan.num_video_tokens, plan.patch_anchors, plan.pooled_anchors) == (budget, anchors, pooled_anchors)
    assert plan.clip_lengths == (8,) * 8
    assert sum(plan.kept_per_frame) == budget
    assert budget + len(newline_places(64, config.pooled_grid_size, "grid")) == read


@pytest.mark.parametrize(("num_video_tokens", "per_frame"), [(None, 17), (478, 30), (2704, 169), (1, 1)])
def test_without_clips_frames_share_evenly(num_video_tokens, per_frame):
    fields = {"recipe": "released", "clip_segmentation": "none", "mm_spatial_pool_mode": "average"}
    plan = plan_token_budget(AOTLlavaOnevisionConfig(**fields), 16, num_video_tokens)
    assert plan.clip_lengths == (1,) * 16
    assert plan.kept_per_frame == (per_frame,) * 16
    assert plan.num_video_tokens == 16 * per_frame
