"""Writes the trained model as a complete checkpoint."""

import json
import sys
from pathlib import Path

from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Tokenizer

from hub_upload import output_folder
from mini_checkpoint.training.model.mini_model import build_processor

# What the AOT processor samples of a video file; the stock one leaves it to its caller.
NUM_FRAMES = 16

# What the folder's marker calls it.
_NAME = "mini-llava-onevision"


def check_output(folder: Path, base: Path | None) -> None:
    """Refuses a folder that is not to be written, before anything is trained.

    Args:
        base: the checkpoint that the training begins with, if there is one.

    Raises:
        ValueError: if it holds anything but what an earlier run exported, or is the base or another such place.
    """
    output_folder.check_output(folder, _NAME, base, overwrite=True)


def export(
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer: Qwen2Tokenizer,
    card: str,
    folder: Path,
    base: Path | None = None,
) -> None:
    """Writes model, tokenizer, chat template, processor and model card; what an earlier run exported is replaced.

    The weights are stored in half precision, and the config says float32, so that they are loaded in a precision that
    every CPU computes in.

    Raises:
        ValueError: as `check_output`, or if another run exports to the same folder.
    """

    def fill(new: Path) -> None:
        halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
        model.save_pretrained(new, state_dict=halves)
        build_processor(tokenizer, model.config).save_pretrained(new)
        _write_num_frames(new / "processor_config.json")
        (new / "README.md").write_text(card, encoding="utf-8")

    def warn(line: str) -> None:
        print(line, file=sys.stderr)

    with output_folder.claim_output(folder, _NAME, base, overwrite=True, warn=warn) as output:
        output.write(fill)


def _write_num_frames(processor_config: Path) -> None:
    fields = json.loads(processor_config.read_text(encoding="utf-8"))
    processor_config.write_text(json.dumps({**fields, "num_frames": NUM_FRAMES}, indent=2) + "\n", encoding="utf-8")
