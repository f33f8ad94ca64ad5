"""The options of `python -m mini_checkpoint.accuracy`; read without torch, so that a typing error costs no time."""

import argparse
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path

from aot_llava_cli.mini import MINI_CHECKPOINT
from benchmarks.options import OneLineParser, count, folder

from .settings import SETTINGS, Setting

DESCRIPTION = """\
Accuracy against the share of the video tokens that a checkpoint reads, on held-out synthetic video questions.

Writes accuracy.md, accuracy.json and accuracy.png to a folder, and the tables to stdout too. All answers are kept in
answers.jsonl there: the same command goes on where it was stopped, and asks only what has not been answered yet."""

# More than 1,000 questions.
NUM_CLIPS = 170


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line; `settings` becomes a list of `Setting`."""
    parser = OneLineParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=_checkpoint, metavar="FOLDER", help="checkpoint (default: the mini checkpoint)"
    )
    parser.add_argument(
        "--clips", type=count, default=NUM_CLIPS, metavar="N", help=f"held-out clips (default: {NUM_CLIPS})"
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        type=_settings,
        default=[list(SETTINGS.values())],
        metavar="NAME",
        help='names as in the tables, or patterns such as "AOT*" or "*, 10 %%" (default: all)',
    )
    parser.add_argument(
        "--output",
        type=folder,
        default=Path("benchmark-results/accuracy"),
        metavar="FOLDER",
        help="folder of the results (default: benchmark-results/accuracy)",
    )
    parser.add_argument("--no-plot", action="store_true", help="draw nothing: matplotlib is not needed then")
    options = parser.parse_args(arguments)
    wanted = {setting.name for matching in options.settings for setting in matching}
    options.settings = [setting for setting in SETTINGS.values() if setting.name in wanted]
    if options.model is None:
        try:
            options.model = _checkpoint(str(MINI_CHECKPOINT))
        except argparse.ArgumentTypeError:
            parser.error(
                f"the mini checkpoint is not in {MINI_CHECKPOINT}. Make it with `python -m mini_checkpoint.training`, "
                "or name the folder of another one with --model"
            )
    return options


def _checkpoint(text: str) -> Path:
    folder = Path(text)
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "is not a folder"
        raise argparse.ArgumentTypeError(
            f"{text} {what}: name the folder of a LLaVA-OneVision or LLaVA-Video checkpoint"
        )
    return folder


def _settings(pattern: str) -> list[Setting]:
    matching = [setting for name, setting in SETTINGS.items() if fnmatchcase(name, pattern)]
    if not matching:
        nearest = ", ".join(map(repr, get_close_matches(pattern, SETTINGS, n=3, cutoff=0)))
        raise argparse.ArgumentTypeError(
            f"{pattern!r} names no setting; near to it are {nearest}, and docs/accuracy.md has all"
        )
    return matching
