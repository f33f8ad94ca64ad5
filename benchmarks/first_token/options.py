"""The options of `python -m benchmarks.first_token`; read without torch, so that a typing error costs no time."""

import argparse
from pathlib import Path

from benchmarks.options import OneLineParser, count, device, folder, list_of, ratio

from .clip_files import SIZES

DESCRIPTION = """\
Time and memory from a video file to the first token of an answer, stage by
stage, stock model and AOT interleaved in one run, random weights; and what
other libraries take to read the same frames of the same file.

The files are made first (H.264) and kept in the folder of the results: an
hour of video takes as long to make as twenty seconds. Writes a table to
stdout, and first-token.json and first-token.png to the folder."""


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--shape", choices=("tiny", "0.5b", "7b"), default="tiny", help="layer sizes (default: tiny)")
    add(
        "--sizes",
        type=list_of(_size),
        default=["1080p"],
        metavar="SIZE,...",
        help=f"of the pictures, of {', '.join(SIZES)} (default: 1080p)",
    )
    add("--seconds", type=list_of(count), default=[10, 60], metavar="N,...", help="of video (default: 10,60)")
    add(
        "--keyframes",
        type=list_of(count),
        default=[30, 250],
        metavar="N,...",
        help="frames from one keyframe to the next (default: 30,250)",
    )
    add("--frames", type=count, default=32, metavar="N", help="frames that are read (default: 32)")
    add("--ratio", type=ratio, default=0.1, metavar="R", help="share of video tokens that AOT keeps (default: 0.1)")
    add(
        "--frames-at-once",
        type=list_of(count),
        default=[8, 32],
        metavar="N,...",
        help="frames that AOT encodes at a time, each a row of its own (default: 8,32)",
    )
    add("--repeats", type=count, default=3, metavar="N", help="measured rounds (default: 3)")
    add(
        "--peer-seconds",
        type=count,
        default=60,
        metavar="N",
        help="longest video that is read with other libraries, some of which decode all of it (default: 60)",
    )
    add("--dtype", choices=("float32", "bfloat16", "float16"), help="default: bfloat16; on a CPU float32")
    add("--device", type=device, metavar="DEVICE", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    add(
        "--output",
        type=folder,
        default=Path("benchmark-results/first-token"),
        metavar="FOLDER",
        help="folder of the results (default: benchmark-results/first-token)",
    )
    add("--no-plot", action="store_true", help="draw nothing: matplotlib is not needed then")
    return parser.parse_args(arguments)


def _size(text: str) -> str:
    if text not in SIZES:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(SIZES)}")
    return text
