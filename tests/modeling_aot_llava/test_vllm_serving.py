"""What the model does with vLLM's calls, and what it refuses where vLLM builds it; vLLM itself: `tests/serving`."""

import re
import sys
from pathlib import Path

import pytest
import torch
from transformers import BatchFeature

from aot_llava_cli.mini import MINI_CHECKPOINT
from modeling_aot_llava import AOTLlavaOnevisionModel, AOTLlavaOnevisionProcessor

FULL = 4 * 16


@pytest.fixture
def pixels(prompt):
    return prompt("<video>What?", "<video>What?", seeds=(0, 1)).pixel_values_videos


def features(model, pixels, kept=None):
    with torch.no_grad():
        return model.model.get_video_features(pixels, kept_video_tokens=kept, return_dict=True).pooler_output


def test_counts_may_come_as_a_tensor(model, pixels):
    for counts in ([16, 16], [9, 30]):
        expected, actual = features(model, pixels, counts), features(model, pixels, torch.tensor(counts))
        assert [len(video) for video in actual] == [count + 1 for count in counts]
        for one, other in zip(expected, actual):
            assert torch.equal(one, other)


@pytest.mark.parametrize("counts", [[16], [16, 16, 16], [], torch.tensor([16])], ids=repr)
@pytest.mark.parametrize("method", ["get_video_features", "compress_videos"])
def test_not_one_count_a_video_is_refused(model, pixels, vision_tower_calls, method, counts):
    with pytest.raises(ValueError, match=rf"`kept_video_tokens` has {len(counts)} counts, but there are 2 videos"):
        getattr(model.model, method)(pixels, kept_video_tokens=counts)
    assert not vision_tower_calls


@pytest.mark.parametrize("count", [0, -1, FULL + 1, 2.5, "16"], ids=repr)
def test_a_count_that_no_video_can_give_is_refused(model, pixels, vision_tower_calls, count):
    with pytest.raises(ValueError, match=r"`(?:kept|num)_video_tokens`.*" + re.escape(str(count))):
        model.model.get_video_features(pixels, kept_video_tokens=[16, count])
    assert not vision_tower_calls


def test_all_tokens_of_all_videos_are_the_stock_models(model, stock, pixels):
    with torch.no_grad():
        expected = stock.model.get_video_features(pixels, return_dict=True).pooler_output
    assert torch.equal(features(model, pixels, torch.tensor([FULL, FULL])), expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"recipe": "released"}, "`recipe` is 'released'"),
        ({"temporal_threshold": 0.3}, "`temporal_threshold` is 0.3"),
    ],
)
def test_a_count_that_depends_on_the_video_is_refused_where_vllm_builds_the_model(model, configure, fields, message):
    configure(**fields)
    AOTLlavaOnevisionModel(model.config)
    config = type(model.config).from_dict(model.config.to_dict())
    config.text_config._attn_implementation = "vllm"
    with pytest.raises(ValueError, match=message):
        AOTLlavaOnevisionModel(config)


def test_a_server_with_a_gpu_warms_the_kernels_up_when_it_builds_the_model(model, monkeypatch):
    warmed = []
    monkeypatch.setattr("modeling_aot_llava.modeling_aot_llava.is_served_by_vllm", lambda config: True)
    monkeypatch.setattr("modeling_aot_llava.modeling_aot_llava.warm_up_kernels", lambda *args: warmed.append(args))
    AOTLlavaOnevisionModel(model.config)
    assert not warmed
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    AOTLlavaOnevisionModel(model.config)
    gpu = torch.device("cuda", 1)
    assert warmed == [(model.config, torch.float32, gpu, gpu)]


def test_the_largest_image_is_what_the_page_says():
    """vLLM counts a square of 8,192 pixels; an odd shape that is cut to its tiles keeps more newlines and patches."""
    processor = AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT)
    processor.image_processor.size = {"height": 384, "width": 384}
    processor.image_processor.image_grid_pinpoints = [[384 * a, 384 * b] for a in range(1, 7) for b in range(1, 7)]
    square, odd = processor._get_num_multimodal_tokens(image_sizes=[[8192, 8192], [1226, 1013]]).num_image_tokens
    page = (Path(__file__).parents[2] / "docs/serving.md").read_text("utf-8")
    assert f"more: {square:,} with" in page
    assert f"may take {odd:,}" in page


def test_vllm_finds_the_reason_of_a_refusal_where_it_looks_for_the_inputs(monkeypatch):
    """What a processor raises, vLLM wraps in all that the request holds; so it is raised a step later."""
    processor = AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT)
    video = torch.zeros(2, 3, 216, 216, dtype=torch.uint8)

    def call(**keywords):
        return processor(text="<video>", videos=[video], return_text_replacement_offsets=True, **keywords)

    with pytest.raises(ValueError, match="retention_ratio"):
        call(retention_ratio=-1)
    call(sharpness=3)  # transformers says so
    monkeypatch.setitem(sys.modules, "vllm", sys)
    assert call().data
    for keywords, said in (({"retention_ratio": -1}, "retention_ratio"), ({"sharpness": 3}, "'sharpness': leave it")):
        refusal = call(**keywords)
        assert isinstance(refusal, BatchFeature)
        with pytest.raises((TypeError, ValueError), match=said):
            _ = refusal.data
