"""Sinkhorn-Knopp (Sec. 3.1): its plan, its marginals, when it stops, and that nothing breaks it."""

from pathlib import Path

import pytest
import torch
from reference import relative_error
from reference.naive_aot import naive_cosines, naive_sinkhorn
from safetensors.torch import load_file

from modeling_aot_llava.optimal_transport import nearest_anchor, sinkhorn

GOLDEN = Path(__file__).parents[1] / "golden" / "frames8_anchors126.safetensors"


def random_tokens(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosine_cost(num_sources, num_anchors, width, seed=0):
    tokens = random_tokens(num_sources + num_anchors, width, seed=seed).double()
    return 1 - naive_cosines(tokens[:num_sources], tokens[num_sources:])


@pytest.fixture(scope="module")
def golden_cost():
    """Cost between the patches and the anchors of one frame of the released program's example."""
    golden = load_file(GOLDEN)
    is_anchor = golden["anchor_mask"][0].bool()
    patches = golden["features"][0].double()
    return 1 - naive_cosines(patches[~is_anchor], patches[is_anchor])


@pytest.mark.parametrize("sources_first", [False, True])
@pytest.mark.parametrize(("num_sources", "num_anchors"), [(1, 1), (1, 5), (5, 1), (6, 6), (40, 9), (7, 30)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"epsilon": 0.05, "tolerance": 1e-4},
        {"epsilon": 1.0, "max_iterations": 1},
        {"tolerance": 0.0, "max_iterations": 3},
    ],
)
def test_equals_the_reference(num_sources, num_anchors, options, sources_first):
    cost = cosine_cost(num_sources, num_anchors, width=6)
    expected, _ = naive_sinkhorn(cost, **options, sources_first=sources_first)
    plan = sinkhorn(cost.float(), **options, sources_first=sources_first)
    assert plan.shape == cost.shape
    assert relative_error(plan, expected) < 1e-5


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("largest_cost", [2.0, 1000.0])
def test_a_known_largest_cost_changes_nothing(epsilon, largest_cost):
    cost = 2 * torch.rand(3, 20, 7)
    torch.testing.assert_close(sinkhorn(cost, epsilon, largest_cost=largest_cost), sinkhorn(cost, epsilon))


def test_a_known_largest_cost_spares_the_question(monkeypatch):
    """Where the bound decides, no value of the costs is read."""
    cost = torch.rand(3, 20, 7)
    monkeypatch.setattr(torch.Tensor, "max", lambda *_: pytest.fail("asked for the largest cost"))
    sinkhorn(cost, 0.1, largest_cost=2.0)


@pytest.mark.parametrize("sources_first", [False, True])
def test_marginals_are_uniform_at_convergence(sources_first):
    cost = cosine_cost(30, 12, width=6).float()
    plan = sinkhorn(cost, max_iterations=2000, tolerance=1e-9, sources_first=sources_first)
    assert (plan > 0).all()
    torch.testing.assert_close(plan.sum(1), torch.full((30,), 1 / 30), rtol=1e-5, atol=0)
    torch.testing.assert_close(plan.sum(0), torch.full((12,), 1 / 12), rtol=1e-5, atol=0)


def test_the_side_updated_last_has_exact_marginals_after_any_number_of_iterations():
    cost = cosine_cost(30, 12, width=4).float()
    papers = sinkhorn(cost, max_iterations=1)
    released = sinkhorn(cost, max_iterations=1, sources_first=True)
    torch.testing.assert_close(papers.sum(1), torch.full((30,), 1 / 30), rtol=1e-5, atol=0)
    torch.testing.assert_close(released.sum(0), torch.full((12,), 1 / 12), rtol=1e-5, atol=0)
    assert (papers.sum(0) - 1 / 12).abs().max() > 1e-4
    assert (released.sum(1) - 1 / 30).abs().max() > 1e-4


@pytest.mark.parametrize("sources_first", [False, True])
def test_a_batch_is_its_problems_one_by_one(sources_first):
    costs = torch.stack([cosine_cost(20, 8, width, seed) for seed, width in enumerate([2, 3, 4, 8, 64, 512])])
    costs = costs.float().view(2, 3, 20, 8)
    plans = sinkhorn(costs, sources_first=sources_first)
    for i in range(2):
        for j in range(3):
            alone = sinkhorn(costs[i, j], sources_first=sources_first)
            torch.testing.assert_close(plans[i, j], alone, rtol=1e-5, atol=0)


def test_a_problem_that_is_done_does_not_go_on_with_its_batch():
    easy, hard = cosine_cost(20, 8, width=64), cosine_cost(20, 8, width=2)
    expected, easy_iterations = naive_sinkhorn(easy)
    gone_on, hard_iterations = naive_sinkhorn(hard)
    assert easy_iterations < hard_iterations
    gone_on, _ = naive_sinkhorn(easy, max_iterations=hard_iterations, tolerance=0.0)
    assert relative_error(gone_on, expected) > 1e-3

    plans = sinkhorn(torch.stack([easy, hard]).float())
    assert relative_error(plans[0], expected) < 1e-5


