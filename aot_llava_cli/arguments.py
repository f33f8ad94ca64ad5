"""Arguments that several commands take, and their checks, which need no torch."""

from pathlib import Path
from typing import Annotated

import typer

Video = Annotated[
    Path | None,
    typer.Argument(help="A video file. By default a short clip that the mini model understands.", show_default=False),
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


def check_video(video: Path | None) -> None:
    """Raises `BadParameter` unless there is such a file."""
    if video is not None and not video.is_file():
        what = "is a folder" if video.is_dir() else "does not exist"
        raise typer.BadParameter(
            f"{video} {what}. Give the path of a video file, or none for the mini clip.",
            param_hint="VIDEO",
        )


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
