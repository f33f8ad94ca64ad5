"""The Triton kernels against the plain formulas, run by Triton's interpreter on a CPU.

Whether a kernel is compiled or interpreted is settled when Triton is imported, so `test_fused_kernels.py` runs this
file in a process of its own, with TRITON_INTERPRET=1.
"""

import pytest
import torch

from benchmarks.launches import LAUNCHES
from modeling_aot_llava import attention_kernels, sinkhorn_kernel
from modeling_aot_llava.attention_kernels import launch_attention_received
from modeling_aot_llava.optimal_transport import cosine_similarity, sinkhorn
from modeling_aot_llava.sinkhorn_kernel import launch_sinkhorn
from modeling_aot_llava.token_anchors import attention_received

SMALL = [(1, 1), (1, 5), (5, 1), (7, 30), (34, 34), (65, 17)]
LARGE = [(603, 126), (524, 205), (729, 1), (1, 205), (25, 704)]
STOPS = [(0.01, 100), (1e-4, 100), (0.0, 3), (0.01, 1)]


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(actual, expected):
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def cosine_cost(num_sources, num_anchors, width=6, num_problems=2):
    sources, anchors = normal(num_problems, num_sources, width), normal(num_problems, num_anchors, width, seed=1)
    return 1 - cosine_similarity(sources, anchors)


def masks_of(cost):
    """Some tokens are padding; the first ones never are."""
    generator = torch.Generator().manual_seed(2)
    source_mask, anchor_mask = (
        torch.rand(shape, generator=generator) < 0.7 for shape in (cost.shape[:2], cost[:, 0].shape)
    )
    source_mask[:, 0] = anchor_mask[:, 0] = True
    return source_mask, anchor_mask


def both(cost, source_mask=None, anchor_mask=None, epsilon=0.1, stop=(0.01, 100), sources_first=False):
    """The plan of the kernel and that of the plain formula."""
    tolerance, max_iterations = stop
    largest = float(cost.max())
    launched = launch_sinkhorn(
        cost, source_mask, anchor_mask, epsilon, max_iterations, tolerance, sources_first, largest
    )
    plain = sinkhorn(cost, epsilon, max_iterations, tolerance, source_mask, anchor_mask, sources_first)
    assert launched.shape == plain.shape
    assert launched.dtype == plain.dtype
    return launched, plain


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("sources_first", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("num_sources", "num_anchors"), SMALL)
def test_sinkhorn(num_sources, num_anchors, masked, sources_first, stop):
    cost = cosine_cost(num_sources, num_anchors)
    launched, plain = both(cost, *(masks_of(cost) if masked else ()), stop=stop, sources_first=sources_first)
    assert relative_error(launched, plain) < 1e-5


@pytest.mark.parametrize(("masked", "sources_first"), [(False, False), (True, True)])
@pytest.mark.parametrize(("num_sources", "num_anchors"), LARGE)
def test_sinkhorn_of_the_sizes_of_a_frame(num_sources, num_anchors, masked, sources_first):
    cost = cosine_cost(num_sources, num_anchors, width=64, num_problems=1)
    launched, plain = both(cost, *(masks_of(cost) if masked else ()), sources_first=sources_first)
    assert relative_error(launched, plain) < 1e-5


@pytest.mark.parametrize("sources_first", [False, True])
def test_each_problem_stops_by_itself(sources_first):
    """Narrow features take many iterations, wide ones two."""
    narrow, wide = cosine_cost(40, 9, width=2), cosine_cost(40, 9, width=512)
    cost = torch.cat([narrow, wide]).view(2, 2, 40, 9)
    launched, plain = both(cost, sources_first=sources_first)
    assert relative_error(launched[1], plain[1]) < 1e-5
    assert relative_error(launched[0], plain[0]) < 1e-5
    gone_on, _ = both(wide, stop=(0.0, 20), sources_first=sources_first)
    assert sources_first or relative_error(gone_on, launched[1]) > 1e-5


