"""Writes the trained model as a complete checkpoint."""

import json
import os
import shutil
from pathlib import Path

from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Tokenizer

from mini_checkpoint.training.model.mini_model import build_processor

# What the AOT processor samples of a video file; the stock one leaves it to its caller.
NUM_FRAMES = 16


def check_output(folder: Path) -> None:
    """Refuses a folder whose files are not those of a checkpoint.

    Raises:
        FileExistsError: then; before anything is trained.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "config.json").exists():
        raise FileExistsError(f"{folder} is not empty and holds no checkpoint: name another folder with --output")


def export(model: LlavaOnevisionForConditionalGeneration, tokenizer: Qwen2Tokenizer, card: str, folder: Path) -> None:
    """Writes model, tokenizer, chat template, processor and model card; an older checkpoint there is replaced.

    The weights are stored in half precision, and the config says float32, so that they are loaded in a precision that
    every CPU computes in.
    """
    check_output(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{os.getpid()}-{folder.name}")
    old = folder.with_name(f".{os.getpid()}-old-{folder.name}")
    try:
        halves = {name: tensor.half() for name, tensor in model.state_dict().items()}
        model.save_pretrained(new, state_dict=halves)
        build_processor(tokenizer, model.config).save_pretrained(new)
        _write_num_frames(new / "processor_config.json")
        (new / "README.md").write_text(card, encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write_num_frames(processor_config: Path) -> None:
    fields = json.loads(processor_config.read_text(encoding="utf-8"))
    processor_config.write_text(json.dumps({**fields, "num_frames": NUM_FRAMES}, indent=2) + "\n", encoding="utf-8")
