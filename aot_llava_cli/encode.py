"""`aot-llava encode`: encodes videos into files that are asked instead of them.

What is done already stays; a clip that cannot be read is told of, and the others go on.
"""

from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer
from tqdm import tqdm

from .arguments import (
    Device,
    Dtype,
    Model,
    NumFrames,
    RetentionRatio,
    Revision,
    check_device,
    check_model,
    check_revision,
    check_video,
    name_of_video,
)
from .mini import MINI_CHECKPOINT
from .video_look import looked_at

_Videos = Annotated[
    list[str],
    typer.Argument(metavar="CLIP...", help="Video files, folders with the pictures of frames, or http(s) addresses."),
]
_Folder = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Where the files go, as CLIP.aot.safetensors; it is made if need be."
    ),
]


def encode(
    videos: _Videos,
    output: _Folder,
    model: Model = None,
    retention_ratio: RetentionRatio = None,
    num_frames: NumFrames = None,
    device: Device = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Encode videos once, to be asked often: without the video and without the vision tower."""
    check_model(model)
    check_revision(revision, model)
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"{output} is a file. Give a folder.", param_hint="--output")
    files = _files_of(videos, output)
    from . import answer, encoded_folder

    answer.silence_libraries()
    check_device(device, answer.find_device)
    model = str(MINI_CHECKPOINT) if model is None else model
    processor = answer.load_processor(model, retention_ratio, revision)
    llava = answer.load_model(model, retention_ratio, revision, device, dtype)
    output.mkdir(parents=True, exist_ok=True)
    failed = 0
    with tqdm(files.items(), desc="Encoding", unit="clip", dynamic_ncols=True) as bar:
        for video, file in bar:
            try:
                _encode_one(answer, encoded_folder, llava, processor, video, file, num_frames)
            except (ValueError, OSError, typer.BadParameter) as error:
                failed += 1
                bar.write(f"{' '.join(str(error).split())}", file=_Stderr())
    if failed:
        raise ValueError(f"{failed} of {len(files)} clips could not be encoded, for the reasons above.")


def _encode_one(
    answer: ModuleType, encoded_folder: ModuleType, model: Any, processor: Any, video: str, file: Path, num_frames: Any
) -> None:
    check_video(video)
    if encoded_folder.is_done(file, video, model, processor, num_frames):
        return
    with looked_at(video) as path:
        encoded = answer.encode(model, processor, path, source=encoded_folder.source_of(video), num_frames=num_frames)
    encoded.save(file)


def _files_of(videos: list[str], folder: Path) -> dict[str, Path]:
    """Where each video is written; raises `BadParameter` if two would be written to one place."""
    clips: dict[Path, list[str]] = defaultdict(list)
    for video in dict.fromkeys(videos):
        name = name_of_video(video)
        stem = Path(name).stem if Path(name).suffix else name
        clips[folder / f"{stem}.aot.safetensors"].append(video)
    for file, named in clips.items():
        if len(named) > 1:
            raise typer.BadParameter(
                f"{' and '.join(named)} would both be written to {file}. Encode them into different folders.",
                param_hint="CLIP",
            )
    return {video: file for file, (video,) in clips.items()}


class _Stderr:
    """Where the progress bar writes lines: above itself, whoever has put something else in place of stderr."""

    def write(self, text: str) -> None:
        typer.echo(text, err=True, nl=False)

    def flush(self) -> None:
        """Nothing is held back."""
