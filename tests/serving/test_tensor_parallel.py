"""Two ranks, each with half the heads of the vision tower, choose the tokens that transformers chooses."""

from cases import CASES, CLIPS_AT_RATIOS
from engines import ask_engine, assert_same, engine


def test_two_ranks_answer_as_transformers(folder_of_even_heads, answers, answers_of_even_heads, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")  # else each rank wants a NUMA node of its own
    with engine(folder_of_even_heads, tensor_parallel_size=2) as llm:
        outputs = ask_engine(llm, *(CASES[name] for name in CLIPS_AT_RATIOS))
    for name, output in zip(CLIPS_AT_RATIOS, outputs):
        assert_same(output, answers_of_even_heads[name])
