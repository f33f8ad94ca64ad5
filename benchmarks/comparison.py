"""Stock model and AOT on the same videos, run in turns, so that a busy machine slows both alike."""

import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from modeling_aot_llava import fused_kernels
from modeling_aot_llava.cost_model import count_flops
from modeling_aot_llava.token_budget import plan_token_budget

from .measure import measure_first_token, measure_language_model
from .preparation import measure_preparation
from .shapes import TEXT_TOKENS, count_all_video_tokens, make_prompt, random_videos
from .stages import ATTENTION_CAPTURE, CompressionInputs, measure_stages, measure_vision_tower

# A speed-up is AOT's value over stock's to this power: of seconds, less is better.
SPEEDUPS = {"first_token_seconds": -1, "prefill_seconds": -1, "decode_tokens_per_second": 1}
MEMORIES = ("peak_memory_bytes", "memory_growth_bytes")
TOGETHER = "together"


@dataclass
class Contender:
    """The stock model, or AOT at one retention ratio, and what was measured of it."""

    model: nn.Module
    retention_ratio: float | None
    num_video_tokens: int
    num_newlines: int
    has_kernels: bool = True
    frames_at_once: int | None = None
    samples: list[dict[str, float]] = field(default_factory=list)
    stage_samples: list[dict[str, float]] = field(default_factory=list)
    out_of_memory: bool = False

    @property
    def num_tokens(self) -> int:
        """Length of the prompt: the video, its newline tokens, the text."""
        return self.num_video_tokens + self.num_newlines + TEXT_TOKENS

    @property
    def is_compressed(self) -> bool:
        """Whether AOT has something to do."""
        return self.retention_ratio is not None and self.retention_ratio < 1

    @property
    def variation(self) -> str | None:
        """How it runs, where that is not as by default."""
        if self.frames_at_once is not None:
            return f"{self.frames_at_once} frames at once"
        return None if self.has_kernels else "eager"

    @contextmanager
    def active(self) -> Iterator[None]:
        """Sets what the one AOT model that all ratios share is to do, and whether it may use its kernels."""
        if self.retention_ratio is not None:
            config = self.model.config
            config.retention_ratio = self.retention_ratio
            config.frames_at_once = self.frames_at_once or type(config).frames_at_once
        if self.has_kernels:
            yield
        else:
            with patch.object(fused_kernels, "can_run_kernels", return_value=False):
                yield


