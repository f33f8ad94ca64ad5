"""The options of `python -m benchmarks`. Reads them without importing torch, so that a typing error costs no time."""

import argparse
import math
from pathlib import Path
from typing import NoReturn

DESCRIPTION = """\
Speed and memory of AOT against the stock model, with real layer sizes and random weights.

Stock model and AOT run interleaved in one process and share their weights. Writes a table to stdout, and results.json
and one plot a batch size to a folder."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, and exits with 2."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        self.exit(2, f"{self.prog}: {message}\n")


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line; what was not given and depends on shape and device is None."""
    parser = OneLineParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape", choices=("tiny", "0.5b", "7b", "llava-video-7b"), default="tiny", help="layer sizes (default: tiny)"
    )
    parser.add_argument("--frames", type=_list_of(_positive), metavar="N,...", help="frames of a video")
    parser.add_argument("--ratios", type=_list_of(_ratio), metavar="R,...", help="retention ratios, above 0 up to 1")
    parser.add_argument("--batch", type=_list_of(_positive), metavar="N,...", help="batch sizes, one video a row")
    parser.add_argument("--repeats", type=_positive, help="measured rounds")
    parser.add_argument("--decode-tokens", type=_positive, help="tokens written after the first one")
    parser.add_argument(
        "--stage-frames",
        type=_list_of(_positive),
        metavar="N,...",
        help="frames for which AOT's stages alone are timed",
    )
    parser.add_argument("--tower-frames", type=_positive, help="frames on which the cost of watching is measured")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--output", type=_folder, default=Path("benchmark-results"), help="folder of the results")
    parser.add_argument(
        "--profile", action="store_true", help="also write a profiler's trace of AOT up to the first token"
    )
    parser.add_argument("--no-plot", action="store_true", help="draw nothing: matplotlib is not needed then")
    return parser.parse_args(arguments)


def _list_of(read_one):
    def read(text: str) -> list:
        values = [read_one(part) for part in text.split(",")]
        if len(set(values)) < len(values):
            raise argparse.ArgumentTypeError(f"{text} names a value twice")
        return values

    return read


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 1")
    return int(text)


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 up to 1")
    return value


def _folder(text: str) -> Path:
    folder = Path(text)
    if folder.exists() and not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file, but must be a folder")
    return folder
