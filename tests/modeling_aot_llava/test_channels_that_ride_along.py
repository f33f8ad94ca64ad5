"""Channels that ride along: folded with the same weights, and without a say in which tokens are alike."""

import pytest
import torch

from modeling_aot_llava import AOTLlavaOnevisionConfig
from modeling_aot_llava.spatiotemporal_pruning import compress_along_time, compress_frames
from modeling_aot_llava.token_budget import FrameGrid, plan_token_budget


def compressed(features, attention, config, grid, num_compared):
    budget = plan_token_budget(config, len(features), grid=grid)
    frames = compress_frames(features, attention, attention.flip(-1), budget, config, num_compared=num_compared)
    return compress_along_time(frames, budget, config, features.mean(1))


@pytest.mark.parametrize("aggregation", ["transport", "cosine"])
@pytest.mark.parametrize("pooling", ["none", "bilinear"])
def test_a_linear_image_of_the_tokens_comes_out_as_the_image_of_what_comes_out(aggregation, pooling):
    random = torch.Generator().manual_seed(3)
    grid = FrameGrid((6, 10), pooling)
    features = torch.randn(5, 60, 12, generator=random)
    attention = torch.rand(5, 60, generator=random)
    images = features @ torch.randn(12, 7, generator=random)
    config = AOTLlavaOnevisionConfig(
        retention_ratio=0.3, num_clips=2, local_window_size=3, inter_frame_aggregation=aggregation
    )
    alone = compressed(features, attention, config, grid, None).tokens
    both = compressed(torch.cat([features, images], -1), attention, config, grid, 12).tokens
    torch.testing.assert_close(both[:, :12], alone)
    matrix = torch.linalg.lstsq(features.flatten(0, 1), images.flatten(0, 1)).solution
    torch.testing.assert_close(both[:, 12:], alone @ matrix, rtol=1e-4, atol=1e-4)


def test_all_channels_are_compared_by_default():
    random = torch.Generator().manual_seed(4)
    features, attention = torch.randn(4, 60, 8, generator=random), torch.rand(4, 60, generator=random)
    grid, config = FrameGrid((6, 10), "none"), AOTLlavaOnevisionConfig(retention_ratio=0.3, num_clips=1)
    by_default = compressed(features, attention, config, grid, None).tokens
    assert torch.equal(by_default, compressed(features, attention, config, grid, 8).tokens)
    assert not torch.equal(by_default, compressed(features, attention, config, grid, 4).tokens)
