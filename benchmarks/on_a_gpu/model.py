"""The model sections: stock and AOT to the first token; the tower compiled; tower and AOT's stages as CUDA graphs."""

import statistics
from collections.abc import Callable
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.comparison import Comparison, summarise
from benchmarks.launches import count_launches
from benchmarks.measure import seconds
from benchmarks.options import parse_options
from benchmarks.shapes import SHAPES, build_models, fill_in_defaults, random_videos
from benchmarks.stages import measure_vision_tower
from modeling_aot_llava.spatiotemporal_pruning import compress_video_features

RATIO = 0.1


class Models:
    """Stock and AOT, made when they are first needed, which share their weights."""

    def __init__(self, options, device: torch.device):
        self._options, self._device = options, device
        self._num_frames = 4 if options.shape == "tiny" else 32

    @property
    def num_parameters(self) -> int:
        """Of the model; 0 as long as there is none."""
        return sum(parameter.numel() for parameter in self._pair[1].parameters()) if "_pair" in vars(self) else 0

    def compare(self) -> dict[str, Any]:
        """Time to first token, prefill, AOT's stages, memory and launches, stock and AOT interleaved."""
        settings = {"shape": self._options.shape, "frames": self._num_frames, "batch": 1, "ratios": RATIO}
        settings["repeats"] = self._options.repeats
        arguments = [f"--{name}={value}" for name, value in settings.items()]
        options = parse_options([*arguments, "--no-plot"], "on_a_gpu")
        fill_in_defaults(options, self._device)
        options.dtype, options.stage_frames, options.output = self._options.dtype, (), Path()
        comparison = Comparison(*self._pair, options, lambda what: nullcontext())
        cases = [case for cases in comparison.run() for case in cases]
        launches = count_launches(self._num_frames, self._pair[1].config)
        speedups = cases[-1]["speedup_over_stock"]
        return {
            "cases": cases,
            "launches": {"kernels": launches.kernels.total(), "waits": launches.waits.total()},
            "says": f"first token {speedups['first_token_seconds']:.2f}, prefill {speedups['prefill_seconds']:.2f} "
            f"times as fast as stock at {RATIO:.0%} of {self._num_frames} frames",
        }

    @torch.inference_mode()
    def compile_tower(self) -> dict[str, Any]:
        """Encoding and compressing a video with the tower as it is and compiled, in turns; and that both agree."""
        model, videos = self._pair[1].model, self._videos
        eager_tower = model.vision_tower

        def encode() -> Tensor:
            return model.get_video_features(videos).pooler_output

        expected = encode()
        compiled_tower = torch.compile(eager_tower, fullgraph=True)
        try:
            model.vision_tower = compiled_tower
            first = seconds(encode, self._device)
            difference = _relative_difference(encode(), expected)
            timed = {"eager": [], "compiled": []}
            for _ in range(self._options.repeats):
                for name, tower in (("eager", eager_tower), ("compiled", compiled_tower)):
                    model.vision_tower = tower
                    timed[name].append({"seconds": seconds(encode, self._device)})
        finally:
            model.vision_tower = eager_tower
        return {"first_call_seconds": first, "largest_difference": difference, **_in_turns(timed, "eager", "compiled")}

    @torch.inference_mode()
    def replay_graphs(self) -> dict[str, Any]:
        """The vision tower, and AOT's stages after the projector, captured once and replayed."""
        if self._device.type != "cuda":
            return {"says": "not run: a CPU has no CUDA graphs"}
        aot = self._pair[1]
        _, inputs = measure_vision_tower(aot, self._videos[0])

        def compress() -> Tensor:
            given = inputs.features, inputs.local_attention, inputs.global_attention
            return compress_video_features(*given, aot.config, inputs.features.mean(1)).tokens

        tower, pixels = aot.model.vision_tower, self._videos[0]
        parts = {"AOT's stages": compress, "vision tower": lambda: tower(pixels).last_hidden_state}
        section: dict[str, Any] = {}
        for name, run in parts.items():
            graph, result = _capture(run)
            graph.replay()
            timed = {"launched": [], "replayed": []}
            for _ in range(self._options.repeats):
                timed["launched"].append({"seconds": seconds(run, self._device)})
                timed["replayed"].append({"seconds": seconds(graph.replay, self._device)})
            difference = _relative_difference(result, run())
            section[name] = {"largest_difference": difference, **_in_turns(timed, "launched", "replayed")}
        return {**section, "says": "; ".join(f"{name}: {part['says']}" for name, part in section.items())}

    @cached_property
    def _pair(self) -> tuple[nn.Module, nn.Module]:
        stock, aot = build_models(SHAPES[self._options.shape], getattr(torch, self._options.dtype), self._device)
        aot.config.retention_ratio = RATIO
        return stock, aot

    @cached_property
    def _videos(self) -> Tensor:
        aot = self._pair[1]
        return random_videos(aot.config, 1, self._num_frames, like=aot.model.image_newline)


def _capture(run: Callable[[], Tensor]) -> tuple[Any, Tensor]:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # warm up where nothing is captured
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()
    return graph, result


def _in_turns(timed: dict[str, list[dict[str, float]]], before: str, after: str) -> dict[str, Any]:
    medians = {name: statistics.median(sample["seconds"] for sample in samples) for name, samples in timed.items()}
    ratio = medians[before] / medians[after]
    return {
        **{f"{name}_seconds": summarise(samples, "seconds") for name, samples in timed.items()},
        "speedup": ratio,
        "says": f"{after} {ratio:.2f} times as fast as {before}",
    }


def _relative_difference(values: Tensor, expected: Tensor) -> float:
    return float((values.float() - expected.float()).norm() / expected.float().norm())
