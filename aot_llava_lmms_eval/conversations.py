"""From lmms-eval's requests to the text of a prompt, its pictures and its videos."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modeling_aot_llava.video_sources import PICTURE_SUFFIXES, name_of

Message = Mapping[str, Any]

# LLaVA's name for a picture or a video in a task's own text.
PLACEHOLDER = "<image>"
VISUALS = ("image", "video")
# How lmms-eval says that only a part of a video is meant.
LIMITS = ("start_time", "end_time", "video_start", "video_end")
SYSTEM_OF_QWEN = "You are a helpful assistant."


@dataclass(frozen=True)
class Conversation:
    """What a model is asked.

    Attributes:
        messages: as transformers' chat templates take them, `{"type": "video"}` and `{"type": "image"}` for visuals.
        images: pictures, or paths or addresses of them, in the order of the messages.
        videos: paths or addresses, likewise.
    """

    messages: Sequence[Message]
    images: Sequence[Any] = field(default_factory=list)
    videos: Sequence[str] = field(default_factory=list)


def of_context(context: str, visuals: Any) -> Conversation:
    """Of a text and what belongs to it: the visuals stand where the text says `<image>`, or before it.

    Args:
        visuals: a picture, the path or address of a picture or of a video, a sequence of these, or None.

    Raises:
        ValueError: if the text has another number of `<image>` than there are visuals, or only a part of a video is
            meant.
    """
    several = isinstance(visuals, Sequence) and not isinstance(visuals, str)
    visuals = [] if visuals is None else list(visuals) if several else [visuals]
    content = _around_visuals(context, [_named(visual) for visual in visuals])
    return of_messages([{"role": "user", "content": content}])


def _named(visual: Any) -> Message:
    if isinstance(visual, Mapping):
        place = visual.get("url") or visual.get("path")
        return {"type": "video", **visual, "url": place}
    is_video = isinstance(visual, str) and not visual.lower().endswith(PICTURE_SUFFIXES)
    return {"type": "video" if is_video else "image", "url": visual}


def _around_visuals(context: str, visuals: list[Message]) -> list[Message]:
    before, *texts = context.split(PLACEHOLDER)
    if not texts or not visuals:
        return [*visuals, {"type": "text", "text": context}]
    if len(texts) != len(visuals):
        raise ValueError(
            f"The task's text says {PLACEHOLDER} {len(texts)} times, but the task gives {len(visuals)} pictures and "
            "videos: mend the task."
        )
    interleaved = [{"type": "text", "text": before}]
    for visual, text in zip(visuals, texts):
        interleaved += [visual, {"type": "text", "text": text}]
    return [part for part in interleaved if part.get("text") != ""]


def of_messages(messages: Sequence[Message]) -> Conversation:
    """Of a chat request.

    Raises:
        ValueError: if there is something else in it than text, pictures and whole videos.
    """
    visuals: dict[str, list[Any]] = {kind: [] for kind in VISUALS}
    plain = []
    for message in messages:
        parts, content = message["content"], []
        for part in [{"type": "text", "text": parts}] if isinstance(parts, str) else parts:
            limits = {name: part[name] for name in LIMITS if part.get(name) is not None}
            if limits:
                raise ValueError(
                    f"The task asks about a part of {name_of(part['url'])} ({limits}), but videos are read whole: cut "
                    "it beforehand."
                )
            if part["type"] == "text":
                content.append({"type": "text", "text": part["text"]})
            elif part["type"] in VISUALS:
                visuals[part["type"]].append(part["url"])
                content.append({"type": part["type"]})
            else:
                raise ValueError(
                    f"The task has a message with {part['type']}, but the model reads text, pictures and videos."
                )
        plain.append({"role": message["role"], "content": content})
    return Conversation(plain, visuals["image"], visuals["video"])


def as_checkpoint(processor, conversation: Conversation) -> str:
    """The prompt that the checkpoint's own chat template writes."""
    return processor.apply_chat_template(list(conversation.messages), add_generation_prompt=True)


def as_qwen_1_5(processor, conversation: Conversation) -> str:
    """LLaVA-NeXT's conversation `qwen_1_5`, with which published numbers were got."""
    turns = [(message["role"], _in_one_text(processor, message["content"])) for message in conversation.messages]
    if turns[0][0] != "system":
        turns.insert(0, ("system", SYSTEM_OF_QWEN))
    written = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns)
    return f"{written}<|im_start|>assistant\n"


def _in_one_text(processor, content: Sequence[Message]) -> str:
    tokens = {"image": processor.image_token, "video": processor.video_token}
    visuals_first = content[: next((at for at, part in enumerate(content) if part["type"] == "text"), len(content))]
    rest = "".join(
        part["text"] if part["type"] == "text" else tokens[part["type"]] for part in content[len(visuals_first) :]
    )
    if not visuals_first:
        return rest
    return " ".join(tokens[part["type"]] for part in visuals_first) + "\n" + rest


TEMPLATES: dict[str, Callable[[Any, Conversation], str]] = {"checkpoint": as_checkpoint, "qwen_1_5": as_qwen_1_5}
