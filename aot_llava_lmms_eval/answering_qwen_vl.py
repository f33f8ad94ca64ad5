"""A checkpoint of the Qwen-VL family that answers conversations, with AOT. Experimental.

Frames are chosen as everywhere here; their size and their times are the checkpoint's processor's.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature

from aot_llava_cli.hosts import HOSTS, Host, host_of
from modeling_aot_llava.aot_fields import aot_fields_of
from modeling_aot_llava.qwen_vl_call_videos import KEPT_VIDEO_TOKENS
from modeling_aot_llava.qwen_vl_encoded_video import QwenVLEncodedVideo

from .answering import Answer, Answerer, options_of_generate
from .arguments import HarnessArguments
from .kept_videos import KeptVideo, KeptVideos
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
        kept = KeptVideos(round(harness.keep_encoded_gib * 2**30))
        processor = host.processor.from_pretrained(**source, **shared)
        self._take(processor, harness, kept)
        # Prompts about encoded videos are written here, and others may be written in another thread.
        self._writer = copy.deepcopy(processor)
        self.model = host.model.from_pretrained(
            **source,
            **settings,
            dtype=harness.dtype,
            device_map=device_map,
            attn_implementation=harness.attn_implementation,
        ).eval()

    def _answer_batch(self, batch: Batch, options: Mapping[str, Any]) -> list[Answer]:
        if any(key is not None for key in batch.keys):  # then each row has one video, and nothing beside it
            encoded = self._encode(batch)
            for key, video in zip(batch.keys, encoded):
                if key is not None:
                    self.kept.bring(key, KeptVideo(video.to("cpu"), len(video.tokens), ""))
            return self._answer_inputs(self._write(batch.texts, encoded), options)
        return self._answer_inputs(batch.inputs, options)

    def _answer_reused(self, text: str, video: KeptVideo, options: Mapping[str, Any]) -> Answer:
        (answer,) = self._answer_inputs(self._write([text], [video.made]), options)
        return answer

    def _write(self, texts: Sequence[str], videos: Sequence[QwenVLEncodedVideo]) -> BatchFeature:
        return self._writer(text=list(texts), videos=list(videos), padding=True, return_tensors="pt")

    def _encode(self, batch: Batch) -> list[QwenVLEncodedVideo]:
        """The video of each row."""
        inputs = batch.inputs.to(self.model.device)
        grids = inputs["video_grid_thw"]
        pixels = inputs["pixel_values_videos"].split(grids.prod(-1).tolist())
        by_row = {name: inputs[name] for name in ("input_ids", KEPT_VIDEO_TOKENS) if name in inputs}
        return [
            self.model.encode_video(
                pixel_values_videos=pixels[row],
                video_grid_thw=grids[row : row + 1],
                video_metadata=[metadata],
                **{name: values[row : row + 1] for name, values in by_row.items()},
            )
            for row, metadata in enumerate(batch.metadata)
        ]

    def _answer_inputs(self, inputs: BatchFeature, options: Mapping[str, Any]) -> list[Answer]:
        inputs = inputs.to(self.model.device)  # times among them stay exact; the tower takes any pixels
        sequences = self.model.generate(**inputs, **options_of_generate(options))
        return [self._read(row) for row in sequences[:, inputs["input_ids"].shape[1] :]]


def _host_called(method: str) -> Host:
    (host,) = (host for host in HOSTS if host.model_types[1] == method)
    return host
