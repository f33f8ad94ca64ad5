"""`torch.export` of a forward whose prompt has the count of the config's ratio."""

import pytest
import torch


class Logits(torch.nn.Module):
    """What is exported: tensors in, a tensor out."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask, pixel_values_videos):
        return self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            use_cache=False,
        ).logits


@pytest.mark.parametrize("fields", [{}, {"retention_ratio": 1.0}], ids=["compressed", "all tokens"])
def test_an_exported_forward_gives_the_same_logits(build_model, processor, make_video, fields):
    model = build_model(sinkhorn_iterations=4, **fields)

    def inputs(seed):
        made = processor(
            text=["<video>What?"],
            videos=[make_video(seed=seed)],
            retention_ratio=model.config.retention_ratio,
            return_tensors="pt",
        )
        made.pop("image_sizes_videos")
        return dict(made)

    with torch.no_grad():
        program = torch.export.export(Logits(model), (), inputs(0), strict=False).module()
        for seed in (0, 1):  # another video than the one that it was made with
            torch.testing.assert_close(program(**inputs(seed)), model(**inputs(seed)).logits, rtol=1e-5, atol=1e-5)
