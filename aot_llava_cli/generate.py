"""`aot-llava generate`: asks a question about a video and streams the answer.

The answer goes to stdout and everything else to stderr, so `… > answer.txt` keeps the answer.
"""

from typing import Annotated

import typer

from .arguments import (
    Device,
    Dtype,
    Model,
    NumFrames,
    Revision,
    Video,
    check_device,
    check_model,
    check_revision,
    check_video,
    read_count,
    read_share,
)
from .mini import MINI_QUESTION, mini_unless_named
from .video_look import looked_at, shown

_Prompt = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What to ask about the video. By default for a description; the mini model is asked a question that it "
        "understands.",
        show_default=False,
    ),
]
_MaxNewTokens = Annotated[
    int, typer.Option(parser=read_count, metavar="N", help="Length of the answer at most, in tokens.")
]
_RetentionRatio = Annotated[
    float | None,
    typer.Option(
        parser=read_share,
        metavar="SHARE",
        help="Share of the video tokens to keep, above 0 up to 1. By default the checkpoint's.",
        show_default=False,
    ),
]


def generate(
    video: Video = None,
    prompt: _Prompt = None,
    model: Model = None,
    retention_ratio: _RetentionRatio = None,
    num_frames: NumFrames = None,
    max_new_tokens: _MaxNewTokens = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Answer a question about a video from a fraction of its video tokens."""
    check_video(video)
    check_model(model)
    check_revision(revision, model)
    if prompt is None:
        prompt = MINI_QUESTION if model is None else "Describe the video."
    video, model = mini_unless_named(video, model, _say)
    with looked_at(video) as file:
        _say(f"Question: {prompt}")
        _say(f"Loading {model}")
        # Only now: torch takes seconds to import, and a typing error should be answered at once.
        from . import answer

        answer.silence_libraries()
        check_device(device, answer.find_device)
        # The video before the weights: a file that cannot be read need not wait for them.
        processor = answer.load_processor(model, retention_ratio, revision)
        _say(f"Reading {shown(video)}")
        question = answer.read_question(processor, file, prompt, num_frames)
    llava = answer.load_model(model, retention_ratio, revision, device, dtype)
    result = answer.stream_answer(llava, processor, question, max_new_tokens)
    _say(
        f"Video tokens {result.video_tokens_before} → {result.video_tokens_after} "
        f"({result.video_tokens_after / result.video_tokens_before:.1%}), "
        f"first token after {result.seconds_to_first_token:.2f} s"
    )


def _say(text: str) -> None:
    typer.echo(text, err=True)
