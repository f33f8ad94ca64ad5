"""A checkpoint of the Qwen-VL family that answers conversations, with AOT. Experimental.

Frames are chosen as everywhere here; their size and their times are the checkpoint's processor's. No encoded video is
kept for the next question.
"""

from collections.abc import Mapping
from typing import Any

import torch

from aot_llava_cli.hosts import HOSTS, Host, host_of
from modeling_aot_llava.aot_fields import aot_fields_of

from .answering import Answer, Answerer, options_of_generate
from .arguments import HarnessArguments
from .kept_videos import KeptVideos
from .preparing import Batch

# Of the model's fields those that the processor has, too, and counts placeholders with.
SHARED_WITH_PROCESSOR = ("retention_ratio", "num_clips", "num_anchors")


def settings_of_host(method: str) -> tuple[str, ...]:
    """The names of AOT's settings on this host."""
    return tuple(aot_fields_of(_host_called(method).config))


class QwenVLAnswerer(Answerer):
    """Model and processor of one host of the family, which stands in the place of a method."""

    def __init__(
        self, method: str, harness: HarnessArguments, settings: Mapping[str, Any], device_map: str | torch.device
    ):
        """Loads them, once all settings are known to be allowed.

        Raises:
            ValueError: if a setting is not allowed, or it is a checkpoint of another kind of model.
            OSError: if there is no such checkpoint.
        """
        host = _host_called(method)
        for name, value in (("conv_template", "checkpoint"), ("add_time_instruction", False)):
            if getattr(harness, name) != value:
                raise ValueError(f"{name}={getattr(harness, name)} is LLaVA's: leave it out for a Qwen-VL checkpoint.")
        revision = str(harness.revision or "main")
        if host_of(harness.pretrained, revision) != host:
            raise ValueError(f"{harness.pretrained} is no {method} checkpoint: take the model of its name.")
        source = {"pretrained_model_name_or_path": harness.pretrained, "revision": revision}
        config = host.config.from_pretrained(**source, **settings)  # raises before weights are loaded
        shared = {name: getattr(config, name) for name in SHARED_WITH_PROCESSOR}
        self._take(host.processor.from_pretrained(**source, **shared), harness, KeptVideos(0))
        self.model = host.model.from_pretrained(
            **source,
            **settings,
            dtype=harness.dtype,
            device_map=device_map,
            attn_implementation=harness.attn_implementation,
        ).eval()

    def _answer_batch(self, batch: Batch, options: Mapping[str, Any]) -> list[Answer]:
        inputs = batch.inputs.to(self.model.device)  # times among them stay exact; the tower takes any pixels
        sequences = self.model.generate(**inputs, **options_of_generate(options))
        return [self._read(row) for row in sequences[:, inputs["input_ids"].shape[1] :]]


def _host_called(method: str) -> Host:
    (host,) = (host for host in HOSTS if host.model_types[1] == method)
    return host
