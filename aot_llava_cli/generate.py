"""`aot-llava generate`: asks questions about a video and streams the answers.

An answer goes to stdout and everything else to stderr, so `… > answer.txt` keeps the answer.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import ModuleType
from typing import Annotated, Any

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
    is_encoded_file,
)
from .mini import MINI_QUESTION, mini_unless_named
from .telling import say
from .video_look import looked_at, shown

_Prompts = Annotated[
    list[str] | None,
    typer.Option(
        "--prompt",
        metavar="TEXT",
        help="What to ask about the video; several times for several questions, for which it is encoded once. By "
        "default for a description; the mini model is asked a question that it understands.",
        show_default=False,
    ),
]


def generate(
    video: Video = None,
    prompts: _Prompts = None,
    model: Model = None,
    retention_ratio: RetentionRatio = None,
    num_frames: NumFrames = None,
    max_new_tokens: MaxNewTokens = 64,
    device: Device = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Answer questions about a video from a fraction of its video tokens."""
    check_source(video, model, revision)
    first, *others = prompts or [MINI_QUESTION if model is None else "Describe the video."]
    video, model = mini_unless_named(video, model, say)
    is_encoded = is_encoded_file(video)
    # Of an encoded video the ratio cannot be another: then the call says so.
    options = {"num_frames": num_frames, "retention_ratio": retention_ratio if is_encoded else None}
    is_to_be_encoded = bool(others) and not is_encoded
    with nullcontext(video) if is_encoded else looked_at(video) as file:
        say(f"Question: {first}")
        say(f"Loading {model}")
        # Only now: torch takes seconds to import, and a typing error should be answered at once.
        from . import answer, hosts

        answer.silence_libraries()
        check_device(device, answer.find_device)
        processor = answer.load_processor(model, retention_ratio, revision)
        say(f"Reading {shown(video)}")
        if is_to_be_encoded:
            options["return_metadata"] = True  # which frames these are
        with ThreadPoolExecutor(1) as reader:  # reads while the weights load
            reading = reader.submit(answer.read_question, processor, file, first, **options)
            llava = answer.load_model(model, retention_ratio, revision, device, dtype)
            question = reading.result()
        encoded = hosts.load_encoded(processor, file) if is_encoded else None
    if is_to_be_encoded:
        encoded = llava.encode_video(**hosts.moved(question, llava))
        question = answer.read_question(processor, encoded, first)
    _answer(answer, llava, processor, question, max_new_tokens, encoded)
    for prompt in others:
        say(f"Question: {prompt}")
        question = answer.read_question(processor, encoded, prompt)
        _answer(answer, llava, processor, question, max_new_tokens, encoded)


def _answer(answer: ModuleType, model: Any, processor: Any, question: Any, max_new_tokens: int, encoded: Any) -> None:
    num_frames = None if encoded is None else encoded.num_frames
    result = answer.stream_answer(model, processor, question, max_new_tokens, num_frames)
    say(
        f"Video tokens {result.video_tokens_before} → {result.video_tokens_after} "
        f"({result.video_tokens_after / result.video_tokens_before:.1%}), "
        f"first token after {result.seconds_to_first_token:.2f} s"
    )
