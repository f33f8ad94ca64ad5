"""`aot-llava generate`: asks a question about a video and streams the answer.

The answer goes to stdout and everything else to stderr, so `… > answer.txt` keeps the answer.
"""

from pathlib import Path
from typing import Annotated

import typer

_Video = Annotated[
    Path | None,
    typer.Argument(help="A video file. By default a short clip that the program draws.", show_default=False),
]
_Model = Annotated[
    str | None,
    typer.Option(
        help="Hub ID or folder of a LLaVA-OneVision checkpoint, with AOT or stock. By default a "
        "small one with random weights that shows the program at work.",
        show_default=False,
    ),
]
_RetentionRatio = Annotated[
    float | None,
    typer.Option(
        help="Share of the video tokens to keep, above 0 up to 1. By default the checkpoint's.",
        show_default=False,
    ),
]
_NumFrames = Annotated[
    int | None,
    typer.Option(help="Frames to sample. By default the checkpoint's number.", show_default=False),
]


def generate(
    video: _Video = None,
    prompt: Annotated[str, typer.Option(help="What to ask about the video.")] = "Describe the video.",
    model: _Model = None,
    retention_ratio: _RetentionRatio = None,
    num_frames: _NumFrames = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer at most, in tokens.")] = 64,
) -> None:
    """Answer a question about a video from a fraction of its video tokens."""
    _check_video(video)
    _check_model(model)
    _check_numbers(retention_ratio, num_frames, max_new_tokens)

    # Only now: torch takes seconds to import, and a typing error should be answered at once.
    from . import answer
    from .demo_checkpoint import demo_checkpoint
    from .demo_clip import demo_clip

    answer.silence_libraries()
    if model is None:
        _say("Demo model: its weights are random, so the words below mean nothing. Name a real one with --model.")
        model = str(demo_checkpoint())
    if video is None:
        video = demo_clip()
        _say(f"Demo clip: {video}. Name your own video as the argument.")

    _say(f"Loading {model}")
    llava, processor = answer.load(model, retention_ratio)
    _say(f"Reading {video}")
    question = answer.read_question(processor, video, prompt, num_frames)
    result = answer.stream_answer(llava, processor, question, max_new_tokens)
    _say(
        f"Video tokens {result.video_tokens_before} → {result.video_tokens_after} "
        f"({result.video_tokens_after / result.video_tokens_before:.1%}), "
        f"first token after {result.seconds_to_first_token:.2f} s"
    )


def _check_video(video: Path | None) -> None:
    if video is not None and not video.is_file():
        what = "is a folder" if video.is_dir() else "does not exist"
        raise typer.BadParameter(
            f"{video} {what}. Give the path of a video file, or none for the demo clip.",
            param_hint="VIDEO",
        )


def _check_model(model: str | None) -> None:
    if model is None or _looks_like_hub_id(model):
        return
    if not (Path(model) / "config.json").is_file():
        what = "has no config.json" if Path(model).is_dir() else "does not exist"
        raise typer.BadParameter(
            f"the folder {model!r} {what}. Give the folder of a checkpoint, or a Hub ID like owner/name.",
            param_hint="--model",
        )


def _looks_like_hub_id(model: str) -> bool:
    """Whether this is owner/name rather than a folder; a folder that exists is always a folder."""
    owner, slash, name = model.partition("/")
    is_id = bool(slash and name) and "/" not in name and owner not in ("", ".", "..", "~")
    return is_id and not Path(model).exists()


def _check_numbers(retention_ratio: float | None, num_frames: int | None, max_new_tokens: int) -> None:
    if retention_ratio is not None and not 0 < retention_ratio <= 1:
        raise typer.BadParameter(
            f"{retention_ratio} is out of range. Give a share above 0 up to 1, such as 0.1 for 10 %.",
            param_hint="--retention-ratio",
        )
    for option, value in (("--num-frames", num_frames), ("--max-new-tokens", max_new_tokens)):
        if value is not None and value < 1:
            raise typer.BadParameter(f"{value} is too few. Give 1 or more.", param_hint=option)


def _say(text: str) -> None:
    typer.echo(text, err=True)
