"""Runs where a model is compiled as a whole: its vision tower, in a graph of its own.

How many tokens a video keeps depends on the prompt, and no graph can look at that. So of what `forward` does with a
video the tower alone is traced, by the compiler that traces the caller: functions on the way to it are left out one by
one (`torch.compiler.disable(recursive=False)`), those beside it with all that they call. So the features of all frames
are in memory at once, beside the pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from .attention_capture import run_compiled
from .compiled_tower import VisionPart
from .video_encoding import arguments_of_tower, parts_of, watched_layers


@torch.compiler.disable(recursive=False)
def run_tower(
    model, pixel_values_videos: Tensor, vision_feature_layer: int | list[int] | None
) -> Iterator[VisionPart] | None:
    """What the vision tower gives for each part of some videos; all parts share a graph.

    Args:
        model: an `AOTLlavaOnevisionModel`.
        pixel_values_videos: (videos, F, channels, height, width).
        vision_feature_layer: as in `get_video_features`.

    Returns:
        The parts in the order of `parts_of`; None where the tower was traced before its attention could be read.
    """
    parts = []
    for pixels, layers, arguments in _calls(model, pixel_values_videos, vision_feature_layer):
        outputs, received = run_compiled(model.vision_tower, pixels, layers, **arguments)
        if not received:
            return None
        parts.append((_features_alone(outputs, model.feature_layers(vision_feature_layer)), received))
    return iter(parts)


@torch.compiler.disable(recursive=False)
def encode_whole(
    model,
    pixel_values_videos: Tensor,
    vision_feature_layer: int | list[int] | None,
    vision_feature_select_strategy: str | None,
) -> BaseModelOutputWithPooling:
    """Videos that keep all tokens, also where nothing is compiled; arguments as in `get_video_features`."""
    _prepare_states(model)
    return model.get_whole_video_features(pixel_values_videos, vision_feature_layer, vision_feature_select_strategy)


@torch.compiler.disable
def _calls(
    model, pixel_values_videos: Tensor, vision_feature_layer: int | list[int] | None
) -> list[tuple[Tensor, tuple[int, int], dict[str, Any]]]:
    """Pixels, watched layers and further arguments of each call of the tower."""
    config = model.config
    arguments = arguments_of_tower(model.feature_layers(vision_feature_layer))
    return [
        (pixels.flatten(0, 1), watched_layers(config), dict(arguments))
        for pixels in parts_of(pixel_values_videos, config.frames_at_once)
    ]


@torch.compiler.disable
def _features_alone(outputs: ModelOutput, layers: Sequence[int]) -> ModelOutput:
    states = range(len(outputs.hidden_states))
    wanted = {states[layer] for layer in layers}
    return BaseModelOutputWithPooling(
        hidden_states=tuple(outputs.hidden_states[index] if index in wanted else None for index in states)
    )


@torch.compiler.disable
def _prepare_states(model) -> None:
    # transformers would do so at the first call, under a lock, which breaks a graph.
    maybe_install_capturing_hooks(getattr(model.vision_tower, "_orig_mod", model.vision_tower))
