"""Right answers, and how sure one can be of their share.

Questions about one clip stand or fall together, so the bootstrap draws clips, with replacement, and not questions. All
settings get the same draws: what they have in common cancels in a comparison.
"""

from collections.abc import Sequence

import numpy as np

from mini_checkpoint.questions import Question

NUM_DRAWS = 10_000
CONFIDENCE = 0.95

Estimate = dict[str, float | None]


def is_right(question: Question, answer: str) -> bool:
    """Whether the answer is the expected one, letter by letter."""
    return answer.strip() == question.answer


def draw_clips(num_clips: int, num_draws: int = NUM_DRAWS) -> np.ndarray:
    """How often each clip is in each draw of as many clips as there are: (draws, clips); always the same draws."""
    counts = np.random.default_rng(0).multinomial(num_clips, np.full(num_clips, 1 / num_clips), size=num_draws)
    return counts.astype(float)


def share(part: Sequence[float], whole: Sequence[float], draws: np.ndarray) -> Estimate:
    """The ratio of two sums over the clips, and its bootstrap interval.

    With right answers and questions of each clip it is the accuracy; with right answers under two settings, the share
    of one's accuracy that the other keeps; with their difference and the questions, the difference in accuracy.

    Args:
        part, whole: a number for each clip.
        draws: of `draw_clips`.

    Returns:
        `value`, `low` and `high`; None where there is nothing to divide by.
    """
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    if whole.sum() == 0:
        return {"value": None, "low": None, "high": None}
    sums = draws @ whole
    # A draw may leave out every clip that counts.
    ratios = (draws @ part)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return {"value": float(part.sum() / whole.sum()), "low": float(low), "high": float(high)}
