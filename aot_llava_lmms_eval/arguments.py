"""What a model takes as `--model_args`, checked before anything is loaded."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

from .conversations import TEMPLATES
from .frame_sampling import SAMPLINGS

DTYPES = ("auto", "float32", "bfloat16", "float16")
UNREADABLE = ("stop", "llava_onevision", "llava_vid")


@dataclass(frozen=True)
class HarnessArguments:
    """The arguments that every model has, whatever the method.

    Attributes:
        pretrained: name on the Hub or folder of a LLaVA-OneVision, LLaVA-Video or AOT checkpoint; for the models of
            the Qwen-VL family, of one of theirs.
        revision: branch, tag or commit of it.
        max_frames_num: frames read of a video, at most.
        batch_size: prompts that are answered together.
        device: where a single process has the model; several have one GPU each.
        device_map: as in transformers, for a model that is spread over several GPUs by a single process.
        dtype: of the weights; "auto" is the checkpoint's.
        attn_implementation: as in transformers; None is its default.
        conv_template: "checkpoint", its own chat template, or "qwen_1_5", as lmms-eval's LLaVA classes.
        frame_sampling: "uniform", or "llava_onevision" or "llava_vid" as lmms-eval's classes of these names.
        task_prompts: the model whose wording a task uses (`lmms_eval_specific_kwargs`), as "llava_vid"; None is the
            task's default.
        add_time_instruction: whether LLaVA-Video's sentence about the times of the frames follows a video.
        unreadable_videos: "stop" the run; or go on as lmms-eval's class of the name: "llava_onevision" asks the
            question without the video, "llava_vid" answers that it cannot be loaded. They are counted.
        keep_encoded_gib: memory in GiB for encoded videos, that the next question about one needs not read it; 0 is
            none.
        read_ahead: batches that are read and prepared while the model answers, at most; 0 is none.
    """

    pretrained: str
    revision: str | None = None
    max_frames_num: int = 32
    batch_size: int = 1
    device: str | None = None
    device_map: str | None = None
    dtype: str = "auto"
    attn_implementation: str | None = None
    conv_template: str = "checkpoint"
    frame_sampling: str = "uniform"
    task_prompts: str | None = None
    add_time_instruction: bool = False
    unreadable_videos: str = "stop"
    read_ahead: int = 2
    keep_encoded_gib: float = 1.0

    def __post_init__(self):
        """Checks the values; raises ValueError."""
        for name, least in (("max_frames_num", 1), ("batch_size", 1), ("read_ahead", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}, but must be an integer from {least}.")
        choices_of = {
            "conv_template": TEMPLATES,
            "frame_sampling": SAMPLINGS,
            "dtype": DTYPES,
            "unreadable_videos": UNREADABLE,
        }
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be one of {', '.join(choices)}.")
        gib = self.keep_encoded_gib
        if isinstance(gib, bool) or not isinstance(gib, (int, float)) or not 0 <= gib < math.inf:
            raise ValueError(f"keep_encoded_gib is {gib!r}, but must be a number from 0.")
        if not isinstance(self.add_time_instruction, bool):
            raise ValueError(f"add_time_instruction is {self.add_time_instruction!r}, but must be True or False.")


HARNESS = tuple(field.name for field in fields(HarnessArguments))


def split_arguments(
    model_id: str, given: Mapping[str, Any], settings: Sequence[str]
) -> tuple[HarnessArguments, dict[str, Any]]:
    """Tells the method's settings from the rest.

    Args:
        model_id: for the messages.
        given: all arguments, by name.
        settings: the names of the method's.

    Raises:
        ValueError: if an argument is none of the model's, `pretrained` is missing, or a value is not allowed.
    """
    known = (*HARNESS, *settings)
    for name in given:
        if name not in known:
            nearest = get_close_matches(name, known, n=1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
            raise ValueError(f"{model_id} has no argument {name!r}{hint} Its arguments are {', '.join(known)}.")
    if "pretrained" not in given:
        raise ValueError(f"{model_id} needs a checkpoint: --model_args pretrained=NAME_OR_FOLDER.")
    read = {name: _read(value) for name, value in given.items()}
    harness = {name: value for name, value in read.items() if name in HARNESS}
    return HarnessArguments(**harness), {name: value for name, value in read.items() if name in settings}


def _read(value: Any) -> Any:
    """What lmms-eval does not read as Python would: None, -2 and a list such as [2,7,14]."""
    if value == "None":
        return None
    if isinstance(value, float) and value < 0 and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isdecimal():
        return int(value)  # --batch_size comes as text
    if isinstance(value, str) and value.startswith("["):
        try:
            return tuple(json.loads(value))
        except ValueError:
            return value
    return value
