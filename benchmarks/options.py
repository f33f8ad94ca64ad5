"""The options of `python -m benchmarks`, and how the other benchmarks read theirs.

All without importing torch, so that a typing error costs no time.
"""

import argparse
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from hub_upload.console import never_stop_at_a_letter
from hub_upload.suggestions import did_you_mean

DESCRIPTION = """\
Speed and memory of AOT against the stock model, with real layer sizes and
random weights.

Stock model and AOT run interleaved in one process and share their weights.
Writes a table to stdout, and results.json and one plot a batch size to a
folder."""


_WORDS_OF_AOT_LLAVA = {
    r"^argument (\S+): expected .*": r"Option \1 requires an argument.",
    r"^argument (\S+): ": r"Invalid value for \1: ",
    r"invalid choice: (.*?) \(choose from (.*)\)": r"\1 is none of \2",
    r"^unrecognized arguments: (-\S+)[^.]*": r"No such option: \1",
    r"^unrecognized arguments: ": "Got an unexpected argument: ",
}


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong, and what was meant, in one line, and exits with 2."""

    def parse_known_args(self, args=None, namespace=None):
        """Reads the arguments; there are none that it does not know."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = re.findall(r"--[a-z][\w-]*", self.format_usage())
            self.error(f"unrecognized arguments: {' '.join(unknown)}.{did_you_mean(unknown[0], known)}")
        return options, unknown

    def parse_args(self, *arguments: Any, **options: Any) -> Any:
        """Reads the command line; from here on no letter stops the program."""
        never_stop_at_a_letter()
        return super().parse_args(*arguments, **options)

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if choice:
            message += "." + did_you_mean(choice[1], re.findall(r"[\w.-]+", choice[2]))
        program = self.prog
        if program.startswith("aot-llava "):  # which has its own words for this, the same for all commands
            program = "aot-llava"
            for pattern, words in _WORDS_OF_AOT_LLAVA.items():
                message = re.sub(pattern, words, message)
        self.exit(2, f"{program}: {message}\n")


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line; what was not given and depends on shape and device is None."""
    return make_parser(prog).parse_args(arguments)


def make_parser(prog: str) -> OneLineParser:
    """What reads the command line."""
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
    add(
        "--frames-at-once",
        type=list_of(count),
        default=(8,),
        metavar="N,...",
        help="with the smallest ratio of a longer video also encode so many frames at a time (default: 8, beside 32)",
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
    return parser


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
        meant = did_you_mean(kind, ("cpu", "cuda"))
        raise argparse.ArgumentTypeError(f"{text!r} is none of cpu, cuda and cuda:N{meant and '.' + meant}")
    return text


def list_of(read_one):
    """Reads values with commas between them, each by `read_one`, none twice."""

    def read(text: str) -> list:
        values = [read_one(part) for part in text.split(",")]
        if len(set(values)) < len(values):
            raise argparse.ArgumentTypeError(f"{text} names a value twice")
        return values

    return read
