"""LLaVA-Video's newlines through vLLM: one after each row of each frame, compressed or not."""

from cases import CASES, CLIPS_AT_RATIOS
from engines import ask_engine, assert_same, engine


def test_newlines_after_each_row_as_in_transformers(folder_of_llava_video, answers, answers_of_llava_video):
    lengths = [len(answers_of_llava_video[f"clip 0 at {ratio}"].prompt) for ratio in (0.1, 0.2, 1.0)]
    assert lengths[2] - lengths[0] == 16 * 169 - 270  # the 13 newlines of each frame are in all of them
    assert lengths[2] - lengths[1] == 16 * 169 - 541
    with engine(folder_of_llava_video) as llm:
        for name, output in zip(CLIPS_AT_RATIOS, ask_engine(llm, *(CASES[name] for name in CLIPS_AT_RATIOS))):
            assert_same(output, answers_of_llava_video[name])
