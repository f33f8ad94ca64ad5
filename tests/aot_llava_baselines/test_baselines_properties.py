"""What must hold of every method before the model for every video, and how the mini answers with each."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlavaOnevisionForConditionalGeneration

from aot_llava_baselines import build_baseline
from aot_llava_baselines.dycoke import dycoke
from aot_llava_baselines.interface import EncodedVideo
from aot_llava_baselines.prunevid import LARGEST_UNCLUSTERED, refine_labels, token_sets
from aot_llava_baselines.ranking import density_peak_scores, greatest
from aot_llava_cli import answer
from mini_checkpoint.accuracy.options import MINI_CHECKPOINT
from mini_checkpoint.accuracy.scoring import is_right
from mini_checkpoint.accuracy.settings import SETTINGS
from mini_checkpoint.accuracy.survey import Checkpoint, ask_about
from mini_checkpoint.questions import ask, make_scene


def encoded(num_frames, side, seed):
    """A video with scenes, so that frames resemble each other."""
    generator = torch.Generator().manual_seed(seed)
    scenes = torch.randn(3, side * side, 5, generator=generator)
    which = torch.randint(3, (num_frames,), generator=generator).sort().values
    tokens = scenes[which] + 0.3 * torch.randn(num_frames, side * side, 5, generator=generator)
    attention = torch.rand(num_frames, side * side, generator=generator)
    return EncodedVideo(tokens, attention, tokens[..., :3], tokens.mean(1), attention, tokens[0, 0])


VIDEOS = st.builds(encoded, st.integers(2, 20), st.integers(3, 8), st.integers(0, 1000))
RATIOS = st.floats(0.1, 1.0)


@settings(max_examples=25)
@given(VIDEOS, RATIOS)
def test_visionzip_keeps_its_count(video, ratio):
    method = build_baseline("visionzip", retention_ratio=ratio)
    assert len(method.reduce(video).tokens) == method.num_video_tokens(*video.tokens.shape[:2])


@settings(max_examples=25)
@given(VIDEOS, st.floats(0.2, 0.4))  # above, a frame may have fewer tokens than its segment wants as anchors
def test_fastvid_keeps_places_in_order_and_at_most_its_count(video, ratio):
    method = build_baseline("fastvid", retention_ratio=ratio)
    reduced = method.reduce(video)
    assert (reduced.places.diff() > 0).all()
    assert set(reduced.places.tolist()) <= set(range(reduced.end))
    assert reduced.end == video.tokens[..., 0].numel()
    most = method.num_video_tokens(*video.tokens.shape[:2])
    assert most - 7 * len(video.tokens) <= len(reduced.tokens) == len(reduced.places) <= most


@settings(max_examples=25)
@given(VIDEOS, st.floats(0, 1), st.booleans())
def test_dycoke_keeps_its_count(video, merging_ratio, last_group):
    num_frames, num_places = video.tokens.shape[:2]
    if not last_group and num_frames <= 4:
        return
    method = build_baseline("dycoke", merging_ratio=merging_ratio, last_group=last_group)
    tokens, places = dycoke(video.tokens, merging_ratio, last_group)
    assert len(tokens) == method.num_video_tokens(num_frames, num_places)
    assert len(set(places.tolist())) == len(places)


@settings(max_examples=25)
@given(VIDEOS, RATIOS)
def test_prunevid_keeps_its_budget_where_sets_are_large_enough(video, ratio):
    method = build_baseline("prunevid", retention_ratio=ratio)
    reduced = method.reduce(video)
    assert len(reduced.tokens) == sum(s.num_static + s.num_frames * s.num_dynamic for s in reduced.segments)
    budget = method.num_video_tokens(*video.tokens.shape[:2])
    sizes = [size for sets in token_sets(video.tokens) for size in (len(sets.static), *map(len, sets.dynamic)) if size]
    least = sum(size if size <= LARGEST_UNCLUSTERED else 1 for size in sizes)
    assert len(reduced.tokens) <= max(budget, least)


@settings(max_examples=25)
@given(VIDEOS, RATIOS)
def test_holitom_keeps_hardly_more_than_its_share(video, ratio):
    num_frames, num_places = video.tokens.shape[:2]
    count = len(build_baseline("holitom", retention_ratio=ratio).reduce(video).tokens)
    # Rounded in each window, and rounded up in each frame.
    assert 0 < count <= ratio * num_frames * num_places + 2 * num_frames


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30))
def test_refined_segments_are_two_frames_or_more(labels):
    refined = refine_labels(labels)
    assert len(refined) == len(labels)
    borders = [0, *(n + 1 for n, pair in enumerate(zip(refined, refined[1:])) if len(set(pair)) > 1), len(labels)]
    assert min(end - start for start, end in zip(borders, borders[1:])) >= 2


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers(0, 25))
def test_of_equal_scores_the_earlier_is_taken(scores, count):
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
    assert greatest(torch.tensor(scores), count).tolist() == order[:count]


def test_density_peaks_by_hand():
    points = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    distance = [[float((a - b).norm()) / 2 for b in points] for a in points]
    density = [float(torch.tensor(sorted(row)[:3]).square().mean().neg().exp()) for row in distance]
    largest = max(map(max, distance))
    expected = [
        density[i] * min([distance[i][j] for j in range(12) if density[j] > density[i]], default=largest)
        for i in range(12)
    ]
    torch.testing.assert_close(density_peak_scores(points, 3), torch.tensor(expected), rtol=1e-4, atol=1e-5)


def test_of_duplicates_one_is_a_peak():
    points = torch.zeros(6, 2)
    points[3:] = 5
    scores = density_peak_scores(points, 2)
    # One of each heap; all else lies at distance 0 to a denser one.
    assert (scores > 0).tolist() == [True, False, False, True, False, False]


@pytest.fixture(scope="module")
def mini():
    answer.silence_libraries()
    model, processor = answer.load(str(MINI_CHECKPOINT), retention_ratio=None)
    stock = LlavaOnevisionForConditionalGeneration.from_pretrained(MINI_CHECKPOINT)
    return Checkpoint(model.float().eval(), processor, stock.float().eval())


def test_the_mini_answers_with_every_method(mini):
    names = [
        *(
            f"{method}, 25 %"
            for method in ("VisionZip", "PruneVid", "FastVID, no pooling head", "HoliTom", "VidCom2", "DyCoke")
        ),
        *("FlashVID, before the model, 25 %", "STC-Cacher and -Pruner, 25 %"),
        *("FastV, scaled: K = 1, 20 % kept", "PDrop, scaled: layers 1, 2, 3, halves", "FrameFusion, 30 % on average"),
        *(
            f"{method} in the model too, scaled: {at}, 25 %"
            for method, at in (("PruneVid", "layer 2"), ("EarlyTom", "k = 4"))
        ),
    ]
    scene = make_scene(0, "held_out")
    questions = ask(scene)
    replies = ask_about(scene, [SETTINGS[name] for name in names], mini)
    right = {name: sum(map(is_right, questions, replies[name].answers)) for name in names}
    # Of 8 questions; by chance 2 are right. VisionZip answers them all.
    assert min(right.values()) >= 3, right
    assert right["VisionZip, 25 %"] >= 7
