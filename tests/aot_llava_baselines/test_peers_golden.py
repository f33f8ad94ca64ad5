"""VidCom2, FlashVID, STC and EarlyTom against outputs of their authors' programs: the functions, and the classes.

`reduce` of a class is what `generate` hands the language model.
"""

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aot_llava_baselines import build_baseline
from aot_llava_baselines.earlytom import earlytom
from aot_llava_baselines.flashvid import choose_distinct, flashvid, segment_lengths
from aot_llava_baselines.interface import EncodedVideo
from aot_llava_baselines.stc_pruner import stc_pruner
from aot_llava_baselines.tree_merging import merge_trees
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


@pytest.mark.parametrize("kept", [20, 60])
def test_stc_pruner(kept):
    data = golden("stc-pruner-a")
    assert torch.equal(stc_pruner(data["tokens_pooled"], kept), data[f"places_{kept}"])
    reduced = build_baseline("stc_pruner", tokens_per_frame=kept).reduce(encoded(data))
    assert torch.equal(reduced.tokens, data[f"tokens_{kept}"].flatten(0, 1))


def test_stc_pruner_in_one_call():
    data = golden("stc-pruner-a")
    frames = len(data["tokens_pooled"])
    reduced = build_baseline("stc_pruner", tokens_per_frame=60, encode_chunk_size=frames).reduce(encoded(data))
    assert torch.equal(reduced.tokens, data["tokens_at_once"])


@pytest.mark.parametrize("percent", PERCENTS)
def test_earlytom(percent):
    data = golden("earlytom-a")
    runs, ratio = data["segments"].tolist(), percent / 100
    tokens, places = earlytom(data["tokens_pooled"], data["pooled_attention"], runs, ratio, num_frames=16)
    assert torch.equal(places, data[f"positions_{percent}"])
    assert torch.equal(tokens, data[f"tokens_{percent}"])
    video = dataclasses.replace(encoded(data), stock_frames=16, runs=runs)
    reduced = build_baseline("earlytom", retention_ratio=ratio).reduce(video)
    assert torch.equal(reduced.tokens, data[f"tokens_{percent}"])
    assert video.num_placeholders == 16 * 196 + 1


FLASHVID_FILES = ["flashvid-a", "flashvid-long-a", "flashvid-video-a"]


def assert_kept(kept, data, tokens, places):
    assert torch.equal(kept[1], data[places])
    assert_tokens(kept[0], data[tokens])


@pytest.mark.parametrize("name", FLASHVID_FILES)
def test_flashvid(name):
    data = golden(name)
    tokens, attention = data["tokens_pooled"], data["pooled_attention"]
    segments = segment_lengths(tokens, 0.9, 8)
    assert segments == data["segment_sizes"].tolist()
    for percent in PERCENTS:
        method = build_baseline("flashvid", retention_ratio=percent / 100)
        budget, num_chosen = method.budget(tokens.shape[1]), data[f"selected_{percent}"].shape[1]
        chosen = choose_distinct(tokens, attention, segments, num_chosen)
        assert torch.equal(chosen, data[f"selected_{percent}"])
        kept = flashvid(tokens, attention, segments, budget=budget, num_chosen=num_chosen)
        assert_kept(kept, data, f"tokens_{percent}", f"positions_{percent}")
        assert_tokens(method.reduce(encoded(data)).tokens, data[f"tokens_{percent}"])
        surplus = len(kept[0]) - method.num_video_tokens(*tokens.shape[:2])
        assert 0 <= surplus <= len(tokens) - len(segments)


def test_flashvid_with_a_newline_after_each_frame():
    """As LLaVA-Video's script runs it; the last one ends the video, and the methods leave it to their caller."""
    data = golden("flashvid-video-a")
    for percent in (10, 25):
        reduced = build_baseline("flashvid", retention_ratio=percent / 100).reduce(encoded(data, "frame"))
        assert_tokens(torch.cat([reduced.tokens, data["newline"][None]]), data[f"frame_tokens_{percent}"])


@pytest.mark.parametrize("name", FLASHVID_FILES)
def test_flashvid_grows_the_programs_trees(name):
    data = golden(name)
    tokens, segments = data["tokens_pooled"], data["segment_sizes"].tolist()
    is_chosen = torch.zeros(tokens.shape[:2], dtype=torch.bool).scatter(1, data["selected_10"], True)
    budget = build_baseline("flashvid", retention_ratio=0.1).budget(tokens.shape[1])
    forest = merge_trees(tokens, is_chosen, segments, budget, 0.8)
    is_tree = torch.tensor([length > 1 for length in segments for _ in range(length)])
    roots = forest.is_root[is_tree]
    assert roots.sum(1).tolist() == data["tree_counts_10"].tolist()
    assert torch.equal(roots.nonzero()[:, 1], data["tree_positions_10"])
    assert_tokens(forest.tokens[is_tree][roots], data["tree_tokens_10"])


@pytest.mark.parametrize("name", FLASHVID_FILES)
@pytest.mark.parametrize(
    ("key", "frames", "settings"),
    [
        ("long", None, {"segment_threshold": 0.5, "num_segments": 3}),
        ("five", 5, {}),
        (
            "other",
            None,
            {"segment_threshold": -1.0, "num_segments": 1, "expansion": 1.0, "chosen_share": 0.4}
            | {"merging_threshold": 0.6},
        ),
    ],
)
def test_flashvid_with_other_settings(name, key, frames, settings):
    data = golden(name)
    data = {**data, **{name: data[name][:frames] for name in ("tokens_pooled", "pooled_attention")}}
    reduced = build_baseline("flashvid", retention_ratio=0.1, **settings).reduce(encoded(data))
    assert_tokens(reduced.tokens, data[f"{key}_tokens"])
