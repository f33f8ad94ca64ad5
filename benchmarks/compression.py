"""AOT's own time against the vision tower's: `python -m benchmarks.compression`.

Times everything after the projector (anchors, both transports, pooling) on 32 frames, and the vision tower of
LLaVA-OneVision (SigLIP so400m, 26 layers, 27 x 27 patches) on a few frames; the tower treats frames one by one, so its
time for 32 is proportional. Both in one run, interleaved, so that the ratio holds on a busy machine too.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoModel

from modeling_aot_llava import AOTLlavaOnevisionConfig
from modeling_aot_llava.spatiotemporal_pruning import compress_video_features

HIDDEN_SIZES = {"0.5b": 896, "7b": 3584}


def main() -> None:
    """Measures and prints a table."""
    options = _parse_options()
    torch.manual_seed(0)
    config = AOTLlavaOnevisionConfig()
    tower = AutoModel.from_config(config.vision_config).eval()
    side = config.vision_config.image_size
    pixels = torch.randn(options.tower_frames, 3, side, side)
    patches = config.patch_grid_size**2
    features = torch.randn(options.frames, patches, HIDDEN_SIZES[options.shape])
    local_attention, global_attention = torch.rand(2, options.frames, patches)

    def compress() -> None:
        compress_video_features(features, local_attention, global_attention, config)

    def run_tower() -> None:
        tower(pixels)

    compression, tower_times = [], []
    with torch.inference_mode():
        compress()
        for _ in range(options.repeats):
            tower_times.append(_seconds(run_tower) * options.frames / options.tower_frames)
            compression.extend(_seconds(compress) for _ in range(3))
    print(f"{options.frames} frames x {patches} patches x {features.shape[-1]}, {torch.get_num_threads()} threads")
    print(f"vision tower  {_summary(tower_times)}  (from {options.tower_frames} frames a run)")
    print(f"AOT           {_summary(compression)}")
    print(f"ratio         1 / {statistics.median(tower_times) / statistics.median(compression):.0f}")


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=32, help="frames that are compressed")
    parser.add_argument("--shape", choices=HIDDEN_SIZES, default="0.5b", help="width of the language model")
    parser.add_argument("--tower-frames", type=int, default=2, help="frames that the vision tower runs on")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _summary(seconds: list[float]) -> str:
    return f"median {statistics.median(seconds):8.3f} s, {min(seconds):.3f} to {max(seconds):.3f}"


if __name__ == "__main__":
    main()
