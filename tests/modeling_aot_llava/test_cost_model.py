"""The cost model reproduces the FLOPs columns of the paper's Tables 1 and 2."""

import math

import pytest

from modeling_aot_llava.cost_model import decode_flops, prefill_flops

QWEN2_7B = {"num_layers": 28, "hidden_size": 3584, "intermediate_size": 18944}
LLAVA_ONEVISION = (32, 196)  # frames, tokens a frame
LLAVA_VIDEO = (64, 169)


def printed_teraflops(num_tokens: int) -> float:
    """As the paper prints it: one decimal."""
    return round(prefill_flops(num_tokens, **QWEN2_7B) / 1e12, 1)


def paper_tokens(video: tuple[int, int], ratio: float) -> int:
    """The count behind the paper's column: each frame rounded up to 20, 30, 40, 49 of 196."""
    frames, tokens_per_frame = video
    return frames * math.ceil(ratio * tokens_per_frame)


@pytest.mark.parametrize(("video", "teraflops"), [(LLAVA_ONEVISION, 40.8), (LLAVA_VIDEO, 80.2)])
def test_all_video_tokens_cost_what_the_paper_prints(video, teraflops):
    assert printed_teraflops(math.prod(video)) == teraflops


@pytest.mark.parametrize(
    ("video", "ratio", "teraflops", "percent"),
    [
        (LLAVA_ONEVISION, 0.10, 3.4, 8.3),
        (LLAVA_ONEVISION, 0.15, 5.2, 12.7),
        (LLAVA_ONEVISION, 0.20, 7.0, 17.2),
        (LLAVA_ONEVISION, 0.25, 8.7, 21.3),
        (LLAVA_VIDEO, 0.15, 9.3, 11.6),
    ],
)
def test_the_papers_columns(video, ratio, teraflops, percent):
    cost = printed_teraflops(paper_tokens(video, ratio))
    assert cost == teraflops
    # The paper divides the figures that it prints.
    assert round(100 * cost / printed_teraflops(math.prod(video)), 1) == percent


def test_the_papers_row_for_llava_video_at_a_quarter_contradicts_itself():
    """It repeats the 9.3 T of 15 %, but its 18.9 % of 80.2 T is 15.2 T: 41 tokens a frame."""
    assert round(100 * 9.3 / 80.2, 1) == 11.6
    all_tokens = prefill_flops(64 * 169, **QWEN2_7B)
    assert round(100 * prefill_flops(64 * 41, **QWEN2_7B) / all_tokens, 1) == 18.9


@pytest.mark.parametrize(
    ("num_tokens", "teraflops"),
    [(627, 3.4), (941, 5.1), (1254, 6.9), (1568, 8.7)],
)
def test_an_exact_budget_costs_no_more_than_the_paper_prints(num_tokens, teraflops):
    """The budget is rounded once for the whole video; rounding up every frame adds tokens."""
    assert printed_teraflops(num_tokens) == teraflops


def test_writing_a_hundred_tokens_is_about_two_percent_of_the_whole():
    decoding = decode_flops(6272, 100, **QWEN2_7B)
    assert round(100 * decoding / (decoding + prefill_flops(6272, **QWEN2_7B))) == 2


def test_decoding_adds_up_token_by_token():
    """Eq. 18 is a sum: the i-th new token attends to n + i tokens."""
    sizes = {"num_layers": 3, "hidden_size": 10, "intermediate_size": 24}
    one_by_one = sum(3 * (4 * 10**2 + 2 * 10 * 24 + 2 * 10 * (50 + i)) for i in range(1, 8))
    assert decode_flops(50, 7, **sizes) == one_by_one