@pytest.mark.parametrize("maximum", [2, 3, 100])
def test_the_released_order_stops_after_two_iterations_on_real_features(golden_cost, maximum):
    plan = sinkhorn(golden_cost.float(), max_iterations=maximum, sources_first=True)
    expected, iterations = naive_sinkhorn(golden_cost, max_iterations=2, tolerance=0.0, sources_first=True)
    assert iterations == 2
    assert relative_error(plan, expected) < 1e-5


@pytest.mark.parametrize("width", [64, 512])
def test_the_papers_order_stops_after_two_iterations_on_wide_features(width):
    cost = cosine_cost(603, 126, width)
    plan = sinkhorn(cost.float())
    torch.testing.assert_close(plan, sinkhorn(cost.float(), max_iterations=2), rtol=0, atol=0)
    assert relative_error(sinkhorn(cost.float(), max_iterations=1), plan) > 1e-5


def test_the_papers_order_takes_as_long_as_the_features_need(golden_cost):
    """Its sources' scaling is of order 1, not 1/N, so narrow features take many iterations."""
    expected, iterations = naive_sinkhorn(golden_cost)
    after_two, _ = naive_sinkhorn(golden_cost, max_iterations=2)
    assert iterations > 10
    assert relative_error(after_two, expected) > 0.05
    assert relative_error(sinkhorn(golden_cost.float()), expected) < 1e-5


@pytest.mark.parametrize("constant", [0.0, 2.0])
def test_equal_costs_give_the_uniform_plan(constant):
    plan = sinkhorn(torch.full((2, 7, 3), constant))
    torch.testing.assert_close(plan, torch.full((2, 7, 3), 1 / 21), rtol=1e-5, atol=0)


@pytest.mark.parametrize("sources_first", [False, True])
@pytest.mark.parametrize("epsilon", [0.02, 0.01, 0.005])
@pytest.mark.parametrize("width", [6, 64])
def test_a_small_epsilon_loses_no_mass(width, epsilon, sources_first):
    """exp(-cost / epsilon) leaves the range of float32 here, though not that of float64."""
    cost = cosine_cost(60, 20, width)
    expected, _ = naive_sinkhorn(cost, epsilon=epsilon, sources_first=sources_first)
    plan = sinkhorn(cost.float(), epsilon=epsilon, sources_first=sources_first)
    assert relative_error(plan, expected) < 1e-4
    assert float(plan.sum()) == pytest.approx(1, abs=1e-5)


EXTREME_COSTS = {
    "zero": torch.zeros(9, 4),
    "cosine": cosine_cost(9, 4, width=3).float(),
    "huge": 1e4 * torch.rand(9, 4, generator=torch.Generator().manual_seed(1)),
    "huge and equal": torch.full((9, 4), 1e4),
    "one far source": torch.zeros(9, 4).index_fill(0, torch.tensor([2]), 1e6),
    "one far anchor": torch.zeros(9, 4).index_fill(1, torch.tensor([2]), 1e6),
}


def extreme_plan(name, epsilon, sources_first):
    cost = EXTREME_COSTS[name].clone().requires_grad_()
    return cost, sinkhorn(cost, epsilon=epsilon, sources_first=sources_first)


@pytest.mark.parametrize("sources_first", [False, True])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("name", EXTREME_COSTS)
def test_no_cost_and_no_epsilon_give_a_nan_plan(name, epsilon, sources_first):
    _, plan = extreme_plan(name, epsilon, sources_first)
    assert plan.isfinite().all()
    assert (plan >= 0).all()


@pytest.mark.parametrize("sources_first", [False, True])
def test_the_smallest_useful_epsilon_loses_no_mass(sources_first):
    """Costs of cosines are at most 2, so 2000 epsilon: still well inside the precision of float32."""
    _, plan = extreme_plan("cosine", 1e-3, sources_first)
    assert plan.sum().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("sources_first", [False, True])
@pytest.mark.parametrize("epsilon", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("name", EXTREME_COSTS)
def test_no_cost_and_no_epsilon_give_a_nan_gradient(name, epsilon, sources_first):
    cost, plan = extreme_plan(name, epsilon, sources_first)
    (plan * torch.arange(36.0).view(9, 4)).sum().backward()
    assert cost.grad.isfinite().all()


@pytest.mark.parametrize("sources_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"epsilon": 0.5, "tolerance": 0.0, "max_iterations": 4}])
def test_gradients_equal_the_references(options, sources_first):
    cost = cosine_cost(12, 5, width=4)
    weights = random_tokens(12, 5, seed=3)
    exact = cost.clone().requires_grad_()
    (naive_sinkhorn(exact, **options, sources_first=sources_first)[0] * weights).sum().backward()
    ours = cost.float().requires_grad_()
    (sinkhorn(ours, **options, sources_first=sources_first) * weights).sum().backward()
    assert relative_error(ours.grad, exact.grad) < 1e-4


def test_a_source_has_one_nearest_anchor_the_first_of_equals():
    similarity = torch.tensor([[0.5, 0.9, 0.9], [0.0, 0.0, 0.0], [-0.1, -0.2, -0.1], [0.1, 0.2, 0.3]])
    expected = [[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert nearest_anchor(similarity).tolist() == expected
