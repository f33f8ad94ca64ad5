"""STC-Cacher and EarlyTom, which run the vision tower in their own ways: the authors' towers, and the stock one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from aot_llava_baselines import build_baseline
from aot_llava_baselines.earlytom import find_runs, greatest_of_windows, merging_plan
from aot_llava_baselines.stc_cacher import Schedule, cached_layer
from aot_llava_baselines.vision_layers import VisionLayers

FOLDER = Path(__file__).parents[1] / "golden" / "baselines"
STC = {"2_25": (2, 0.25, 1), "4_25": (4, 0.25, 1), "3_50": (3, 0.5, 1), "2_25_chunk2": (2, 0.25, 2)}
EARLYTOM = {"t60": (0.6, 6, (1, 3, 4)), "t80": (0.8, 6, (1, 3, 4)), "t30m8": (0.3, 8, (0, 2, 5))}
MERGING = {"similarity_threshold": 0.6, "merging_layers": (1, 3)}


class Tower:
    """A file's tensors, and its tower; a patch is a pixel wide and high."""

    def __init__(self, name):
        self.data = load_file(FOLDER / f"{name}.safetensors")
        weights = {k.removeprefix("weights."): v for k, v in self.data.items() if k.startswith("weights.")}
        self.embeddings = self.data["embeddings"]
        self.model = SiglipVisionModel(
            SiglipVisionConfig(
                hidden_size=32,
                intermediate_size=48,
                num_attention_heads=4,
                num_hidden_layers=len(weights) // 16,
                image_size=int(self.embeddings.shape[1] ** 0.5),
                patch_size=1,
                vision_use_head=False,
            )
        ).eval()
        self.model.encoder.load_state_dict(weights)
        self.layers = VisionLayers(self.model, -1)

    @torch.inference_mode()
    def run(self, name, hidden=None, **settings):
        hidden = self.embeddings if hidden is None else hidden
        return build_baseline(name, **settings).run_layers(self.layers, hidden)

    @torch.inference_mode()
    def stock(self, hidden):
        return self.model.encoder(inputs_embeds=hidden).last_hidden_state


@pytest.fixture(scope="module")
def stc():
    return Tower("stc-cacher-a")


@pytest.fixture(scope="module")
def early():
    return Tower("earlytom-tower-a")


