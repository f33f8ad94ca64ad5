"""A vision tower that vLLM compiles (`compile_mm_encoder`): the answers are transformers'."""

from cases import CASES
from engines import ask_engine, assert_same, engine

# The graph alone, without the minutes that its code takes on a CPU; a break in it is an error.
COMPILATION = {"compile_mm_encoder": True, "backend": "eager"}


def test_a_compiled_vision_tower_answers_as_transformers(folder, answers):
    names = ("image alone", "clip 0 at 0.1", "clip 1 at 0.2", "clip 2 at 1.0", "image and video", "40 frames")
    with engine(folder, enforce_eager=False, compilation_config=COMPILATION) as llm:
        (is_compiled,) = llm.collective_rpc(_has_compiled_tower)
        for name in names:
            (output,) = ask_engine(llm, CASES[name])
            assert_same(output, answers[name])
        del output
    assert is_compiled


def _has_compiled_tower(worker) -> bool:
    modules = dict(worker.get_model().named_modules())
    (tower,) = (module for name, module in modules.items() if name.endswith("vision_tower"))
    return not tower.do_not_compile and tower.compiled
