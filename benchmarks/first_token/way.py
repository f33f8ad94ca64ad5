"""The way from a file to the first token, as a user goes it: the processor, then `generate`; timed part by part."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor, LlavaOnevisionVideoProcessor

from aot_llava_cli.mini import MINI_CHECKPOINT
from benchmarks.measure import PeakMemory, measure_first_token
from modeling_aot_llava import AOTLlavaOnevisionProcessor
from modeling_aot_llava.video_reading import read_video

STOCK = "stock"
PROMPT = "<|im_start|>user <video>\nWhich way does it move?<|im_end|><|im_start|>assistant\n"


@dataclass(frozen=True)
class Contender:
    """Stock, or AOT at one ratio and so many frames encoded at a time."""

    name: str
    model: nn.Module
    processor: AOTLlavaOnevisionProcessor
    frames_at_once: int | None = None

    @contextmanager
    def active(self) -> Iterator[None]:
        """Sets how many frames the one AOT model that all contenders share encodes at a time."""
        if self.frames_at_once is not None:
            self.model.config.frames_at_once = self.frames_at_once
        yield


def make_processor(model: nn.Module, retention_ratio: float) -> AOTLlavaOnevisionProcessor:
    """The mini checkpoint's tokenizer, and pictures of the size that the model's vision tower takes."""
    side = model.config.vision_config.image_size
    tokenizer = LlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT).tokenizer
    size = {"height": side, "width": side}
    processor = AOTLlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size=size),
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        tokenizer=tokenizer,
        num_image_tokens=(side // model.config.vision_config.patch_size) ** 2,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        retention_ratio=retention_ratio,
    )
    for config in (model.config, model.generation_config):
        config.video_token_id, config.image_token_id = processor.video_token_id, processor.image_token_id
    return processor


def measure_way(contender: Contender, file: Path, num_frames: int) -> dict[str, float]:
    """Seconds and bytes of one answer's first token.

    Reading alone is measured by itself, before; what the processor takes beyond it is preparing: it resizes frames
    as they are decoded.
    """
    weight = contender.model.model.image_newline
    reading, _ = timed(lambda: read_video(str(file), num_frames=num_frames))
    with PeakMemory(torch.device("cpu")) as memory:
        whole, inputs = timed(
            lambda: contender.processor(text=PROMPT, videos=[str(file)], num_frames=num_frames, return_tensors="pt")
        )
    inputs = inputs.to(weight.device, weight.dtype)
    with contender.active():
        model = measure_first_token(contender.model, dict(inputs))
    return {
        "reading_seconds": min(reading["seconds"], whole["seconds"]),
        "preparing_seconds": max(0.0, whole["seconds"] - reading["seconds"]),
        "pixels_seconds": whole["seconds"],
        "pixels_cpu_seconds": whole["cpu_seconds"],
        "pixels_memory_bytes": memory.peak - memory.before,
        **model,
        "all_seconds": whole["seconds"] + model["first_token_seconds"],
        "prompt_tokens": inputs["input_ids"].shape[1],
    }


def timed(run: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Seconds by the clock and of all threads' work, and the result."""
    started, work = time.perf_counter(), time.process_time()
    result = run()
    return {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - work}, result
