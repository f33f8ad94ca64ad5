"""What AOT itself costs, stage by stage, and what it costs to watch the vision tower.

The package is not instrumented: its functions are replaced by timed ones while they are measured.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modeling_aot_llava import attention_capture, spatiotemporal_pruning
from modeling_aot_llava.paper_recipe import PaperRecipe

from .measure import seconds
from .parts import CAPTURE
from .stopwatch import timed_functions

ATTENTION_CAPTURE = "attention capture"
REST = "gather"
STAGES = {
    "anchors": ((spatiotemporal_pruning, "select_token_anchors"),),
    "intra-frame": ((spatiotemporal_pruning, "aggregate_within_frames"),),
    "pooling": (
        (spatiotemporal_pruning, "pooling_matrix"),
        (PaperRecipe, "choose_pooled_positions"),
        (spatiotemporal_pruning, "pool_kept_positions"),
    ),
    "inter-frame": ((spatiotemporal_pruning, "merge_along_time"),),
}
# Neighbouring frames of a video are alike, but not the same.
NOISE_BETWEEN_FRAMES = 0.1


@dataclass
class CompressionInputs:
    """What `compress_video_features` takes of one video."""

    features: Tensor
    local_attention: Tensor
    global_attention: Tensor

    def to(self, device: torch.device | str) -> "CompressionInputs":
        """The same on a device."""
        return CompressionInputs(*(values.to(device) for values in vars(self).values()))

    def with_frames(self, num_frames: int) -> "CompressionInputs":
        """As many frames as wanted: where there are too few they are repeated, with some noise."""
        if len(self.features) == num_frames:
            return self
        rows = torch.arange(num_frames, device=self.features.device) % len(self.features)
        return CompressionInputs(*(_with_noise(values[rows]) for values in vars(self).values()))


@torch.inference_mode()
def measure_vision_tower(model: nn.Module, pixels: Tensor) -> tuple[dict[str, float], CompressionInputs]:
    """Times the vision tower on the frames of one video, left alone and watched.

    Args:
        model: an `AOTLlavaOnevisionForConditionalGeneration`.
        pixels: (F, 3, side, side).

    Returns:
        Seconds, among them those spent in computing the attention received; and what AOT gets from these frames.
    """
    tower, config, device = model.model.vision_tower, model.config, pixels.device
    layers = (config.local_attention_layer, config.global_attention_layer)
    outputs, received = None, {}

    def watched() -> None:
        nonlocal outputs, received
        with attention_capture.capture_attention_received(tower, layers) as received:
            outputs = tower(pixels)

    alone_seconds = seconds(lambda: tower(pixels), device)
    with timed_functions([CAPTURE], device) as capture:
        watched_seconds = seconds(watched, device)
    features = model.model.multi_modal_projector(outputs.last_hidden_state)
    inputs = CompressionInputs(features, *(received[layer] for layer in layers))
    return {"alone": alone_seconds, "watched": watched_seconds, "capture": sum(capture.values())}, inputs


@torch.inference_mode()
def measure_stages(config, inputs: CompressionInputs, num_video_tokens: int, batch: int) -> dict[str, float]:
    """Seconds of each stage after the projector, and of all of them together (measured by itself)."""
    device = inputs.features.device

    def compress() -> None:
        for _ in range(batch):
            spatiotemporal_pruning.compress_video_features(
                inputs.features,
                inputs.local_attention,
                inputs.global_attention,
                config,
                inputs.features.mean(1),
                num_video_tokens,
            )

    compress()
    together = seconds(compress, device)
    functions = [function for functions in STAGES.values() for function in functions]
    with timed_functions(functions, device) as spent:
        in_parts = seconds(compress, device)
    stages = {stage: sum(spent[name] for _, name in functions) for stage, functions in STAGES.items()}
    return {**stages, REST: in_parts - sum(stages.values()), "after projector": together}


def _with_noise(values: Tensor) -> Tensor:
    return values + NOISE_BETWEEN_FRAMES * values.std() * torch.randn_like(values)
