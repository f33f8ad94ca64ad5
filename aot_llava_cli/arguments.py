"""Arguments that several commands take, and their checks, which need no torch."""

import mimetypes
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

_ADDRESS = re.compile(r"(https?://|file://|data:)", re.IGNORECASE)

Video = Annotated[
    str | None,
    typer.Argument(
        help="A video file, a folder with the pictures of its frames, or an http(s) address, which is downloaded "
        "(4 GiB at most). By default a short clip that the mini model understands.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Hub ID or folder of a LLaVA-OneVision checkpoint, with AOT or stock. By default a "
        "mini model that comes with the program and answers questions about coloured shapes.",
        show_default=False,
    ),
]
NumFrames = Annotated[
    int | None,
    typer.Option(help="Frames to sample. By default the checkpoint's number.", show_default=False),
]


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


def check_at_least_one(option: str, value: int | None) -> None:
    """Raises `BadParameter` where a number is given that is below 1."""
    if value is not None and value < 1:
        raise typer.BadParameter(f"{value} is too few. Give 1 or more.", param_hint=option)


def _looks_like_hub_id(model: str) -> bool:
    """Whether this is owner/name rather than a folder; a folder that exists is always a folder."""
    owner, slash, name = model.partition("/")
    is_id = bool(slash and name) and "/" not in name and owner not in ("", ".", "..", "~")
    return is_id and not Path(model).exists()


def _is_picture(file: Path) -> bool:
    return file.is_file() and (mimetypes.guess_type(file.name)[0] or "").startswith("image/")
