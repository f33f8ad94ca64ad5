"""Methods before the model on videos so small that bounds show, against the same written token by token."""

import math

import naive_methods as naive
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aot_llava_baselines.fastvid import fastvid, fastvid_llava_video
from aot_llava_baselines.flashvid import flashvid, segment_lengths
from aot_llava_baselines.holitom import best_windows, holitom
from aot_llava_baselines.prunevid import prunevid, token_sets
from aot_llava_baselines.vidcom2 import vidcom2
from aot_llava_baselines.visionzip import visionzip


@st.composite
def small_videos(draw, most_frames=5, num_places=tuple(range(1, 21))):
    """Tokens (F, P, 4) of two scenes, float64 so that rounding decides nothing, and attention (F, P)."""
    frames, places = draw(st.integers(1, most_frames)), draw(st.sampled_from(num_places))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    scenes = torch.randn(2, places, 4, generator=generator, dtype=torch.float64)
    which = torch.randint(2, (frames,), generator=generator).sort().values
    noise = draw(st.sampled_from([0.1, 0.4, 1.0]))
    tokens = scenes[which] + noise * torch.randn(frames, places, 4, generator=generator, dtype=torch.float64)
    return tokens, torch.rand(frames, places, generator=generator, dtype=torch.float64)


# No share of them is half a token.
RATIOS = st.sampled_from([0.13, 0.27, 0.51, 0.87])


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    if expected:
        torch.testing.assert_close(actual, torch.stack(expected), rtol=0, atol=1e-5)


@settings(max_examples=60)
@given(small_videos(), st.integers(1, 20))
def test_visionzip(video, kept):
    tokens, attention = video
    kept = min(kept, tokens.shape[1])
    actual, _ = visionzip(tokens, attention, tokens[..., :3], kept)
    assert_same(actual.flatten(0, 1), naive.visionzip(tokens, attention, tokens[..., :3], kept))


def some_segments(data, num_frames):
    cuts = data.draw(st.sets(st.integers(1, max(1, num_frames - 1))).map(sorted))
    borders = [0, *(cut for cut in cuts if cut < num_frames), num_frames]
    return [end - start for start, end in zip(borders, borders[1:])]


@settings(max_examples=60)
@given(small_videos(), RATIOS, st.sampled_from([0.2, 0.4, 0.6]), st.integers(1, 4), st.data())
def test_fastvid(video, ratio, share, step, data):
    tokens, attention = video
    segments = some_segments(data, len(tokens))
    kept = {"retention_ratio": ratio, "context_share": share, "frames_per_anchor": step, "beta": 0.3}
    actual, places = fastvid(tokens, attention, segments, **kept)
    expected = naive.fastvid(tokens, attention, segments, ratio, share, step, 0.3)
    assert places.tolist() == [place for place, _ in expected]
    assert_same(actual, [token for _, token in expected])


@settings(max_examples=40)
@given(small_videos(num_places=(1, 4, 9, 16)), RATIOS, st.sampled_from([0.2, 0.4, 0.6]), st.integers(1, 4), st.data())
def test_fastvid_for_llava_video(video, ratio, share, step, data):
    tokens, attention = video
    segments = some_segments(data, len(tokens))
    kept = {"retention_ratio": ratio, "context_share": share, "frames_per_anchor": step, "beta": 0.3}
    actual, places = fastvid_llava_video(tokens, attention, segments, tokens[0, 0], **kept)
    expected = naive.fastvid_llava_video(tokens, attention, segments, tokens[0, 0], ratio, share, step, 0.3)
    assert places.tolist() == [place for place, _ in expected]
    assert_same(actual, [token for _, token in expected])


@settings(max_examples=60)
@given(small_videos(most_frames=8), st.sampled_from([0.3, 0.8]), st.sampled_from([0.25, 0.5]), RATIOS)
def test_prunevid(video, threshold, segment_ratio, cluster_ratio):
    tokens, _ = video
    actual = prunevid(token_sets(tokens, threshold, segment_ratio), cluster_ratio)
    assert_same(actual.tokens, naive.prunevid(tokens, threshold, segment_ratio, cluster_ratio))


@settings(max_examples=60)
@given(small_videos(), RATIOS, st.sampled_from([0.0, 0.5, 0.8]))
def test_holitom(video, ratio, threshold):
    tokens, attention = video
    windows, saved = best_windows(tokens, threshold)
    actual = holitom(
        tokens, attention, windows, saved, retention_ratio=ratio, similarity_threshold=threshold, beta=0.6
    )
    assert_same(actual, naive.holitom(tokens, attention, ratio, threshold, 0.6))


@settings(max_examples=60)
@given(small_videos(most_frames=9), st.sampled_from([-1, 0.5, 0.9]), st.integers(1, 9))
def test_flashvids_segments(video, threshold, least):
    tokens, _ = video
    segments = segment_lengths(tokens, threshold, least)
    assert segments == naive.flashvid_segments(tokens, threshold, least)
    assert sum(segments) == len(tokens)


@settings(max_examples=40)
@given(small_videos(), RATIOS, st.sampled_from([0, 0.3, 0.7, 1]), st.sampled_from([0.3, 0.8]), st.data())
def test_flashvid(video, ratio, chosen_share, threshold, data):
    tokens, attention = video
    budget = math.ceil(tokens.shape[1] * ratio)
    num_chosen = math.ceil(budget * chosen_share)
    merging = data.draw(st.sampled_from(["sum", "mean"]))
    segments = some_segments(data, len(tokens))
    settings = {"budget": budget, "num_chosen": num_chosen, "merging_threshold": threshold, "merging": merging}
    actual, places = flashvid(tokens, attention, segments, **settings)
    expected = naive.flashvid(tokens, attention, segments, budget, num_chosen, threshold, merging)
    assert places.tolist() == [place for place, _ in expected]
    assert_same(actual.double(), [token for _, token in expected])


@settings(max_examples=60)
@given(small_videos(num_places=(1, *range(3, 21))), RATIOS, st.booleans())  # two are as far from their mean
def test_vidcom2(video, ratio, exact):
    tokens, _ = video
    actual = vidcom2(tokens, ratio, exact).nonzero().tolist()
    assert [tuple(place) for place in actual] == naive.vidcom2(tokens, ratio, exact)


@pytest.mark.parametrize("places", [1, 4, 9, 16])
def test_one_frame_is_enough(places):
    """As a video of one picture is for the base model."""
    tokens, attention = torch.randn(1, places, 4), torch.rand(1, places)
    assert len(fastvid(tokens, attention, [1], retention_ratio=1.0)[0]) > 0
    assert len(prunevid(token_sets(tokens), 0.5).tokens) > 0
