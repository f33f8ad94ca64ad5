"""`aot-llava visualize`: draws what AOT keeps of a video, frame by frame.

The paths of what was written go to stdout and everything else to stderr, so `open $(aot-llava visualize)` shows it.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from hub_upload.whole_file import check_writable, write_whole

from .arguments import (
    Device,
    Dtype,
    Model,
    NumFrames,
    Revision,
    Video,
    check_device,
    check_source,
    name_of_video,
    read_share,
)
from .mini import MINI_CLIP, mini_unless_named
from .telling import say
from .video_look import looked_at, shown

# How a PNG file begins, and what a page has in its head.
_PNG = b"\x89PNG\r\n\x1a\n"
_GENERATOR = b'<meta name="generator" content="aot-llava visualize">'

# A picture of more is larger than a screen.
MANY_FRAMES = 16

_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="The picture to write, a PNG file; a picture that is there is replaced. By default the video's name with "
        ".aot.png, in the current folder.",
        show_default=False,
    ),
]
_Html = Annotated[
    bool,
    typer.Option(
        "--html",
        metavar="",
        help="Write a page to step through the frames as well: beside the picture, under its name with .html. "
        "It works offline and can be sent as it is.",
    ),
]
_RetentionRatio = Annotated[
    float | None,
    typer.Option(
        parser=read_share,
        metavar="SHARE",
        help="Share of the video tokens to keep, above 0 and below 1. By default the checkpoint's.",
        show_default=False,
    ),
]


def visualize(
    video: Video = None,
    output: _Output = None,
    html: _Html = False,
    model: Model = None,
    retention_ratio: _RetentionRatio = None,
    num_frames: NumFrames = None,
    device: Device = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Draw which tokens of a video the language model reads, and what the others are merged into."""
    check_source(video, model, revision)
    _check_retention_ratio(retention_ratio)
    picture_file = output or Path(f"{Path(name_of_video(video or str(MINI_CLIP))).stem}.aot.png")
    page_file = picture_file.with_suffix(".html") if html else None
    _check_output(picture_file, page_file, video)
    video, model = mini_unless_named(video, model, say)
    with looked_at(video) as file:
        say(f"Loading {model}")
        # Only now: torch takes seconds to import, and a typing error should be answered at once.
        from . import answer, hosts
        from .drawing import compressed_qwen_video, compressed_video
        from .drawing.contact_sheet import draw_contact_sheet
        from .drawing.html_page import make_page

        answer.silence_libraries()
        check_device(device, answer.find_device)
        # The video before the weights: a file that cannot be read need not wait for them.
        processor = answer.load_processor(model, retention_ratio, revision)
        say(f"Reading {shown(video)}")
        host = compressed_qwen_video if hosts.is_qwen_vl(processor) else compressed_video
        frames = host.read_frames(processor, file, num_frames)
    llava = answer.load_model(model, retention_ratio, revision, device, dtype)
    compressed = host.compress(llava, processor, video, frames)
    sheet = draw_contact_sheet(compressed)
    write_whole(picture_file, lambda file: sheet.save(file, "PNG", optimize=True))
    typer.echo(picture_file)
    if page_file is not None:
        page = make_page(compressed)
        write_whole(page_file, lambda file: file.write_text(page, encoding="utf-8"))
        typer.echo(page_file)
    if page_file is None and len(frames) > MANY_FRAMES:
        say(f"{len(frames)} frames make a large picture: --html also writes a page to step through them.")
    say(
        f"Video tokens {compressed.tokens_before} → {compressed.tokens_after} "
        f"({compressed.tokens_after / compressed.tokens_before:.1%})"
    )


def _check_retention_ratio(retention_ratio: float | None) -> None:
    if retention_ratio == 1:
        raise typer.BadParameter(
            "1 keeps every token, so there is nothing to show. Give a share below 1, such as 0.1 for 10 %.",
            param_hint="--retention-ratio",
        )


def _check_output(picture_file: Path, page_file: Path | None, video: str | None) -> None:
    if picture_file.suffix.lower() != ".png":
        raise typer.BadParameter(
            f"{picture_file} does not end in .png. Give the picture's name; --html writes the page beside it.",
            param_hint="--output",
        )
    wanted = [(picture_file, "PNG picture", lambda beginning: beginning.startswith(_PNG))]
    if page_file is not None:
        wanted.append((page_file, "page of `aot-llava visualize`", lambda beginning: _GENERATOR in beginning))
    for file, kind, is_of_kind in wanted:
        try:
            _check_is_not_read(file, video)
            check_writable(file, kind, is_of_kind)
        except OSError as error:
            raise typer.BadParameter(str(error), param_hint="--output") from None


def _check_is_not_read(file: Path, video: str | None) -> None:
    """A video may be a picture that moves, or a folder of pictures."""
    if video is None or not file.exists() or not os.path.exists(video):
        return
    if any(path.samefile(video) for path in (file, file.parent)):
        raise OSError(f"{file} is what the video is read from. Give another path.")
