"""`LLM.generate` and `LLM.chat` of vLLM on an AOT folder: prompts, answers and log-probabilities of transformers."""

import base64

import pytest
from cases import CASES, CLIPS_AT_RATIOS
from engines import ask_engine, assert_same, engine

from mini_checkpoint.questions import make_scene, save_clip


@pytest.fixture(scope="module")
def llm(folder, answers):
    with engine(folder) as llm:
        yield llm


def assert_answers_as_transformers(llm, answers, *names):
    for name, output in zip(names, ask_engine(llm, *(CASES[name] for name in names))):
        assert_same(output, answers[name])
        assert output.outputs[0].text == answers[name].text


def test_the_cases_tell_ratios_clips_and_lengths_apart(answers):
    """Else the tests below would pass with other tokens, too."""
    assert len({answers[name].prompt for name in CLIPS_AT_RATIOS}) == 9
    assert {answers[name].text for name in CLIPS_AT_RATIOS} > {answers[CLIPS_AT_RATIOS[0]].text}
    lengths = [len(answers[f"clip 0 at {ratio}"].prompt) for ratio in (0.1, 0.2, 1.0)]
    assert lengths[2] - lengths[0] == 16 * 196 - 314
    assert lengths[2] - lengths[1] == 16 * 196 - 627


@pytest.mark.parametrize("name", CLIPS_AT_RATIOS)
def test_three_clips_at_three_ratios(llm, answers, name):
    assert_answers_as_transformers(llm, answers, name)


def test_ratios_mixed_in_a_batch(llm, answers):
    assert_answers_as_transformers(llm, answers, *CLIPS_AT_RATIOS[::-1])


def test_batch_of_videos_of_different_lengths(llm, answers):
    assert_answers_as_transformers(llm, answers, "8 frames", "16 frames", "40 frames")


def test_videos_of_different_lengths_in_one_prompt(llm, answers):
    assert_answers_as_transformers(llm, answers, "three lengths in one prompt")


def test_160_frames(llm, answers):
    assert_answers_as_transformers(llm, answers, "160 frames")


def test_images_and_text_beside_videos(llm, answers):
    names = ("text alone", "image and video", "16 frames", "image alone")
    assert_answers_as_transformers(llm, answers, *names)


def test_a_repeated_prompt_comes_from_the_prefix_cache_and_another_ratio_does_not(llm, answers):
    def ask(ratio):
        (output,) = ask_engine(llm, CASES[f"clip 2 at {ratio}"])
        assert_same(output, answers[f"clip 2 at {ratio}"])
        return output.num_cached_tokens

    llm.reset_prefix_cache()
    assert ask(0.1) == 0
    assert ask(0.1) > 200  # all whole blocks but the last
    assert ask(0.2) == 0


def test_chat(llm, answers, tmp_path):
    from vllm import SamplingParams

    save_clip(make_scene(1, "held_out"), tmp_path / "clip.mp4")
    question = CASES["clip 1 at 0.2"].question
    url = "data:video/mp4;base64," + base64.b64encode((tmp_path / "clip.mp4").read_bytes()).decode()
    content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": question}]
    (output,) = llm.chat(
        [{"role": "user", "content": content}],
        SamplingParams(temperature=0, max_tokens=6),
        use_tqdm=False,
        mm_processor_kwargs={"retention_ratio": 0.2},
    )
    # vLLM reads 32 frames of a file: 0.2 * 32 * 196 = 1254 tokens, and the newline.
    assert list(output.prompt_token_ids).count(answers["clip 1 at 0.2"].prompt[20]) == 1255
    assert output.outputs[0].text == answers["clip 1 at 0.2"].text
