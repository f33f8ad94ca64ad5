"""From a file to pixel values, on the machine's own processor."""

from typing import Any

from aot_llava_cli.mini import MINI_CHECKPOINT
from benchmarks.comparison import summarise
from benchmarks.first_token.clip_files import ClipFile
from benchmarks.first_token.way import timed
from modeling_aot_llava import AOTLlavaOnevisionProcessor

SIDE = 384


def measure_reading(options) -> dict[str, Any]:
    """32 frames of a minute of 1080p with keyframes every 30 and 250 frames, to the vision tower's pixels."""
    is_small = options.shape == "tiny"
    size, seconds, num_frames = ("180p", 2, 4) if is_small else ("1080p", 60, 32)
    processor = AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT)
    processor.video_processor.size = {"height": SIDE, "width": SIDE}
    section: dict[str, Any] = {}
    for interval in (30, 250):
        clip = ClipFile(size, seconds, interval)
        file = str(clip.make(options.output / "clips"))
        samples = [
            timed(lambda file=file: processor(text="<video>", videos=[file], num_frames=num_frames))[0]
            for _ in range(options.repeats)
        ]
        section[clip.name] = {name: summarise(samples, name) for name in samples[0]}
    says = "; ".join(f"{name}: {clip['seconds']['median']:.2f} s" for name, clip in section.items())
    return {**section, "says": says}
