"""A long video is encoded and compressed in parts: the same tokens, in the memory of one part."""

import gc
import weakref

import pytest
import torch
from reference import make_video, relative_error, small_config

from modeling_aot_llava.spatiotemporal_pruning import compress_video_features

CONFIGS = {
    "paper": {},
    "no transport": {"intra_frame_aggregation": "none", "inter_frame_aggregation": "none"},
    "cosine": {"intra_frame_aggregation": "cosine", "inter_frame_aggregation": "cosine"},
    "random anchors": {"anchor_selection": "random", "anchor_seed": 3},
    "dynamic clips": {"clip_segmentation": "dynamic"},
    "threshold": {"temporal_threshold": 0.2},
    "released": {"recipe": "released", "num_anchors": 25, "keep_ratio": 0.37},
    "released, random": {"recipe": "released", "num_anchors": 20, "keep_ratio": 0.5, "anchor_selection": "random"},
    "released, dynamic clips": {"recipe": "released", "num_anchors": 25, "clip_segmentation": "dynamic"},
}
FRAMES = 11


def compress(fields, dtype=torch.float32, requires_grad=False):
    video = make_video(FRAMES, 7, seed=5)
    features = video.features.to(dtype).requires_grad_(requires_grad)
    config = small_config(7, num_clips=3, **fields)
    scores = video.local_attention, video.global_attention
    return compress_video_features(features, *scores, config, video.frame_features), features


def assert_same(parts, whole):
    assert torch.equal(parts.anchors.local, whole.anchors.local)
    assert torch.equal(parts.anchors.global_, whole.anchors.global_)
    assert parts.anchors.count == whole.anchors.count
    assert torch.equal(parts.pooled_kept, whole.pooled_kept)
    assert torch.equal(parts.temporal_kept, whole.temporal_kept)
    assert parts.clip_lengths == whole.clip_lengths
    assert parts.tokens.dtype == whole.tokens.dtype
    assert relative_error(parts.tokens, whole.tokens) < 1e-6


@pytest.fixture(scope="module")
def whole():
    """What all frames at once give."""
    assert small_config(7).frames_at_once == 32 > FRAMES
    dtypes = torch.float32, torch.bfloat16
    return {(name, dtype): compress(fields, dtype)[0] for name, fields in CONFIGS.items() for dtype in dtypes}


@pytest.mark.parametrize("frames_at_once", [1, 2, 4, FRAMES - 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_parts_give_the_same_tokens(whole, frames_at_once, name, dtype):
    assert_same(compress({**CONFIGS[name], "frames_at_once": frames_at_once}, dtype)[0], whole[name, dtype])


@pytest.mark.parametrize("name", ["paper", "released"])
def test_parts_give_the_same_gradient(name):
    def gradient(**fields):
        video, features = compress({**CONFIGS[name], **fields}, requires_grad=True)
        torch.manual_seed(0)
        (video.tokens * torch.randn(video.tokens.shape)).sum().backward()
        return features.grad

    expected = gradient()
    assert expected.abs().sum() > 0
    assert relative_error(gradient(frames_at_once=3), expected) < 1e-5


@pytest.fixture
def pixels():
    return torch.randn(2, FRAMES, 3, 56, 56)


@pytest.mark.parametrize("options", [{}, {"output_hidden_states": True}, {"vision_feature_layer": [1, -1]}])
def test_the_model_gives_the_same_features(build_model, pixels, options):
    layers = options.get("vision_feature_layer", -1)
    model = build_model(num_clips=3, vision_feature_layer=layers).model.eval()
    with torch.no_grad():
        whole = model.get_video_features(pixels, return_dict=True, **options)
        model.config.frames_at_once = 4
        parts = model.get_video_features(pixels, return_dict=True, **options)
    assert type(parts) is type(whole)
    assert set(parts) == set(whole)
    torch.testing.assert_close(parts.pooler_output, whole.pooler_output)
    torch.testing.assert_close(parts.last_hidden_state, whole.last_hidden_state)
    assert len(parts.hidden_states) == len(whole.hidden_states)
    for part, expected in zip(parts.hidden_states, whole.hidden_states):
        assert (part is None) == (expected is None)
        assert part is None or torch.allclose(part, expected, atol=1e-5)


def test_memory_does_not_grow_with_the_video(model, pixels, configure):
    """Of each part's frames and patch features nothing is left when the next one is encoded."""
    configure(frames_at_once=4)
    parts, alive, left_over = [], [], []

    def enter(module, inputs):
        gc.collect()
        left_over.append(sum(reference() is not None for reference in alive))
        parts.append(len(inputs[0]))

    def leave(module, inputs, output):
        # A tower's output dies with its tensors; the projector's output is one.
        alive.extend(map(weakref.ref, (inputs[0], output) if isinstance(output, torch.Tensor) else ()))

    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    handles = [tower.register_forward_pre_hook(enter), projector.register_forward_hook(leave)]
    try:
        with torch.no_grad():
            videos = model.model.compress_videos(pixels)
    finally:
        for handle in handles:
            handle.remove()
    assert parts == [4, 4, 3] * len(pixels)
    assert len(alive) == 2 * len(parts)
    assert left_over == [0] * len(parts)
    assert [len(video.tokens) for video in videos] == [44, 44]


@pytest.mark.parametrize(
    ("num_videos", "num_frames", "parts"),
    [(5, 3, [9, 6]), (3, 5, [10, 5]), (2, 6, [6, 6]), (2, 10, [10, 10]), (2, 11, [10, 1, 10, 1]), (12, 1, [10, 2])],
)
def test_short_videos_are_encoded_together(model, configure, num_videos, num_frames, parts):
    pixels = torch.randn(num_videos, num_frames, 3, 56, 56)
    calls = []
    handle = model.model.vision_tower.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0])))
    configure(frames_at_once=10)
    counts = [4 + video for video in range(num_videos)]
    with torch.no_grad():
        together = model.model.compress_videos(pixels, num_video_tokens=counts)
        handle.remove()
        alone = [model.model.compress_videos(pixels[[i]], num_video_tokens=[counts[i]])[0] for i in range(num_videos)]
    assert calls == parts
    for video, expected in zip(together, alone):
        assert_same(video, expected)


def test_a_long_video_is_answered_as_it_would_be_at_once(model, prompt, configure):
    inputs = prompt("<video>What?", num_frames=FRAMES)
    at_once = model.generate(**inputs, max_new_tokens=8)
    configure(frames_at_once=3)
    assert torch.equal(model.generate(**inputs, max_new_tokens=8), at_once)
