"""`aot-llava chat`: questions about a video, typed one after another, and streamed answers.

Answers go to stdout and everything else to stderr.
"""

from typing import Any

import typer

from .arguments import (
    Device,
    Dtype,
    MaxNewTokens,
    Model,
    NumFrames,
    RetentionRatio,
    Revision,
    Video,
    check_device,
    check_source,
    check_video,
    is_encoded_file,
    read_share,
)
from .mini import mini_unless_named
from .telling import say
from .video_look import looked_at, shown

_HELP = "Ask about the video. /video CLIP takes another, /ratio SHARE keeps another share of its tokens, /quit ends."


def chat(
    video: Video = None,
    model: Model = None,
    retention_ratio: RetentionRatio = None,
    num_frames: NumFrames = None,
    max_new_tokens: MaxNewTokens = 256,
    device: Device = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Ask questions about a video, one after another; it is encoded once."""
    check_source(video, model, revision)
    video, model = mini_unless_named(video, model, say)
    say(f"Loading {model}")
    from . import answer, conversation

    answer.silence_libraries()
    check_device(device, answer.find_device)
    processor = answer.load_processor(model, retention_ratio, revision)
    llava = answer.load_model(model, retention_ratio, revision, device, dtype)
    talk = conversation.Conversation(llava, processor, max_new_tokens, num_frames)
    _take_video(talk, video, retention_ratio)
    say(_HELP)
    while True:
        try:
            say("> ", end="")
            line = input().strip()
        except EOFError:
            return
        if line == "/quit":
            return
        try:
            _follow(talk, line)
        except (ValueError, OSError, typer.BadParameter) as error:
            say(" ".join(str(error).split()))
        except KeyboardInterrupt:  # ends an answer, not the conversation
            talk.begin_anew()
            say("\nStopped. The video stays; the questions before are forgotten.")


def _follow(talk: Any, line: str) -> None:
    command, _, argument = line.partition(" ")
    if not line:
        return
    if command == "/video" and argument.strip():
        _take_video(talk, argument.strip(), None)
    elif command == "/ratio" and argument.strip():
        _take_video(talk, talk.video, read_share(argument.strip()))
    elif line.startswith("/"):
        say(_HELP)
    else:
        talk.ask(line)


def _take_video(talk: Any, video: str, retention_ratio: float | None) -> None:
    """Encodes a video, and begins anew with it; if it cannot be read, everything stays as it was."""
    check_video(video)
    say(f"Reading {shown(video)}")
    if is_encoded_file(video):
        talk.take(video, video, retention_ratio)
    else:
        with looked_at(video) as file:
            talk.take(video, file, retention_ratio)
    say(f"Video tokens {talk.num_tokens}")
