"""Two ranks, each with half the heads of the vision tower, choose the same tokens as one."""

import numpy as np
from cases import CASES, SEEDS, TOLERANCE
from engines import answer_in, ask_engine, engine


def test_two_ranks_answer_as_transformers(folder, answers):
    names = [f"clip {seed} at {ratio}" for seed in SEEDS for ratio in (0.1, 0.2)]
    with engine(folder, tensor_parallel_size=2) as llm:
        outputs = ask_engine(llm, *(CASES[name] for name in names))
    for name, output in zip(names, outputs):
        actual = answer_in(output)
        assert actual[:3] == answers[name][:3]
        np.testing.assert_allclose(actual.logprobs, answers[name].logprobs, rtol=0, atol=TOLERANCE)
