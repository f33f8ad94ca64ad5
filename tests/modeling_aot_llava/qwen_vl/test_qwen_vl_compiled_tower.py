"""A vision tower of the family that is compiled: its attention is read all the same.

The stock towers break the graph themselves, where they read how long their pieces are.
"""

import copy

import pytest
import torch
from qwen_vl_hosts import inputs_of, video_of
from reference import relative_error

from modeling_aot_llava.qwen_vl_encoding import encode_video

# A tower with windows and one with DeepStack; the other hosts have the same modules.
pytestmark = pytest.mark.parametrize("pair", ["qwen2_5_vl", "qwen3_vl"], indirect=True)


def compile_tower(model, any_graphs):
    model.visual.compile(backend=any_graphs)


def wrap_tower(model, any_graphs):
    model.visual = torch.compile(model.visual, backend=any_graphs)


def compile_blocks(model, any_graphs):
    for block in model.visual.blocks:
        block.compile(backend=any_graphs)


def encoded(model, inputs):
    with torch.no_grad():
        grid = tuple(inputs["video_grid_thw"][0].tolist())
        return encode_video(model, inputs["pixel_values_videos"], grid, None)


@pytest.mark.parametrize("compile_it", [compile_tower, wrap_tower, compile_blocks])
def test_a_compiled_tower_gives_the_same_tokens(pair, any_graphs, compile_it):
    inputs = inputs_of(pair.processor, [video_of(8, 4, 6)])
    model = copy.deepcopy(pair.ours.model)
    expected = encoded(model, inputs)
    compile_it(model, any_graphs)
    counts = []
    for _ in range(2):
        video = encoded(model, inputs)
        assert torch.equal(video.is_kept, expected.is_kept)
        for tokens, other in zip([video.tokens, *video.deepstack], [expected.tokens, *expected.deepstack]):
            assert relative_error(tokens, other.double()) < 1e-5
        counts.append(len(any_graphs))
    assert 1 <= counts[0] == counts[1]


def test_a_tower_that_ran_compiled_before_is_run_without(pair, any_graphs):
    inputs = inputs_of(pair.processor, [video_of(8, 4, 6)])
    model = copy.deepcopy(pair.ours.model)
    expected = encoded(model, inputs)
    model.visual.compile(backend=any_graphs)
    with torch.no_grad():
        model.run_vision_tower(inputs["pixel_values_videos"], tuple(inputs["video_grid_thw"][0].tolist()))
    assert torch.equal(encoded(model, inputs).tokens, expected.tokens)


def test_a_tower_that_shows_nothing_is_an_error_of_one_sentence(pair):
    inputs = inputs_of(pair.processor, [video_of(8, 4, 6)])
    model = copy.deepcopy(pair.ours.model)
    with torch.no_grad():
        outputs = model.run_vision_tower(inputs["pixel_values_videos"], tuple(inputs["video_grid_thw"][0].tolist()))
    model.visual.forward = lambda *_, **__: outputs
    with pytest.raises(RuntimeError, match="lets nobody read its attention"):
        encoded(model, inputs)
