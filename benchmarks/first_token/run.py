"""All measurements of one run: each file, each contender in turn, then the readers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.comparison import summarise
from benchmarks.report import make_report
from benchmarks.shapes import SHAPES, build_models

from .clip_files import FRAMES_PER_SECOND, ClipFile
from .readers import OURS, indices_of, installed_readers, measure_reader
from .way import STOCK, Contender, make_processor, measure_way


def measure_all(options, device: torch.device, bar) -> Iterator[dict[str, Any]]:
    """The report, again after each file; `bar` says what is being done."""
    stock, aot = build_models(SHAPES[options.shape], getattr(torch, options.dtype), device)
    contenders = [Contender(STOCK, stock, make_processor(stock, 1.0))]
    for frames_at_once in options.frames_at_once:
        name = f"AOT {options.ratio:.0%}, {frames_at_once} at once"
        contenders.append(Contender(name, aot, make_processor(aot, options.ratio), frames_at_once))
    clips = [
        ClipFile(size, seconds, interval)
        for size in options.sizes
        for seconds in options.seconds
        for interval in options.keyframes
    ]
    readers = installed_readers()
    bar.reset(len(clips) * (1 + (1 + options.repeats) * len(contenders) + options.repeats * len(readers)))
    report = make_report(options, sum(parameter.numel() for parameter in aot.parameters()), device)
    for clip in clips:
        report["cases"].append(_measure_clip(clip, options, contenders, readers, bar))
        yield report


def _measure_clip(clip: ClipFile, options, contenders: list[Contender], readers, bar) -> dict[str, Any]:
    bar.set_description(f"making {clip.name}")
    file = clip.make(options.output / "clips")
    bar.update()
    samples: dict[str, list] = {contender.name: [] for contender in contenders}
    for round_ in range(-1, options.repeats):  # the first warms up
        for contender in contenders:
            bar.set_description(f"{contender.name}, {clip.name}")
            sample = measure_way(contender, file, options.frames)
            if round_ >= 0:
                samples[contender.name].append(sample)
            bar.update()
    return {
        "clip": clip.name,
        "file_bytes": file.stat().st_size,
        "contenders": [
            {"name": name, **{key: summarise(taken, key) for key in taken[0]}} for name, taken in samples.items()
        ],
        "readers": _measure_readers(clip, file, options, readers, bar),
    }


def _measure_readers(clip: ClipFile, file, options, readers, bar) -> list[dict[str, Any]]:
    indices = indices_of(clip.seconds * FRAMES_PER_SECOND, options.frames)
    samples: dict[str, list] = {name: [] for name in readers}
    differences: dict[str, int] = {}
    for _ in range(options.repeats):
        frames = None
        for name, read in readers.items():
            bar.set_description(f"{name}, {clip.name}")
            bar.update()
            if name != OURS and (clip.seconds > options.peer_seconds or "error" in str(samples[name][-1:])):
                continue
            sample = measure_reader(read, file, indices)
            read_frames = sample.pop("frames", None)
            frames = read_frames if name == OURS else frames
            if read_frames is not None:
                differences[name] = _largest_difference(frames, read_frames)
            samples[name].append(sample)
    return [_describe_reader(name, taken, differences.get(name)) for name, taken in samples.items() if taken]


def _describe_reader(name: str, samples: list[dict[str, Any]], difference: int | None) -> dict[str, Any]:
    errors = [sample["error"] for sample in samples if "error" in sample]
    if errors:
        return {"name": name, "error": errors[0]}
    measured = {key: summarise(samples, key) for key in samples[0]}
    return {"name": name, **measured, "largest_difference": difference}


def _largest_difference(ours: np.ndarray, theirs: np.ndarray) -> int | None:
    """In grey levels; None where the shapes differ."""
    if ours.shape != theirs.shape:
        return None
    return max(int(np.abs(a.astype(np.int16) - b).max()) for a, b in zip(ours, theirs))
