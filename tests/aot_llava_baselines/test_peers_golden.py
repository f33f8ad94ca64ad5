"""VidCom2, FlashVID, STC and EarlyTom against outputs of their authors' programs: the functions, and the classes.

`reduce` of a class is what `generate` hands the language model.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aot_llava_baselines import build_baseline
from aot_llava_baselines.interface import EncodedVideo
from aot_llava_baselines.vidcom2 import vidcom2, vidcom2_scores

FOLDER = Path(__file__).parents[1] / "golden" / "baselines"
PERCENTS = [10, 15, 20, 25]


def golden(name):
    return load_file(FOLDER / f"{name}.safetensors")


def assert_tokens(actual, expected):
    """To 2e-5 of the largest value, where that is above 1."""
    atol = 2e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def encoded(data, position="one_token"):
    tokens = data["tokens_pooled"]
    attention = data.get("pooled_attention", tokens[..., 0])
    newline = data.get("newline", torch.zeros(tokens.shape[-1]))
    return EncodedVideo(tokens, attention, tokens, tokens[:, 0], attention, newline, position)


@pytest.mark.parametrize("name", ["vidcom2-a", "vidcom2-long-a", "vidcom2-video-a"])
def test_vidcom2(name):
    data = golden(name)
    tokens = data["tokens_pooled"]
    torch.testing.assert_close(vidcom2_scores(tokens)[0], data["scores"], rtol=0, atol=2e-5)
    position = "grid" if "newline" in data else "one_token"
    for percent in PERCENTS:
        is_kept = vidcom2(tokens, percent / 100)
        assert torch.equal(is_kept.sum(1), data[f"counts_{percent}"])
        assert torch.equal(is_kept.flatten().nonzero().flatten(), data[f"positions_{percent}"])
        reduced = build_baseline("vidcom2", retention_ratio=percent / 100).reduce(encoded(data, position))
        # LLaVA-Video's last newline ends the video, and stands in the prompt by itself.
        assert torch.equal(reduced.tokens, data[f"tokens_{percent}"][: -1 if position == "grid" else None])


@pytest.mark.parametrize("name", ["vidcom2-a", "vidcom2-long-a", "vidcom2-video-a"])
@pytest.mark.parametrize("percent", PERCENTS)
def test_vidcom2_to_an_exact_count(name, percent):
    """vLLM's variant: the same tokens, then as many as are wanted."""
    data = golden(name)
    tokens = data["tokens_pooled"]
    is_kept = vidcom2(tokens, percent / 100, exact_count=True)
    assert torch.equal(is_kept.flatten().nonzero().flatten(), data[f"mask_{percent}"])
    method = build_baseline("vidcom2", retention_ratio=percent / 100, exact_count=True)
    assert torch.equal(method.reduce(encoded(data)).tokens, tokens.flatten(0, 1)[data[f"mask_{percent}"]])
    assert method.num_video_tokens(*tokens.shape[:2]) == len(data[f"mask_{percent}"])
