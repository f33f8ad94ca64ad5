"""A vision tower that vLLM compiles (`compile_mm_encoder`): the answers are transformers'."""

from cases import CASES
from engines import ask_engine, assert_same, engine


def test_a_compiled_vision_tower_answers_as_transformers(folder, answers):
    names = ("image alone", "clip 0 at 0.1", "clip 1 at 0.2", "clip 2 at 1.0", "image and video", "40 frames")
    with engine(folder, enforce_eager=False, compilation_config={"compile_mm_encoder": True}) as llm:
        tower = llm.collective_rpc(lambda worker: is_compiled(worker.model_runner.model))
        assert tower == [True]
        for name in names:
            (output,) = ask_engine(llm, CASES[name])
            assert_same(output, answers[name])


def is_compiled(model) -> bool:
    """Whether vLLM compiled the vision tower when it was first called."""
    tower = next(module for name, module in model.named_modules() if name.endswith("vision_tower"))
    return not tower.do_not_compile and (tower.compiled or getattr(tower, "aot_compiled_fn", None) is not None)
