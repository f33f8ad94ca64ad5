"""How much attention patches of objects receive, compared with the background: what AOT's anchors are chosen by."""

import numpy as np
import torch
from torch import nn

from mini_checkpoint.training.data.frame_pool import FramePool
from mini_checkpoint.training.model.mini_model import normalise
from modeling_aot_llava.attention_capture import capture_attention_received

# AOT's defaults: of the local and of the global anchors.
LAYERS = {"local": 5, "global": -2}
SMALL_RADIUS = 0.4
FRAMES_AT_ONCE = 16


@torch.inference_mode()
def attention_on_objects(vision_tower: nn.Module, held_out: FramePool) -> dict[str, float]:
    """Mean attention received by a patch of any object, and of a small one, as a multiple of a background patch's."""
    device = next(vision_tower.parameters()).device
    received = {name: [] for name in LAYERS}
    owner, radius = [], []
    for frames in np.array_split(np.arange(len(held_out)), max(1, len(held_out) // FRAMES_AT_ONCE)):
        batch = held_out.batch(frames)
        with capture_attention_received(vision_tower, tuple(LAYERS.values())) as captured:
            vision_tower(normalise(batch["frames"].to(device)))
        for name, layer in LAYERS.items():
            received[name].append(captured[layer].cpu())
        owner.append(batch["owner"])
        radius.append(batch["radius"])
    owner, radius = torch.cat(owner), torch.cat(radius)
    ratios = {}
    for name in LAYERS:
        attention = torch.cat(received[name])
        background = attention[owner == -1].mean()
        ratios[f"{name}_objects"] = round((attention[owner >= 0].mean() / background).item(), 2)
        ratios[f"{name}_small"] = round(
            (attention[(owner >= 0) & (radius < SMALL_RADIUS)].mean() / background).item(), 2
        )
    return ratios
