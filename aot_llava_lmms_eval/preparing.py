"""From conversations to what the model reads: videos are read, prompts written, and both made into tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from transformers import BatchFeature
from transformers.image_utils import load_image

from modeling_aot_llava import AOTLlavaOnevisionProcessor

from .arguments import HarnessArguments
from .conversations import TEMPLATES, Conversation
from .frame_sampling import SAMPLINGS, Frames


@dataclass(frozen=True)
class Batch:
    """Conversations that the model answers together.

    Attributes:
        rows: which of the prepared conversations they are.
        inputs: of the processor, on the CPU.
    """

    rows: tuple[int, ...]
    inputs: BatchFeature


class Prepared(list[Conversation]):
    """The conversations themselves, and what the model reads of them.

    Attributes:
        batches: together they have each row that is answered by the model.
        said: by row, what is said instead where a video could not be read.
        errors: by row, why.
    """

    def __init__(
        self, conversations: Sequence[Conversation], batches: list[Batch], said: dict[int, str], errors: dict[int, str]
    ):
        super().__init__(conversations)
        self.batches, self.said, self.errors = batches, said, errors


@dataclass(frozen=True)
class _Prompt:
    """A conversation with its videos read."""

    text: str
    images: Sequence[Any]
    videos: Sequence[Frames]

    @property
    def shape(self) -> tuple[int, ...]:
        """Prompts of one shape fit into one batch."""
        return (len(self.images), *(len(frames) for frames, _ in self.videos))


class Preparer:
    """Prepares conversations; may run in a thread of its own, for which it keeps its processor to itself."""

    def __init__(self, processor: AOTLlavaOnevisionProcessor, harness: HarnessArguments):
        self._processor, self._harness = processor, harness

    def prepare(self, conversations: Sequence[Conversation]) -> Prepared:
        """Reads the videos, and puts together what fits into one batch.

        Raises:
            OSError, ValueError: if a video cannot be read and `unreadable_videos` is "stop"; or another visual.
        """
        prompts: dict[int, _Prompt] = {}
        said: dict[int, str] = {}
        errors: dict[int, str] = {}
        for row, conversation in enumerate(conversations):
            try:
                videos = [self._read(video) for video in conversation.videos]
            except (OSError, ValueError) as error:
                if self._harness.unreadable_videos == "stop":
                    raise
                errors[row] = str(error)
                if self._harness.unreadable_videos == "llava_vid":
                    said[row] = f"Video {', '.join(map(str, conversation.videos))} can not load, check the source"
                    continue
                conversation, videos = _without_videos(conversation), []
            prompts[row] = self._prompt(conversation, videos)
        batches = []
        for _, alike in groupby(
            sorted(prompts, key=lambda row: prompts[row].shape), key=lambda row: prompts[row].shape
        ):
            rows = tuple(alike)
            batches.append(Batch(rows, self._inputs([prompts[row] for row in rows])))
        return Prepared(conversations, batches, said, errors)

    def _read(self, video: str) -> Frames:
        return SAMPLINGS[self._harness.frame_sampling](video, self._harness.max_frames_num)

    def _prompt(self, conversation: Conversation, videos: Sequence[Frames]) -> _Prompt:
        text = TEMPLATES[self._harness.conv_template](self._processor, conversation)
        return _Prompt(text, [load_image(image) for image in conversation.images], videos)

    def _inputs(self, prompts: Sequence[_Prompt]) -> BatchFeature:
        images = [image for prompt in prompts for image in prompt.images]
        videos = [video for prompt in prompts for video in prompt.videos]
        of_videos: Mapping[str, Any] = {}
        if videos:
            frames, metadata = zip(*videos)
            of_videos = {"videos": list(frames), "video_metadata": list(metadata), "do_sample_frames": False}
        return self._processor(
            text=[prompt.text for prompt in prompts],
            images=images or None,
            padding=True,
            return_tensors="pt",
            **of_videos,
        )


def _without_videos(conversation: Conversation) -> Conversation:
    messages = [
        {**message, "content": [part for part in message["content"] if part["type"] != "video"]}
        for message in conversation.messages
    ]
    return replace(conversation, messages=messages, videos=[])
