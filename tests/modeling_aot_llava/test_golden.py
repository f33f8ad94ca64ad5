"""`recipe="released"` gives what the authors' released program gives.

The paper's accuracy was measured with that program. Its outputs are compared step by step and as a
whole; the float64 reference has to pass the same comparison, or it would be no truth.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from reference.naive_aot import DEFAULTS, naive_compress, naive_inter_frame_step
from safetensors import safe_open

from modeling_aot_llava import AOTLlavaOnevisionConfig
from modeling_aot_llava.inter_frame_transport import merge_next_frame
from modeling_aot_llava.intra_frame_transport import aggregate_within_frames
from modeling_aot_llava.optimal_transport import cosine_similarity, directions_of
from modeling_aot_llava.released_recipe import ReleasedRecipe
from modeling_aot_llava.spatial_pooling import pool_kept_positions, pooling_matrix
from modeling_aot_llava.spatiotemporal_pruning import compress_video_features
from modeling_aot_llava.token_anchors import select_token_anchors
from modeling_aot_llava.token_budget import plan_token_budget

FILES = sorted((Path(__file__).parents[1] / "golden").glob("*.safetensors"))
STEP = {"rtol": 0, "atol": 1e-4}
WHOLE = {"rtol": 0, "atol": 5e-3}


@pytest.fixture(scope="module", params=FILES, ids=[file.stem for file in FILES])
def golden(request):
    with safe_open(request.param, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        numbers = file.metadata()
    fields = {
        "recipe": "released",
        "num_anchors": int(numbers["anchors"]),
        "keep_ratio": float(numbers["keep_ratio"]),
        "num_clips": int(numbers["frames"]) // int(numbers["clip_length"]),
    }
    return SimpleNamespace(**tensors, fields=fields, config=AOTLlavaOnevisionConfig(**fields))


@pytest.fixture(scope="module")
def recipe(golden):
    return ReleasedRecipe(golden.config, plan_token_budget(golden.config, 8))


@pytest.fixture(scope="module")
def compressed(golden):
    return compress_video_features(golden.features, golden.shallow_attention, golden.deep_attention, golden.config)


@pytest.fixture(scope="module")
def reference(golden):
    return naive_compress(golden.features, golden.shallow_attention, golden.deep_attention, **golden.fields)


def mask_of(indices, num_patches=729):
    return torch.zeros(len(indices), num_patches, dtype=torch.bool).scatter(1, indices, True)


def anchor_index_of(golden):
    mask = golden.anchor_mask.bool()
    return torch.stack([torch.nonzero(row).flatten() for row in mask])


def take(grid, index):
    return grid.gather(1, index.unsqueeze(-1).expand(-1, -1, grid.shape[-1]))


def test_both_videos_are_there():
    assert [file.stem for file in FILES] == ["frames8_anchors126", "frames8_anchors196"]


def test_anchors(golden):
    anchors = select_token_anchors(
        golden.shallow_attention,
        golden.deep_attention,
        num_anchors=golden.config.num_anchors,
        window_size=9,
        local_ratio=0.5,
        fill_up=False,
    )
    assert torch.equal(anchors.local, mask_of(golden.local_indices))
    assert torch.equal(anchors.global_, mask_of(golden.global_indices))


def test_intra_frame_transport(golden, recipe):
    index = anchor_index_of(golden)
    others = torch.stack([torch.nonzero(~row).flatten() for row in golden.anchor_mask.bool()])
    anchors = take(golden.features, index)
    merged = aggregate_within_frames(golden.features, anchors, index, others, golden.config, recipe)
    torch.testing.assert_close(merged, take(golden.intra_merged, index), **STEP)
    assert (merged - take(golden.features, index)).abs().max() > 1e-2


def test_pooling(golden):
    pooling = pooling_matrix(27)
    torch.testing.assert_close(pooling @ golden.intra_merged, golden.pooled_features, **STEP)


def test_pooling_at_some_positions(golden):
    index = anchor_index_of(golden)
    changes = take(golden.intra_merged, index) - take(golden.features, index)
    kept = torch.tensor([[0, 13, 14, 195]] * 8)
    pooled = pool_kept_positions(golden.features, changes, index, kept, pooling_matrix(27))
    torch.testing.assert_close(pooled, take(golden.pooled_features, kept), **STEP)


def test_pooled_positions(golden, recipe):
    kept = recipe.choose_pooled_positions(golden.anchor_mask.bool(), golden.deep_attention, pooling_matrix(27))
    assert torch.equal(kept, golden.pooled_mask.bool())


def test_inter_frame_step(golden, recipe):
    anchors, sources = golden.pair_anchors[None], golden.pair_sources[None]
    plan = recipe.transport(recipe.inter_frame_cost(cosine_similarity(sources, anchors), 1, None, None))
    assert plan.shape == (1, *golden.pair_plan.shape)
    # The plan's entries are of order 1e-3; 1e-4 would let a wrong one pass.
    torch.testing.assert_close(plan[0], golden.pair_plan, rtol=1e-4, atol=1e-8)

    updated, merged = merge_next_frame(anchors, sources, directions_of(sources), golden.config, recipe, step=1)
    assert torch.equal(~merged[0], golden.pair_keep.bool())
    torch.testing.assert_close(updated[0], golden.pair_new_anchors, **STEP)


def test_whole_video(golden, compressed):
    torch.testing.assert_close(compressed.tokens, golden.video_tokens, **WHOLE)
    masks = compressed.anchors.local | compressed.anchors.global_
    assert torch.equal(masks, golden.anchor_mask.bool())
    assert torch.equal(compressed.pooled_kept, golden.pooled_mask.bool())
    assert compressed.clip_lengths == (4, 4)


def test_the_reference_is_the_released_program_too(golden, reference):
    masks = reference.local_anchors | reference.global_anchors
    assert torch.equal(masks, golden.anchor_mask.bool())
    torch.testing.assert_close(reference.intra_merged.float(), golden.intra_merged, **STEP)
    torch.testing.assert_close(reference.pooled.float(), golden.pooled_features, **STEP)
    assert torch.equal(reference.pooled_kept, golden.pooled_mask.bool())
    torch.testing.assert_close(reference.tokens.float(), golden.video_tokens, **WHOLE)


def test_the_references_inter_frame_step(golden):
    plan, kept, updated = naive_inter_frame_step(
        golden.pair_anchors.double(),
        golden.pair_sources.double(),
        frame_distance=1,
        quota=None,
        options={**DEFAULTS, **golden.fields},
    )
    torch.testing.assert_close(plan.float(), golden.pair_plan, rtol=1e-4, atol=1e-8)
    assert kept == torch.nonzero(golden.pair_keep).flatten().tolist()
    torch.testing.assert_close(updated.float(), golden.pair_new_anchors, **STEP)


def test_video_and_reference_agree_closer_than_the_golden_tolerance(compressed, reference):
    torch.testing.assert_close(compressed.tokens.double(), reference.tokens, rtol=0, atol=1e-4)
    assert torch.equal(compressed.temporal_kept, reference.temporal_kept)
