"""The algorithm written a second time, slowly and plainly, and the inputs to compare both on."""

import math
from dataclasses import dataclass

import torch

from modeling_aot_llava import AOTLlavaOnevisionConfig

SMALL_PATCH = 8


def small_config(grid, **fields):
    """A config whose vision tower sees a `grid` x `grid` patch grid; windows of 3 unless told."""
    fields.setdefault("local_window_size", min(3, grid))
    vision_config = {
        "model_type": "siglip_vision_model",
        "image_size": grid * SMALL_PATCH,
        "patch_size": SMALL_PATCH,
        "num_hidden_layers": 7,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
    }
    return AOTLlavaOnevisionConfig(vision_config=vision_config, **fields)


@dataclass
class Video:
    """What the vision tower and the projector hand over."""

    features: torch.Tensor
    local_attention: torch.Tensor
    global_attention: torch.Tensor
    frame_features: torch.Tensor


def make_video(num_frames, grid, width=16, seed=0):
    """A video like a real one: a common direction, scenes a few frames long, changes in between."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    num_patches, num_scenes = grid * grid, math.ceil(num_frames / 3)
    scene_of_frame = torch.randint(num_scenes, (num_frames,), generator=generator).sort().values
    scenes = normal(num_scenes, num_patches, width)
    return Video(
        features=0.5 * normal(width)
        + scenes[scene_of_frame]
        + 0.5 * normal(num_frames, 1, width)
        + 0.3 * normal(num_frames, num_patches, width),
        local_attention=normal(num_frames, num_patches).softmax(-1),
        global_attention=normal(num_frames, num_patches).softmax(-1),
        frame_features=normal(num_scenes, width)[scene_of_frame] + 0.3 * normal(num_frames, width),
    )


def relative_error(actual, expected):
    """Norm of the difference over the norm of the truth."""
    expected = expected.double()
    return float((actual.double() - expected).norm() / expected.norm())