def assert_states(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", STC)
def test_stc_cacher(name, stc):
    interval, share, chunk = STC[name]
    settings = {"cache_interval": interval, "update_token_ratio": share, "encode_chunk_size": chunk}
    assert_states(stc.run("stc_cacher", **settings).patches, stc.data[f"hidden_{name}"])
    schedule = Schedule.of(len(stc.embeddings), chunk, interval, torch.device("cpu"))
    hidden, updated = stc.embeddings, []
    for layer in stc.layers.layers:
        hidden, rows = cached_layer(layer, hidden, schedule, share)
        updated.append(rows)
    assert torch.equal(torch.stack(updated, 1), stc.data[f"updated_{name}"])


@pytest.mark.parametrize("settings", [{"update_token_ratio": 1.0}, {"cache_interval": 1}], ids=str)
def test_stc_cacher_that_updates_everything_is_the_stock_tower(settings, stc):
    output = stc.run("stc_cacher", **settings)
    assert_states(output.patches, stc.data["stock"])
    with torch.inference_mode():
        last = stc.model.encoder(inputs_embeds=stc.embeddings, output_attentions=True)
    assert_states(stc.stock(stc.embeddings), last.last_hidden_state)
    torch.testing.assert_close(output.attention.sum(1), torch.ones(len(stc.embeddings)))


def test_stc_cacher_on_equal_frames_is_the_stock_tower(stc):
    frames = stc.embeddings[:1].expand(5, -1, -1)
    assert_states(stc.run("stc_cacher", frames).patches, stc.stock(frames))


@pytest.mark.parametrize("num_frames", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_stc_cacher_on_few_frames(num_frames, chunk, stc):
    frames = stc.embeddings[:num_frames]
    output = stc.run("stc_cacher", frames, encode_chunk_size=chunk)
    assert output.patches.shape == frames.shape
    assert_states(output.patches[:1], stc.stock(frames[:1]))  # the first is always a reference


@torch.inference_mode()
def test_attention_and_keys_are_those_of_the_last_layer(stc, early):
    """Of the stock tower, where each method changes nothing."""
    for tower, name, settings in (
        (stc, "stc_cacher", {"update_token_ratio": 1.0}),
        (early, "earlytom", {"similarity_threshold": 2.0, "merging_layers": (1, len(early.layers.layers) - 1)}),
    ):
        frames = torch.randn(3, 3, *[int(tower.embeddings.shape[1] ** 0.5)] * 2)
        expected = tower.layers.run(frames)
        actual = build_baseline(name, **settings).run_tower(tower.layers, frames)
        for field in ("patches", "attention", "keys"):
            torch.testing.assert_close(getattr(actual, field), getattr(expected, field), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", EARLYTOM)
def test_earlytom(name, early):
    threshold, longest, layers = EARLYTOM[name]
    settings = {"similarity_threshold": threshold, "longest_run": longest, "merging_layers": layers}
    output = early.run("earlytom", **settings)
    assert [list(run) for run in output.runs] == early.data[f"segments_{name}"].tolist()
    counts = [output.frames_per_layer[0], *(output.frames_per_layer[layer + 1] for layer in layers[:-1])]
    assert [*counts, len(output.patches)] == early.data[f"frames_{name}"].tolist()
    assert_states(output.patches, early.data[f"hidden_{name}"])
    assert_states(output.attention, early.data[f"attention_{name}"])


def test_earlytom_without_likeness_is_the_stock_tower(early):
    output = early.run("earlytom", similarity_threshold=2.0, merging_layers=(1, 3))
    assert_states(output.patches, early.stock(early.embeddings))
    assert output.runs == tuple((frame, frame) for frame in range(16))


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_earlytom_on_few_frames(num_frames, early):
    frames = early.embeddings[:num_frames]
    output = early.run("earlytom", frames, **MERGING)
    # Of up to three frames none has a neighbour to be merged with.
    assert_states(output.patches, early.stock(frames))
    assert output.frames_per_layer == (num_frames,) * len(early.layers.layers)


def test_runs_by_hand():
    similarity = torch.full((8, 8), 0.9)
    similarity[:3, 3:] = similarity[3:, :3] = 0.1
    assert find_runs(similarity.tolist(), 0.5, 6) == [(0, 2), (3, 7)]
    assert find_runs(similarity.tolist(), 0.5, 4) == [(0, 2), (3, 5), (6, 7)]
    # 0.9 * 0.4 + 0.1 * 1 is 0.46; the next is 0.9 * 0.4 + 0.046.
    assert find_runs([[1, 0.4, 0.4], [0, 1, 0.4], [0, 0, 1]], 0.45, 6) == [(0, 1), (2, 2)]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        # Neighbours' similarities of the frames 1, 2, ... between the ends; the ends' own is 0.5.
        ([], [0, 1, 2]),
        ([0.6], [0, (1, 2, 1.0), 3]),
        ([0.4], [0, 1, 3]),
        ([0.8, 0.6], [0, (1, 2, 0.8 / 1.4), 4]),
        ([0.6, 0.8], [0, 1, (2, 3, 1.0), 4]),
        ([0.5, 0.5], [0, 1, 2, 4]),
    ],
)
def test_merging_by_hand(pairs, expected):
    last = len(pairs) + 2
    similarity = [[0.0] * (last + 1) for _ in range(last + 1)]
    similarity[0][last] = 0.5
    for frame, value in enumerate(pairs, 1):
        similarity[frame][frame + 1] = value
    mixes = [mix if isinstance(mix, tuple) else (mix, mix, 1.0) for mix in expected]
    assert merging_plan(similarity, [(0, last)]) == mixes


@pytest.mark.parametrize(("num_places", "num_windows"), [(196, 20), (7, 3), (5, 5), (1, 1), (9, 4)])
def test_windows(num_places, num_windows):
    scores = torch.rand(3, num_places)
    expected = [
        [
            int(window[0] + scores[frame, window].argmax())
            for window in torch.arange(num_places).tensor_split(num_windows)
        ]
        for frame in range(3)
    ]
    assert greatest_of_windows(scores, num_windows).tolist() == expected