class Comparison:
    """All measurements of one run of the program."""

    def __init__(self, stock: nn.Module, aot: nn.Module, options, step: Callable[[str], AbstractContextManager]):
        self._stock, self._aot, self._options, self._step = stock, aot, options, step
        self._weight = aot.model.image_newline
        self._warm_up_rounds = 1 if self._weight.is_cuda else 0
        self._preparations: dict[int, dict[str, Any]] = {}
        self._towers: dict[tuple[int, bool], tuple[list[dict[str, float]], CompressionInputs]] = {}

    @property
    def num_steps(self) -> int:
        """How often `step` will be entered."""
        rounds = self._warm_up_rounds + self._options.repeats
        steps = sum(rounds * len(self._contenders(num_frames)) + 1 for num_frames in self._options.frames)
        return len(self._options.batch) * steps + len(self._stage_frames)

    def run(self) -> Iterator[list[dict[str, Any]]]:
        """Measures everything; gives what there is of each batch size and number of frames as soon as it is there.

        One dict a contender; for the further `stage_frames` only those that compress, and their stages.
        """
        self._warm_up()
        for batch in self._options.batch:
            for num_frames in self._options.frames:
                yield self._compare(batch, num_frames)
        for num_frames in self._stage_frames:
            yield self._measure_stages_alone(num_frames)

    @property
    def _stage_frames(self) -> list[int]:
        return [num_frames for num_frames in self._options.stage_frames if num_frames not in self._options.frames]

    def _warm_up(self) -> None:
        contenders = self._contenders(num_frames=1)
        for contender in contenders:
            if contender.is_compressed and contender.variation is None:
                with contender.active():
                    self._aot.model.warm_up_kernels([*self._options.frames, *self._options.stage_frames])
        for contender in contenders:
            with contender.active():
                measure_first_token(contender.model, self._prompt(contender, self._videos(1, 1)))
            if contender.is_compressed:
                return

    def _compare(self, batch: int, num_frames: int) -> list[dict[str, Any]]:
        contenders = self._contenders(num_frames)
        videos = self._videos(batch, num_frames)
        for round_ in range(-self._warm_up_rounds, self._options.repeats):
            for contender in contenders:
                with self._step(f"{_name(contender)}, {num_frames} frames, batch {batch}"):
                    self._measure(contender, videos, keep=round_ >= 0)
        if self._options.profile:
            self._profile(contenders[-1], videos)
        del videos
        with self._step(f"stages, {num_frames} frames, batch {batch}"):
            tower = self._measure_stages([each for each in contenders if each.samples], batch, num_frames)
        preparation = self._measure_preparation(num_frames)
        return [
            {**self._describe(contender, contenders[0], tower, batch=batch, num_frames=num_frames), **preparation}
            for contender in contenders
        ]

    def _measure_stages_alone(self, num_frames: int) -> list[dict[str, Any]]:
        contenders = self._contenders(num_frames)
        with self._step(f"stages, {num_frames} frames"):
            tower = self._measure_stages(contenders, batch=1, num_frames=num_frames)
        return [
            self._describe(contender, contenders[0], tower, batch=1, num_frames=num_frames)
            for contender in contenders
            if contender.stage_samples
        ]

    def _contenders(self, num_frames: int) -> list[Contender]:
        config = self._aot.config
        num_newlines = config.count_newlines(num_frames, is_compressed=True)
        contenders = [Contender(self._stock, None, count_all_video_tokens(config, num_frames), num_newlines)]
        for ratio in self._options.ratios:
            contender = Contender(self._aot, ratio, 0, num_newlines)
            with contender.active():
                contender.num_video_tokens = plan_token_budget(config, num_frames).num_video_tokens
            if contender.is_compressed and self._weight.is_cuda:
                contenders.append(
                    Contender(self._aot, ratio, contender.num_video_tokens, num_newlines, has_kernels=False)
                )
            contenders.append(contender)
        if contenders[-1].is_compressed:
            contenders += [
                replace(contenders[-1], frames_at_once=frames, samples=[], stage_samples=[])
                for frames in self._options.frames_at_once
                if frames < num_frames
            ]
        return contenders

    def _measure(self, contender: Contender, videos: Tensor, keep: bool) -> None:
        if contender.out_of_memory:
            return
        try:
            with contender.active():
                sample = measure_first_token(contender.model, self._prompt(contender, videos))
            sample |= measure_language_model(
                contender.model, contender.num_tokens, len(videos), self._options.decode_tokens
            )
        except torch.OutOfMemoryError:
            contender.out_of_memory = True
            contender.samples.clear()
            return
        if keep:
            contender.samples.append(sample)

    def _measure_stages(self, contenders: list[Contender], batch: int, num_frames: int) -> dict[str, Any] | None:
        compressed = [each for each in contenders if each.is_compressed and each.frames_at_once is None]
        if not compressed:
            return None
        tower_frames = min(num_frames, self._options.tower_frames or (num_frames if self._weight.is_cuda else 2))
        scale = batch * num_frames / tower_frames  # a tower's frames have nothing to do with each other
        for contender in compressed:
            samples, inputs = self._tower(tower_frames, contender)
            inputs = inputs.to(self._weight.device).with_frames(num_frames)
            for tower_sample in samples:
                with contender.active():
                    stages = measure_stages(self._aot.config, inputs, contender.num_video_tokens, batch)
                capture = tower_sample["capture"] * scale
                together = capture + stages["after projector"]
                contender.stage_samples.append({ATTENTION_CAPTURE: capture, **stages, TOGETHER: together})
        tower_samples, _ = self._tower(tower_frames, compressed[0])
        return {
            "frames": tower_frames,
            "seconds_of_all_frames": median(tower_samples, "alone") * scale,
            **{name: summarise(tower_samples, name) for name in ("alone", "watched", "capture")},
            "slowdown_watched": median(tower_samples, "watched") / median(tower_samples, "alone"),
            "share_of_capture": median(tower_samples, "capture") / median(tower_samples, "alone"),
        }

    def _measure_preparation(self, num_frames: int) -> dict[str, Any]:
        # One video's; it is the same for stock and AOT.
        if num_frames not in self._preparations:
            side = self._aot.config.vision_config.image_size
            samples = measure_preparation(num_frames, side, self._options.repeats)
            self._preparations[num_frames] = {"preparation": {name: summarise(samples, name) for name in samples[0]}}
        return self._preparations[num_frames]

    def _profile(self, contender: Contender, videos: Tensor) -> None:
        file = self._options.output / f"trace-{videos.shape[1]}-frames-batch-{len(videos)}.json"
        prompt = self._prompt(contender, videos)
        with contender.active(), torch.profiler.profile() as profile:
            contender.model.generate(**prompt, max_new_tokens=1)
        profile.export_chrome_trace(str(file))

    def _tower(self, num_frames: int, contender: Contender) -> tuple[list[dict[str, float]], CompressionInputs]:
        key = num_frames, contender.has_kernels
        if key not in self._towers:
            pixels = self._videos(1, num_frames)[0]
            with contender.active():
                runs = [measure_vision_tower(self._aot, pixels) for _ in range(self._options.repeats)]
            self._towers[key] = [sample for sample, _ in runs], runs[-1][1].to("cpu")
        return self._towers[key]

    def _describe(
        self, contender: Contender, stock: Contender, tower: dict[str, Any] | None, *, batch: int, num_frames: int
    ) -> dict[str, Any]:
        flops, stock_flops = (
            count_flops(
                self._aot.config,
                num_frames=num_frames,
                num_tokens=each.num_tokens,
                decode_tokens=self._options.decode_tokens,
                batch=batch,
            )
            for each in (contender, stock)
        )
        case = {
            "model": "stock" if contender is stock else "AOT",
            "batch": batch,
            "frames": num_frames,
            "retention_ratio": contender.retention_ratio,
            "variation": contender.variation,
            "video_tokens": contender.num_video_tokens,
            "prompt_tokens": contender.num_tokens,
            "flops": flops,
            "flops_limit": stock_flops["first_token"] / flops["first_token"],
            "out_of_memory": contender.out_of_memory,
        }
        if contender.samples:
            case |= {name: summarise(contender.samples, name) for name in contender.samples[0]}
            if stock.samples:
                case |= _ratios(contender, stock, case["flops_limit"])
        if contender.stage_samples:
            case["stages"] = _describe_stages(contender, stock, tower)
            case["vision_tower"] = tower
        return case

    def _prompt(self, contender: Contender, videos: Tensor) -> dict[str, Any]:
        return make_prompt(self._aot.config, contender.num_video_tokens, videos)

    def _videos(self, batch: int, num_frames: int) -> Tensor:
        return random_videos(self._aot.config, batch, num_frames, like=self._weight)


