"""Token anchors (Sec. 3.2, Eq. 6-8): which patches, how many, and what decides ties and edges."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import relative_error
from reference.naive_aot import naive_anchors, naive_attention_received, naive_windows

from modeling_aot_llava import token_anchors
from modeling_aot_llava.token_anchors import attention_received, select_token_anchors


def random_scores(num_frames, grid, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_frames, grid * grid, generator=generator).softmax(-1)


def select(local_scores, global_scores, num_anchors, window_size, local_ratio, **options):
    return select_token_anchors(
        local_scores,
        global_scores,
        num_anchors=num_anchors,
        window_size=window_size,
        local_ratio=local_ratio,
        **options,
    )


def places(mask):
    return set(torch.nonzero(mask).flatten().tolist())


def assert_equals_reference(anchors, local_scores, global_scores, *arguments):
    for frame in range(len(local_scores)):
        local, other = naive_anchors(local_scores[frame], global_scores[frame], *arguments)
        assert places(anchors.local[frame]) == local
        assert places(anchors.global_[frame]) == other


@pytest.mark.parametrize("num_anchors", [126, 144, 196, 205])
def test_operating_points_of_the_paper(num_anchors):
    local_scores, global_scores = random_scores(2, 27, seed=1), random_scores(2, 27, seed=2)
    anchors = select(local_scores, global_scores, num_anchors, 9, 0.5)
    assert anchors.local.dtype == anchors.global_.dtype == torch.bool
    assert anchors.local.sum(-1).tolist() == [num_anchors // 2 // 9 * 9] * 2
    assert (anchors.local | anchors.global_).sum(-1).tolist() == [num_anchors] * 2
    assert not (anchors.local & anchors.global_).any()
    assert_equals_reference(anchors, local_scores, global_scores, num_anchors, 9, 0.5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    data=st.data(),
    grid=st.integers(1, 9),
    local_ratio=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    levels=st.sampled_from([1, 2, 4, 1000]),
    seed=st.integers(0, 1000),
)
def test_any_grid_window_and_share_equal_the_reference(data, grid, local_ratio, levels, seed):
    """Few levels make many ties; windows that do not divide the grid make small edge windows."""
    window_size = data.draw(st.integers(1, grid))
    num_anchors = data.draw(st.integers(1, grid * grid))
    generator = torch.Generator().manual_seed(seed)
    local_scores, global_scores = (
        torch.randint(levels, (2, grid * grid), generator=generator) / levels for _ in range(2)
    )
    anchors = select(local_scores, global_scores, num_anchors, window_size, local_ratio)
    assert (anchors.local | anchors.global_).sum(-1).tolist() == [num_anchors] * 2
    assert_equals_reference(anchors, local_scores, global_scores, num_anchors, window_size, local_ratio)


def test_every_window_gives_its_share():
    anchors = select(random_scores(3, 9), random_scores(3, 9, seed=1), 18, 3, 1.0)
    for window in naive_windows(9, 3):
        assert anchors.local[:, window].sum(-1).tolist() == [2, 2, 2]


def test_a_small_edge_window_gives_all_it_has_and_global_anchors_fill_up():
    # A 4x4 grid in windows of 3: sides 3 and 1. Four patches a window are wanted.
    scores = random_scores(1, 4)
    anchors = select(scores, scores, 16, 3, 1.0)
    assert anchors.local.sum() == 4 + 3 + 3 + 1
    assert anchors.global_.sum() == 16 - 11


def test_equal_scores_go_to_the_lower_index():
    flat = torch.ones(1, 36)
    anchors = select(flat, flat, 12, 3, 0.5)
    assert places(anchors.local[0]) == {0, 3, 18, 21}
    assert places(anchors.global_[0]) == {1, 2, 4, 5, 6, 7, 8, 9}


def test_inside_a_window_raster_order_breaks_ties():
    flat = torch.ones(1, 36)
    anchors = select(flat, flat, 16, 3, 1.0)
    assert places(anchors.local[0]) == {0, 1, 2, 6, 3, 4, 5, 9, 18, 19, 20, 24, 21, 22, 23, 27}


def test_local_anchors_follow_local_scores_and_global_ones_global_scores():
    local_scores, global_scores = torch.zeros(1, 16), torch.zeros(1, 16)
    local_scores[0, [5, 7, 10, 15]] = 1.0
    global_scores[0, [5, 0, 1, 2, 3]] = torch.tensor([9.0, 5.0, 4.0, 3.0, 2.0])
    anchors = select(local_scores, global_scores, 8, 2, 0.5)
    # Window by window: 5; 7; of equal ones the first, 8; of 10 and 15, equal, the first.
    assert places(anchors.local[0]) == {5, 7, 8, 10}
    assert places(anchors.global_[0]) == {0, 1, 2, 3}


@pytest.mark.parametrize(("num_anchors", "kept"), [(126, 126), (144, 144), (196, 188), (205, 202)])
def test_the_released_program_loses_the_remainder(num_anchors, kept):
    local_scores, global_scores = random_scores(2, 27, seed=3), random_scores(2, 27, seed=4)
    anchors = select(local_scores, global_scores, num_anchors, 9, 0.5, fill_up=False)
    assert (anchors.local | anchors.global_).sum(-1).tolist() == [kept] * 2
    assert_equals_reference(anchors, local_scores, global_scores, num_anchors, 9, 0.5, "released")


@pytest.mark.parametrize("scale", [5**-0.5, 1.0, 0.3])
def test_attention_received_equals_the_reference(scale):
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(2, 3, 9, 5, generator=generator) for _ in range(2))
    received = attention_received(queries, keys, scale)
    assert received.dtype == torch.float32
    torch.testing.assert_close(received.double(), naive_attention_received(queries, keys, scale), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("limit", [1, 4 * 6**2 * 2, 4 * 25**2 * 5, 2**23])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 4, 6, 3), (3, 2, 25, 8), (5, 7, 25, 4), (2, 3, 36, 72)])
def test_attention_received_in_any_chunks_equals_the_reference(shape, limit, dtype, monkeypatch):
    monkeypatch.setitem(token_anchors.MAX_SCORE_BYTES, "cpu", limit)
    generator = torch.Generator().manual_seed(sum(shape))
    queries, keys = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    received = attention_received(queries, keys, shape[-1] ** -0.5)
    assert received.shape == (shape[0], shape[2])
    expected = naive_attention_received(queries.double(), keys.double(), shape[-1] ** -0.5)
    assert relative_error(received, expected) < 1e-5


def test_attention_received_is_a_column_mean():
    """Every query looks at key 1 alone, so patch 1 receives everything."""
    queries = torch.ones(1, 1, 3, 1)
    keys = torch.tensor([0.0, 100.0, 0.0]).view(1, 1, 3, 1)
    torch.testing.assert_close(
        attention_received(queries, keys, 1.0), torch.tensor([[0.0, 1.0, 0.0]]), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_a_shorter_dtype_are_float32(dtype):
    """As a GPU's kernel accumulates them: rounded to bfloat16, a score of 40 would be off by an eighth."""
    queries, keys = (8 * torch.randn(2, 3, 25, 16, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4))
    queries, keys = queries.to(dtype), keys.to(dtype)
    received = attention_received(queries, keys, 0.25)
    assert relative_error(received, naive_attention_received(queries.double(), keys.double(), 0.25)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_attention_received_in_half_precision_is_a_float32_mean(dtype):
    """A mean of 2048 weights of about 1/1024 each: rounded to half, a row would not sum to 1."""
    generator = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(1, 2, 1024, 4, generator=generator).to(dtype) for _ in range(2))
    received = attention_received(queries, keys, 0.5)
    exact = (queries.double() @ keys.double().transpose(-1, -2) * 0.5).softmax(-1).mean((1, 2))
    assert received.dtype == torch.float32
    assert abs(float(received.double().sum()) - 1) < 1e-5
    assert relative_error(received, exact) < (1e-3 if dtype == torch.float16 else 1e-2)


def test_attention_received_does_not_overflow():
    queries, keys = torch.full((1, 1, 4, 2), 1e4), torch.full((1, 1, 4, 2), 1e4)
    torch.testing.assert_close(attention_received(queries, keys, 1.0), torch.full((1, 4), 0.25))
