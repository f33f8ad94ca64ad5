"""The options of `python -m benchmarks`, and how the other benchmarks read theirs.

All without importing torch, so that a typing error costs no time.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

DESCRIPTION = """\
Speed and memory of AOT against the stock model, with real layer sizes and
random weights.

Stock model and AOT run interleaved in one process and share their weights.
Writes a table to stdout, and results.json and one plot a batch size to a
folder."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"{self.prog}: {message}\n")


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line; what was not given and depends on shape and device is None."""
    parser = OneLineParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--shape",
        choices=("tiny", "0.5b", "7b", "llava-video-7b"),
        default="tiny",
        help="layer sizes (default: tiny, to try it out)",
    )
    add(
        "--frames",
        type=list_of(count),
        metavar="N,...",
        help="frames of a video (default: 8,16,32,64,128; on a CPU 8, or 2,4 with tiny)",
    )
    add(
        "--ratios",
        type=list_of(ratio),
        metavar="R,...",
        help="retention ratios, above 0 up to 1 (default: 1,0.25,0.2,0.15,0.1; on a CPU some of them)",
    )
    add(
        "--batch",
        type=list_of(count),
        metavar="N,...",
        help="batch sizes, one video a row (default: 1,8; on a CPU 1)",
    )
    add("--repeats", type=count, metavar="N", help="measured rounds (default: 5; on a CPU 3, or 1 with 7b)")
    add(
        "--decode-tokens",
        type=count,
        metavar="N",
        help="tokens written after the first one (default: 32; on a CPU 8)",
    )
    add(
        "--stage-frames",
        type=list_of(count),
        metavar="N,...",
        help="further frames for which AOT's stages alone are timed (default: none; on a CPU 32)",
    )
    add(
        "--tower-frames",
        type=count,
        metavar="N",
        help="frames on which the cost of reading the vision tower's attention is measured (default: all; on a CPU 2)",
    )
    add(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of weights and activations (default: bfloat16; on a CPU float32)",
    )
    add("--device", type=device, metavar="DEVICE", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    add(
        "--output",
        type=folder,
        default=Path("benchmark-results"),
        metavar="FOLDER",
        help="folder of the results (default: benchmark-results)",
    )
    add("--profile", action="store_true", help="also write a profiler's trace of AOT up to the first token")
    add("--no-plot", action="store_true", help="draw nothing: matplotlib is not needed then")
    return parser.parse_args(arguments)


def count(text: str) -> int:
    """An integer from 1."""
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1")
    return int(text)


def ratio(text: str) -> float:
    """A number above 0 up to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 up to 1")
    return value


def folder(text: str) -> Path:
    """A folder that is there or can be made."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file, but must be a folder")
    return Path(text)


def check_results_folder(output: Path, results: str, keys: set[str], others: Sequence[str]) -> None:
    """Refuses a folder in which this program's results would replace files of somebody else's.

    Args:
        results: the name of the JSON file, by which the program knows its own folder.
        keys: that it always has.
        others: patterns of the names of the other files.

    Raises:
        OSError: then, with the remedy.
    """
    if _is_object_with(output / results, keys):
        return
    there = [file for pattern in (results, *others) for file in sorted(output.glob(pattern))]
    if there:
        raise OSError(f"{there[0]} is no result of this program, and is not replaced: give another --output")


def _is_object_with(file: Path, keys: set[str]) -> bool:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and keys <= values.keys()


def device(text: str) -> str:
    """The name of a device; whether it is there says `choose_device`, which needs torch."""
    kind, colon, number = text.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise argparse.ArgumentTypeError(f"{text!r} is none of cpu, cuda and cuda:N")
    return text


def list_of(read_one):
    """Reads values with commas between them, each by `read_one`, none twice."""

    def read(text: str) -> list:
        values = [read_one(part) for part in text.split(",")]
        if len(set(values)) < len(values):
            raise argparse.ArgumentTypeError(f"{text} names a value twice")
        return values

    return read
