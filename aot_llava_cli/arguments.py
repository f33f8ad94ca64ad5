"""Arguments that several commands take, how they are read, and their checks, which need no torch."""

import math
import mimetypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from hub_upload.suggestions import did_you_mean

_ADDRESS = re.compile(r"(https?://|file://|data:)", re.IGNORECASE)

Video = Annotated[
    str | None,
    typer.Argument(
        help="A video file, a folder with the pictures of its frames, an http(s) address, which is downloaded "
        "(4 GiB at most), or an encoded video (see `aot-llava encode`). By default a short clip that the mini model "
        "understands.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Hub ID or folder of a LLaVA-OneVision or LLaVA-Video checkpoint, with AOT or stock; or, experimental, "
        "of a Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3-VL-MoE one. By default a mini model that comes with the program "
        "and answers questions about coloured shapes.",
        show_default=False,
    ),
]


def read_count(text: str) -> int:
    """A number from 1; raises `BadParameter` for anything else."""
    text = str(text).strip()  # a default comes as it is
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is not a whole number from 1. Give 1 or more.")
    return int(text)


def read_share(text: str) -> float:
    """A share above 0 up to 1; raises `BadParameter` for anything else."""
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise typer.BadParameter(
            f"{text!r} is not a share of the tokens. Give a number above 0 up to 1, such as 0.1 for 10 %."
        )
    return share


NumFrames = Annotated[
    int | None,
    typer.Option(
        parser=read_count,
        metavar="N",
        help="Frames to sample, uniformly from the first to the last; all of a shorter video. By default the "
        "checkpoint's number.",
        show_default=False,
    ),
]
RetentionRatio = Annotated[
    float | None,
    typer.Option(
        parser=read_share,
        metavar="SHARE",
        help="Share of the video tokens to keep, above 0 up to 1. By default the checkpoint's.",
        show_default=False,
    ),
]
MaxNewTokens = Annotated[
    int, typer.Option(parser=read_count, metavar="N", help="Length of an answer at most, in tokens.")
]

DEVICES = ("cpu", "cuda", "xpu", "mps")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def read_device(text: str) -> str:
    """The name of a device, such as cuda:1; raises `BadParameter` for anything else. `find_device` looks for it."""
    kind, colon, number = text.partition(":")
    if kind not in DEVICES or (colon and not number.isdecimal()):
        raise typer.BadParameter(
            f"{text!r} is no device.{did_you_mean(kind, DEVICES) or ' Give cpu, cuda, cuda:1, xpu or mps.'}"
        )
    return text


def read_dtype(text: str) -> str:
    """The name of a type of numbers; raises `BadParameter` for anything else."""
    if text not in DTYPES:
        raise typer.BadParameter(
            f"{text!r} is no type of the weights.{did_you_mean(text, DTYPES)} Give one of {', '.join(DTYPES)}."
        )
    return text


Device = Annotated[
    str | None,
    typer.Option(
        parser=read_device,
        metavar="DEVICE",
        help="Where the model runs: cpu, cuda, cuda:1, xpu, mps. By default on the NVIDIA GPUs where there are some, "
        "else on the CPU.",
        show_default=False,
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        parser=read_dtype,
        metavar="TYPE",
        help="Of the weights and of what is computed with them: float32, bfloat16, float16, or auto for the "
        "checkpoint's.",
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        metavar="REVISION",
        help="Branch, tag or commit of a model on the Hub. By default main.",
        show_default=False,
    ),
]


def check_source(video: str | None, model: str | None, revision: str | None) -> None:
    """Raises `BadParameter` unless a command can begin to look for this video and this model."""
    check_video(video)
    check_model(model)
    check_revision(revision, model)


def check_video(video: str | None) -> None:
    """Raises `BadParameter` unless there is such a file, or such a folder with pictures, or this is an address."""
    if video is None or _ADDRESS.match(video) or Path(video).is_file():
        return
    what = "does not exist"
    if Path(video).is_dir():
        if any(_is_picture(file) for file in Path(video).iterdir()):
            return
        what = "is a folder without pictures"
    raise typer.BadParameter(
        f"{video} {what}. Give the path of a video file or of a folder with the pictures of its frames, or none for "
        "the mini clip.",
        param_hint="VIDEO",
    )


def is_encoded_file(video: str) -> bool:
    """Whether this is a file that `aot-llava encode` has written, by its name."""
    return video.lower().endswith(".safetensors") and not is_web_address(video) and Path(video).is_file()


def is_address(video: str) -> bool:
    """Whether this is an address and no path: http(s)://, file:// or data:."""
    return _ADDRESS.match(video) is not None


def is_web_address(video: str) -> bool:
    """Whether the video is to be downloaded."""
    return video.lower().startswith(("http://", "https://"))


def name_of_video(video: str) -> str:
    """What a video's file is called, also where it lies at an address."""
    is_address = _ADDRESS.match(video)
    if is_address and is_address[1].lower() == "data:":
        return "video"
    return Path(unquote(urlsplit(video).path) if is_address else video).name or "video"


def check_model(model: str | None) -> None:
    """Raises `BadParameter` unless this is a checkpoint's folder or looks like a Hub ID."""
    if model is None or _looks_like_hub_id(model):
        return
    if not (Path(model) / "config.json").is_file():
        what = "has no config.json" if Path(model).is_dir() else "does not exist"
        raise typer.BadParameter(
            f"the folder {model!r} {what}. Give the folder of a checkpoint, or a Hub ID like owner/name.",
            param_hint="--model",
        )


def check_revision(revision: str | None, model: str | None) -> None:
    """Raises `BadParameter` where a revision is given and the model is none of the Hub's."""
    if revision is not None and (model is None or not _looks_like_hub_id(model)):
        what = "the mini model has none" if model is None else f"{model!r} is a folder"
        raise typer.BadParameter(
            f"{revision!r} is one of a model on the Hub, but {what}. Leave it out, or give a Hub ID with --model.",
            param_hint="--revision",
        )


def check_device(device: str | None, find: Callable[[str | None], object]) -> None:
    """Raises `BadParameter` where `find` raises `ValueError`, because this machine has no such device."""
    try:
        find(device)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None


def _looks_like_hub_id(model: str) -> bool:
    """Whether this is owner/name rather than a folder; a folder that exists is always a folder."""
    owner, slash, name = model.partition("/")
    is_id = bool(slash and name) and "/" not in name and owner not in ("", ".", "..", "~")
    return is_id and not Path(model).exists()


def _is_picture(file: Path) -> bool:
    return file.is_file() and (mimetypes.guess_type(file.name)[0] or "").startswith("image/")
