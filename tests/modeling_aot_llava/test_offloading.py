"""Models whose weights accelerate keeps elsewhere, on the CPU or on disk, answer as the others do."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload

WAYS = {
    "cpu": lambda model, folder: cpu_offload(model, execution_device="cpu"),
    "disk": lambda model, folder: disk_offload(model, folder, execution_device="cpu"),
}


@pytest.fixture(params=WAYS)
def offloaded(request, build_model, tmp_path):
    model = build_model()
    WAYS[request.param](model, tmp_path)
    assert model.model.image_newline.is_meta
    return model


@pytest.mark.parametrize("ratio", [0.25, 1.0])
def test_forward_with_videos_and_images(model, offloaded, prompt, make_image, ratio):
    inputs = prompt("<video>What?", "<image> and <video>", seeds=(0, 1), images=[make_image()], retention_ratio=ratio)
    with torch.no_grad():
        assert torch.equal(offloaded(**inputs).logits, model(**inputs).logits)
    assert offloaded.model.image_newline.is_meta


def test_forward_with_all_tokens(model, offloaded, processor, make_video):
    inputs = processor(text=["<video>"], videos=[make_video()], return_tensors="pt", retention_ratio=1.0)
    with torch.no_grad():
        assert torch.equal(offloaded(**inputs).logits, model(**inputs).logits)


def test_generate_with_a_video(model, offloaded, prompt):
    for ratio in (0.25, 1.0):
        inputs = prompt("<video>What?", retention_ratio=ratio)
        assert torch.equal(offloaded.generate(**inputs, max_new_tokens=3), model.generate(**inputs, max_new_tokens=3))
