"""What the commands work on when nothing is named: a mini checkpoint, and a clip and a question made for it."""

from collections.abc import Callable
from pathlib import Path

MINI_CHECKPOINT = Path(__file__).with_name("mini_llava_onevision")
MINI_CLIP = Path(__file__).with_name("mini_clip.mp4")
MINI_QUESTION = "Which way does the cross move: left, right, up or down? Answer with one word."


def mini_unless_named(video: str | None, model: str | None, say: Callable[[str], None]) -> tuple[str, str]:
    """Video and model, with the mini ones for those that are None; `say` tells so."""
    if model is None:
        model = str(MINI_CHECKPOINT)
        say("Mini model: it knows coloured shapes that move, and nothing else. Name a real one with --model.")
    if video is None:
        video = str(MINI_CLIP)
        say(f"Mini clip: {video}. Name your own video as the argument.")
    return video, model
