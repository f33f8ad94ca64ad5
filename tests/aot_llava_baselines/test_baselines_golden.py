"""The methods of Table 1 against outputs of their authors' programs; what each file holds says its metadata."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from aot_llava_baselines import build_baseline
from aot_llava_baselines.dycoke import dycoke
from aot_llava_baselines.fastvid import fastvid, fastvid_llava_video, segment_lengths
from aot_llava_baselines.holitom import best_windows, holitom, merge_static
from aot_llava_baselines.interface import EncodedVideo
from aot_llava_baselines.prunevid import most_attended, prunevid, refine_labels, token_sets
from aot_llava_baselines.visionzip import (
    contextual_targets,
    dominant_count,
    insert_row_newlines,
    visionzip,
    visionzip_places_in_grid,
)

FOLDER = Path(__file__).parents[1] / "golden" / "baselines"


def golden(name):
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def assert_tokens(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def zip_files():
    return golden("visionzip-a")


@pytest.mark.parametrize("kept", [20, 30, 40, 50])
def test_visionzip(zip_files, kept):
    data = zip_files
    tokens, places = visionzip(data["pooled_features"], data["pooled_attention"], data["pooled_keys"], kept)
    num_dominant = dominant_count(kept)
    assert torch.equal(places[:, :num_dominant], data[f"dominant_{kept}"])
    targets = contextual_targets(196 - num_dominant, kept - num_dominant)
    assert torch.equal(targets, data[f"targets_{kept}"])
    assert_tokens(tokens, data[f"tokens_{kept}"])


def test_visionzip_among_the_newlines_of_llava_video(zip_files):
    data = zip_files
    tokens, places = visionzip(data["pooled_features"], data["pooled_attention"], data["pooled_keys"], 20)
    places = visionzip_places_in_grid(data["pooled_attention"], places, 20)
    assert_tokens(insert_row_newlines(tokens, places, data["newline"], side=14), data["grid_tokens_20"])


@pytest.mark.parametrize("percent", [10, 15, 20, 25])
def test_fastvid(percent):
    data = golden("fastvid-a")
    segments = segment_lengths(data["global_features"], 4, 0.9)
    assert segments == data["segment_sizes"].tolist()
    tokens, places = fastvid(data["tokens_pooled"], data["pooled_attention"], segments, retention_ratio=percent / 100)
    assert torch.equal(places, data[f"positions_{percent}"])
    assert_tokens(tokens, data[f"tokens_{percent}"])


def test_fastvid_with_other_settings():
    data = golden("fastvid-a")
    segments = segment_lengths(data["global_features"], 3, 0)
    assert segments == data["other_segment_sizes"].tolist()
    settings = {"retention_ratio": 0.10, "context_share": 0.6, "frames_per_anchor": 3, "beta": 0.3}
    tokens, places = fastvid(data["tokens_pooled"], data["pooled_attention"], segments, **settings)
    assert torch.equal(places, data["other_positions"])
    assert_tokens(tokens, data["other_tokens"])


@pytest.mark.parametrize("percent", [10, 25])
def test_fastvid_for_llava_video(percent):
    data = golden("fastvid-video-a")
    segments = segment_lengths(data["global_features"], 8, 0.9)
    assert segments == data["segment_sizes"].tolist()
    tokens, places = fastvid_llava_video(
        data["tokens_pooled"], data["pooled_attention"], segments, data["newline"], retention_ratio=percent / 100
    )
    assert torch.equal(places, data[f"positions_{percent}"])
    assert_tokens(tokens, data[f"tokens_{percent}"])


def test_visionzip_for_llava_video_as_generate_reads_it(zip_files):
    data = zip_files
    tokens, attention = data["pooled_features"], data["pooled_attention"]
    video = EncodedVideo(tokens, attention, data["pooled_keys"], tokens, attention, data["newline"], "grid")
    reduced = build_baseline("visionzip", tokens_per_frame=20).reduce(video)
    assert_tokens(torch.cat([reduced.tokens, data["newline"].view(1, -1)]), data["grid_tokens_20"])


@pytest.mark.parametrize("percent", [10, 25])
def test_fastvid_for_llava_video_as_generate_reads_it(percent):
    data = golden("fastvid-video-a")
    tokens, attention = data["tokens_pooled"], data["pooled_attention"]
    video = EncodedVideo(tokens, attention, tokens, data["global_features"], attention, data["newline"], "grid")
    reduced = build_baseline("fastvid", retention_ratio=percent / 100).reduce(video)
    assert [*reduced.places.tolist(), reduced.end] == data[f"positions_{percent}"].tolist()
    assert_tokens(reduced.tokens, data[f"tokens_{percent}"][:-1])


@pytest.mark.parametrize(
    ("name", "frames", "ratio"),
    [
        *((f"tokens_k{percent}", 16, percent / 100) for percent in (30, 50, 70, 90, 100)),
        ("tokens_odd9_k70", 9, 0.7),
        ("tokens_ten_k70", 10, 0.7),
    ],
)
def test_dycoke(name, frames, ratio):
    data = golden("dycoke-a")
    tokens, places = dycoke(data["tokens_pooled"][:frames], ratio)
    assert torch.equal(tokens, data[name])
    assert torch.equal(tokens, data["tokens_pooled"].flatten(0, 1)[places])


@pytest.fixture(scope="module")
def prune_files():
    return golden("prunevid-a")


@pytest.mark.parametrize(
    ("name", "threshold", "segment_ratio", "cluster_ratio"),
    [("default", 0.8, 0.25, 0.5), ("tight", 0.8, 0.25, 0.2), ("lowtau", 0.6, 0.5, 0.3)],
)
def test_prunevid(prune_files, name, threshold, segment_ratio, cluster_ratio):
    data = prune_files
    reduced = prunevid(token_sets(data["tokens_pooled"], threshold, segment_ratio), cluster_ratio)
    sizes = [(s.num_frames, s.num_static, s.num_frames * s.num_dynamic) for s in reduced.segments]
    assert sizes == list(zip(*(data[f"{name}_{key}_sizes"].tolist() for key in ("window", "static", "dynamic"))))
    assert_tokens(reduced.tokens, data[f"{name}_tokens"])


def test_prunevid_refines_segments(prune_files):
    refined = [refine_labels(labels) for labels in prune_files["refine_in"].tolist()]
    assert refined == prune_files["refine_out"].tolist()


@pytest.mark.parametrize("percent", [20, 40])
def test_prunevid_keeps_what_text_looks_at(prune_files, percent):
    data = prune_files
    segments = prunevid(token_sets(data["tokens_pooled"]), 0.5).segments
    scores = data["text_attention"].amax((0, 1))
    assert torch.equal(most_attended(scores, segments, percent / 100), data[f"kept_alpha{percent}"])


@pytest.mark.parametrize(("percent", "threshold"), [(10, 0.65), (15, 0.8), (20, 0.8), (25, 0.8)])
def test_holitom(percent, threshold):
    data = golden("holitom-a")
    windows, saved = best_windows(data["tokens_pooled"], threshold)
    assert windows == [tuple(window) for window in data[f"windows_{percent}"].tolist()]
    tokens = holitom(
        data["tokens_pooled"],
        data["pooled_attention"],
        windows,
        saved,
        retention_ratio=percent / 100,
        similarity_threshold=threshold,
    )
    assert_tokens(tokens, data[f"tokens_{percent}"])


@pytest.mark.parametrize("case", range(6))
def test_holitom_merges_static_tokens_around_few_centres(case):
    with safe_open(FOLDER / "holitom-few-a.safetensors", "pt") as file:
        ratio = json.loads(file.metadata()["ratios"])[case]
    data = golden("holitom-few-a")
    static, centres = data[f"static_{case}"], data[f"centres_{case}"]
    assert_tokens(merge_static(static, ratio, beta=0.6), data[f"tokens_{case}"])
    # With the whole weight on themselves the centres come out as they are.
    assert torch.equal(merge_static(static, ratio, beta=1.0), static[centres])
    # Two equal frames are such a set; they save half of the tokens, so twice the share is left of the others.
    attention = torch.ones(2, len(static))
    video = EncodedVideo(static.expand(2, -1, -1), attention, static[None], static, attention, static[0])
    reduced = build_baseline("holitom", retention_ratio=ratio / 2).reduce(video)
    assert_tokens(reduced.tokens, data[f"tokens_{case}"])
