"""Time to the first token on the Qwen-VL family, AOT against the stock model, with random weights.

Both share every weight and run in turns in one process, so that a busy machine slows both alike; read the ratios.
"""

import statistics
from typing import Any

from .options import OneLineParser, count, device, list_of, ratio

SHAPES = (
    "qwen2-vl-tiny",
    "qwen2.5-vl-tiny",
    "qwen3-vl-tiny",
    "qwen3-vl-moe-tiny",
    "qwen2-vl-7b",
    "qwen2.5-vl-3b",
    "qwen2.5-vl-7b",
    "qwen3-vl-2b",
    "qwen3-vl-8b",
    "qwen3-vl-30b-a3b",
)


def main(arguments: list[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = OneLineParser(prog="python -m benchmarks.qwen_vl", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="qwen3-vl-tiny", help="layer sizes (default: a tiny one, to try it out)")
    add("--pictures", type=list_of(count), default=[8, 16], metavar="N,N", help="of a video, two a frame")
    add("--tokens", type=count, default=4, metavar="N", help="side of a frame, in tokens (default: 4)")
    add("--ratios", type=list_of(ratio), default=[1.0, 0.25, 0.1], metavar="R,R", help="retention ratios")
    add("--repeats", type=count, default=3, metavar="N", help="measured rounds (default: 3)")
    add("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    add("--device", type=device, help="cpu, cuda or cuda:N (default: cuda where there is one)")
    options = parser.parse_args(arguments)

    import torch
    import transformers

    from .device import choose_device
    from .qwen_vl_shapes import QWEN_SHAPES, build_models

    transformers.logging.set_verbosity_error()
    try:
        where = choose_device(options.device)
    except ValueError as error:
        parser.error(str(error))
    stock, aot = build_models(QWEN_SHAPES[options.shape], getattr(torch, options.dtype), where)
    print("| pictures | model | video tokens | prompt | first token | over stock |\n|---|---|---|---|---|---|")
    for pictures in options.pictures:
        for row in compare(stock, aot, pictures, options):
            print("| " + " | ".join(row) + " |")


def compare(stock: Any, aot: Any, pictures: int, options: Any) -> list[tuple[str, ...]]:
    """Rows of the table for videos of so many pictures: the stock model's, and one for each ratio."""
    from .measure import seconds
    from .qwen_vl_shapes import make_prompt, random_video

    merge = aot.config.vision_config.spatial_merge_size
    frames = -(-pictures // aot.config.vision_config.temporal_patch_size)
    grid = (frames, options.tokens * merge, options.tokens * merge)
    pixels = random_video(aot.config, grid, like=next(aot.parameters()))
    contenders = [("stock", stock, 1.0), *((f"AOT {share:.0%}", aot, share) for share in options.ratios)]
    prompts, samples = {}, {name: [] for name, _, _ in contenders}
    for name, _, share in contenders:
        aot.config.retention_ratio = share
        prompts[name] = make_prompt(aot, grid, pixels)
    for round_ in range(-1, options.repeats):  # the first warms up
        for name, model, share in contenders:
            aot.config.retention_ratio = share
            prompt, _ = prompts[name]
            taken = seconds(lambda: model.generate(**prompt, max_new_tokens=1), pixels.device)  # noqa: B023
            if round_ >= 0:
                samples[name].append(taken)
    medians = {name: statistics.median(of_model) for name, of_model in samples.items()}
    return [
        (
            str(pictures),
            name,
            str(prompts[name][1]),
            str(prompts[name][0]["input_ids"].shape[1]),
            f"{1000 * medians[name]:.1f} ms",
            f"{medians[name] / medians['stock']:.2f}",
        )
        for name, _, _ in contenders
    ]


if __name__ == "__main__":
    main()
