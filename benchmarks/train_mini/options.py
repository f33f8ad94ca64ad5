"""The options of `python -m benchmarks.train_mini`. Reads them without importing torch."""

import argparse
from pathlib import Path

from benchmarks.options import OneLineParser

DESCRIPTION = """\
Trains the mini LLaVA-OneVision that answers the synthetic video questions, and writes it as a checkpoint.

First the vision tower learns from single frames, then the language model from clips. An interrupted run goes on where
it was when the same command is given again. Takes about five hours on 2 CPU cores."""


def parse_options(arguments: list[str] | None, prog: str) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(prog=prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output", type=_folder, default=Path("mini-llava-onevision"), help="folder of the checkpoint"
    )
    parser.add_argument("--state", type=_folder, default=Path("train-mini-state"), help="folder of state and log")
    parser.add_argument("--device", type=_device, help="cpu, cuda or cuda:N (default: cuda where there is one)")
    parser.add_argument("--export-only", action="store_true", help="train no further: write what the state holds")
    parser.add_argument(
        "--last-stage-of",
        type=_checkpoint,
        metavar="CHECKPOINT",
        help="run the language model's last stage alone, from a checkpoint that the stages before it made",
    )
    return parser.parse_args(arguments)


def _checkpoint(text: str) -> Path:
    folder = Path(text)
    if not (folder / "model.safetensors").exists():
        raise argparse.ArgumentTypeError(f"{text} holds no model.safetensors: name the folder of a checkpoint")
    return folder


def _folder(text: str) -> Path:
    folder = Path(text)
    if folder.exists() and not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file, but must be a folder")
    return folder


def _device(text: str) -> str:
    kind, _, number = text.partition(":")
    if kind not in ("cpu", "cuda") or (":" in text and not number.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is none of cpu, cuda and cuda:N")
    return text