@pytest.mark.parametrize("epsilon", [0.02, 0.01])
def test_a_small_epsilon_loses_no_mass(epsilon):
    launched, plain = both(cosine_cost(60, 20), epsilon=epsilon)
    assert relative_error(launched, plain) < 1e-4
    assert launched.sum((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-5)


HARD_FEATURES = {
    "zero": torch.zeros(1, 40, 8),
    "constant": torch.ones(1, 40, 8),
    "duplicated": normal(1, 1, 8).expand(1, 40, 8),
    "opposite": normal(1, 1, 8) * torch.tensor([1.0, -1.0]).repeat(20).view(1, 40, 1),
    "huge": 1e15 * normal(1, 40, 8),
    "tiny": 1e-15 * normal(1, 40, 8),
}


@pytest.mark.parametrize("epsilon", [1e-3, 0.1])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("hard", HARD_FEATURES)
def test_no_features_give_a_nan_plan(hard, masked, epsilon):
    features = HARD_FEATURES[hard]
    cost = 1 - cosine_similarity(features[:, :30], features[:, 30:])
    launched, plain = both(cost, *(masks_of(cost) if masked else ()), epsilon=epsilon)
    assert launched.isfinite().all()
    assert (launched >= 0).all()
    assert relative_error(launched, plain) < (1e-5 if epsilon == 0.1 else 1e-3)


@pytest.mark.parametrize("sources_first", [False, True])
def test_a_problem_of_padding_alone_has_an_empty_plan(sources_first):
    cost = cosine_cost(12, 5)
    source_mask, anchor_mask = masks_of(cost)
    source_mask[1] = anchor_mask[1] = False
    launched, plain = both(cost, source_mask, anchor_mask, sources_first=sources_first)
    assert not launched[1].any()
    assert relative_error(launched, plain) < 1e-5


def queries_and_keys(num_frames, num_heads, num_patches, width, dtype=torch.float32):
    """As the tower's projections leave them: heads side by side in a row."""
    return (
        normal(num_frames, num_patches, num_heads * width, seed=seed)
        .to(dtype)
        .unflatten(-1, (-1, width))
        .transpose(1, 2)
        for seed in (3, 4)
    )


@pytest.mark.parametrize("width", [32, 64, 72, 80])
@pytest.mark.parametrize(("num_frames", "num_heads", "num_patches"), [(1, 1, 1), (2, 3, 49), (1, 2, 130)])
def test_attention_received(num_frames, num_heads, num_patches, width):
    queries, keys = queries_and_keys(num_frames, num_heads, num_patches, width)
    launched = launch_attention_received(queries, keys, width**-0.5)
    plain = attention_received(queries, keys, width**-0.5)
    assert launched.shape == plain.shape
    assert relative_error(launched, plain) < 1e-5


def test_attention_received_of_the_size_of_a_frame():
    queries, keys = queries_and_keys(1, 1, 729, 72, torch.float16)
    launched = launch_attention_received(queries, keys, 72**-0.5)
    assert launched.dtype == torch.float32
    assert relative_error(launched, attention_received(queries.float(), keys.float(), 72**-0.5)) < 1e-5


def test_attention_received_of_a_shorter_dtype():
    """Both make float32 scores of it, so the formula on a CPU ranks patches as the kernel does.

    Triton's interpreter multiplies no bfloat16.
    """
    queries, keys = queries_and_keys(1, 2, 49, 32, torch.float16)
    launched = launch_attention_received(queries, keys, 32**-0.5)
    assert relative_error(launched, attention_received(queries, keys, 32**-0.5)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sinkhorn_of_a_shorter_dtype(dtype):
    launched, plain = both(cosine_cost(9, 4).to(dtype))
    assert launched.dtype == plain.dtype == dtype
    assert relative_error(launched, plain) < torch.finfo(dtype).eps / 2


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_equal_scores_share_evenly(value):
    queries = torch.full((1, 2, 10, 16), value)
    torch.testing.assert_close(launch_attention_received(queries, queries, 1.0), torch.full((1, 10), 0.1))


def test_the_launches_are_as_many_as_is_said():
    launched = []

    def count(kernel):
        kernel.add_pre_run_hook(lambda *args, **kwargs: launched.append(kernel))

    count(sinkhorn_kernel._sinkhorn_kernel)
    count(attention_kernels._softmax_sums_kernel)
    count(attention_kernels._column_means_kernel)
    both(cosine_cost(8, 3, num_problems=4))
    assert len(launched) == LAUNCHES["sinkhorn"]
    launch_attention_received(*queries_and_keys(2, 2, 20, 16), 0.25)
    assert len(launched) == LAUNCHES["sinkhorn"] + LAUNCHES["attention_received"]
