"""Coverage on the pooled grid against whole numbers: what is covered equally is equal, whatever the grid."""

from fractions import Fraction
from types import SimpleNamespace

import pytest
import torch
from reference.naive_aot import naive_pooling_taps

from modeling_aot_llava.paper_recipe import PaperRecipe
from modeling_aot_llava.released_recipe import ReleasedRecipe
from modeling_aot_llava.spatial_pooling import coverage_of, coverage_steps, pooling_matrix

NUM_FRAMES = 6
CASES = [(grid, mode) for grid in range(1, 41) for mode in ("bilinear", "average") if grid > 1 or mode == "bilinear"]


def exact_taps(grid, mode):
    """For each pooled position, in raster order, its (patch, exact weight) taps."""
    if mode == "bilinear":
        return naive_pooling_taps(grid)
    starts = range(0, 2 * (grid // 2), 2)
    return [
        [((y + dy) * grid + x + dx, Fraction(1, 4)) for dy in (0, 1) for dx in (0, 1)] for y in starts for x in starts
    ]


def exact_coverage(is_anchor, taps):
    return [sum((weight for patch, weight in position if is_anchor[patch]), Fraction(0)) for position in taps]


def frames_of(grid):
    """Anchors, about half of the patches, and scores that all differ."""
    generator = torch.Generator().manual_seed(grid)
    is_anchor = torch.rand(NUM_FRAMES, grid * grid, generator=generator) < 0.5
    return is_anchor, torch.rand(NUM_FRAMES, grid * grid, generator=generator)


@pytest.mark.parametrize(("grid", "mode"), CASES)
def test_coverage_is_the_exact_one_in_whole_steps(grid, mode):
    taps, (is_anchor, _) = exact_taps(grid, mode), frames_of(grid)
    steps = coverage_steps(len(taps))
    assert all((weight * steps).denominator == 1 for position in taps for _, weight in position)
    expected = [[covered * steps for covered in exact_coverage(frame, taps)] for frame in is_anchor.tolist()]
    assert coverage_of(is_anchor, pooling_matrix(grid, mode=mode)).tolist() == expected


@pytest.mark.parametrize(("grid", "mode"), CASES)
def test_of_equally_covered_positions_those_of_greater_score_are_kept(grid, mode):
    taps, (is_anchor, attention) = exact_taps(grid, mode), frames_of(grid)
    pooling, num_kept = pooling_matrix(grid, mode=mode), (len(taps) + 1) // 2
    recipe = PaperRecipe(config=None, budget=SimpleNamespace(pooled_anchors=num_kept))
    kept = recipe.choose_pooled_positions(is_anchor, attention, pooling)
    scores = (attention @ pooling.T).tolist()
    for frame in range(NUM_FRAMES):
        coverage = exact_coverage(is_anchor[frame].tolist(), taps)
        best = sorted(range(len(taps)), key=lambda place: (-coverage[place], -scores[frame][place], place))
        assert kept[frame].nonzero().flatten().tolist() == sorted(best[:num_kept])


@pytest.mark.parametrize(("grid", "mode"), CASES)
def test_released_keeps_what_is_covered_by_just_half(grid, mode):
    taps, (is_anchor, attention) = exact_taps(grid, mode), frames_of(grid)
    recipe = object.__new__(ReleasedRecipe)  # its choice needs neither config nor budget
    kept = recipe.choose_pooled_positions(is_anchor, attention, pooling_matrix(grid, mode=mode))
    expected = [[covered >= Fraction(1, 2) for covered in exact_coverage(f, taps)] for f in is_anchor.tolist()]
    assert kept.tolist() == expected
