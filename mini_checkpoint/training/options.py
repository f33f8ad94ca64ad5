"""The options of `python -m mini_checkpoint.training`. Reads them without importing torch."""

import argparse
from pathlib import Path

from benchmarks.options import OneLineParser, device, folder

DESCRIPTION = """\
Trains the mini LLaVA-OneVision that answers the synthetic video questions, and
writes it as a checkpoint.

First the vision tower learns from single frames, then the language model from
clips. An interrupted run goes on where it was when the same command is given
again. Takes about five hours on 2 CPU cores."""


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output",
        type=folder,
        default=Path("mini-llava-onevision"),
        metavar="FOLDER",
        help="folder of the checkpoint (default: mini-llava-onevision)",
    )
    parser.add_argument(
        "--state",
        type=folder,
        default=Path("train-mini-state"),
        metavar="FOLDER",
        help="folder of state and log (default: train-mini-state)",
    )
    parser.add_argument(
        "--device", type=device, metavar="DEVICE", help="cpu, cuda or cuda:N (default: cuda where there is one)"
    )
    parser.add_argument("--export-only", action="store_true", help="train no further: write what the state holds")
    parser.add_argument(
        "--last-stage-of",
        type=_checkpoint,
        metavar="CHECKPOINT",
        help="run the language model's last stage alone, from a checkpoint that the stages before it made",
    )
    return parser.parse_args(arguments)


def _checkpoint(text: str) -> Path:
    if not Path(text, "model.safetensors").exists():
        raise argparse.ArgumentTypeError(f"{text} holds no model.safetensors: name the folder of a checkpoint")
    return Path(text)