def summarise(samples: list[dict[str, float]], name: str) -> dict[str, Any]:
    """Median, spread and all values of one quantity."""
    values = [sample[name] for sample in samples]
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "samples": values}


def median(samples: list[dict[str, float]], name: str) -> float:
    """The median of one quantity."""
    return statistics.median(sample[name] for sample in samples)


def _ratios(contender: Contender, stock: Contender, flops_limit: float) -> dict[str, Any]:
    def ratio(name: str) -> float:
        return median(contender.samples, name) / median(stock.samples, name)

    speedups = {name: ratio(name) ** sign for name, sign in SPEEDUPS.items()}
    return {
        "speedup_over_stock": speedups,
        "memory_over_stock": {name: ratio(name) if median(stock.samples, name) else None for name in MEMORIES},
        "share_of_flops_limit": speedups["first_token_seconds"] / flops_limit,
    }


def _describe_stages(contender: Contender, stock: Contender, tower: dict[str, Any]) -> dict[str, Any]:
    wholes = {"share_of_vision_tower": tower["seconds_of_all_frames"]}
    if contender.samples:
        wholes["share_of_first_token"] = median(contender.samples, "first_token_seconds")
        wholes["share_of_prefill"] = median(contender.samples, "prefill_seconds")
    if stock.samples:
        wholes["share_of_stock_first_token"] = median(stock.samples, "first_token_seconds")
    names = contender.stage_samples[0]
    return {
        "seconds": {name: summarise(contender.stage_samples, name) for name in names},
        **{
            share: {name: median(contender.stage_samples, name) / whole for name in names}
            for share, whole in wholes.items()
        },
    }


def _name(contender: Contender) -> str:
    if contender.retention_ratio is None:
        return "stock"
    return f"AOT {contender.retention_ratio:.0%}" + (f", {contender.variation}" if contender.variation else "")
