"""From conversations to what the model reads: videos are read, prompts written, and both made into tensors."""

import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from transformers import BatchFeature
from transformers.image_utils import load_image
from transformers.video_utils import VideoMetadata

from modeling_aot_llava import AOTLlavaOnevisionProcessor
from modeling_aot_llava.time_instruction import time_instruction

from .arguments import HarnessArguments
from .conversations import TEMPLATES, Conversation
from .frame_sampling import SAMPLINGS, Frames
from .kept_videos import KeptVideos, key_of


@dataclass(frozen=True)
class Batch:
    """Conversations that the model answers together.

    Attributes:
        rows: which of the prepared conversations they are.
        inputs: of the processor, on the CPU.
        keys: of the rows' videos, where what the model makes of them may be kept; else None.
        sentences: that follow the rows' videos in their prompts.
        texts: the rows' prompts, with a single placeholder for each video.
        metadata: of the videos, all rows' one after the other: which frames these are.
    """

    rows: tuple[int, ...]
    inputs: BatchFeature
    keys: tuple[Hashable | None, ...]
    sentences: tuple[str, ...]
    texts: tuple[str, ...]
    metadata: tuple[VideoMetadata, ...]


@dataclass(frozen=True)
class Reused:
    """A prompt about a video that has been encoded, or will be when it is its turn.

    Attributes:
        text: with a single placeholder.
    """

    key: Hashable
    text: str


@dataclass
class Prepared(Sequence[Conversation]):
    """The conversations themselves, and what the model reads of them.

    Attributes:
        batches: to be answered first.
        reused: by row, those without frames.
        said: by row, what is said instead where a video could not be read.
        errors: by row, why it could not; complete once all are answered.
    """

    conversations: Sequence[Conversation]
    batches: list[Batch] = field(default_factory=list)
    reused: dict[int, Reused] = field(default_factory=dict)
    said: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)

    def __getitem__(self, row):
        return self.conversations[row]

    def __len__(self):
        return len(self.conversations)


@dataclass(frozen=True)
class _Prompt:
    """A conversation with its videos read."""

    text: str
    images: Sequence[Any]
    videos: Sequence[Frames]
    key: Hashable | None

    @property
    def visuals(self) -> tuple[int, int]:
        """How many pictures and videos; prompts with as many fit into one batch, however long the videos are."""
        return len(self.images), len(self.videos)


class Preparer:
    """Prepares conversations for two threads, one after the other: its processor bears one at a time."""

    def __init__(self, processor: AOTLlavaOnevisionProcessor, harness: HarnessArguments, kept: KeptVideos):
        self._processor, self._harness, self._kept = processor, harness, kept
        self._lock = threading.Lock()

    def prepare(self, conversations: Sequence[Conversation], reuse: bool = True) -> Prepared:
        """Reads the videos that are not encoded yet, and puts together what fits into one batch.

        Args:
            reuse: whether a video need not be read that is encoded, or will be by a conversation before.

        Raises:
            OSError, ValueError: if a video cannot be read and `unreadable_videos` is "stop"; or another visual.
        """
        with self._lock:
            return self._prepare(conversations, reuse)

    def _prepare(self, conversations: Sequence[Conversation], reuse: bool) -> Prepared:
        prepared = Prepared(conversations)
        prompts: dict[int, _Prompt] = {}
        for row, conversation in enumerate(conversations):
            text = self._text(conversation)
            key = self._key(conversation, text)
            if reuse and key is not None and self._kept.will_be_there(key):
                prepared.reused[row] = Reused(key, text)
                continue
            try:
                videos = [self._read(video) for video in conversation.videos]
            except BaseException as error:
                self._kept.bring(key, None)
                if self._harness.unreadable_videos == "stop" or not isinstance(error, (OSError, ValueError)):
                    raise
                prepared.errors[row] = str(error)
                if self._harness.unreadable_videos == "llava_vid":
                    paths = ", ".join(map(str, conversation.videos))
                    prepared.said[row] = f"Video {paths} can not load, check the source"
                    continue
                conversation, videos, key = _without_videos(conversation), [], None
                text = self._text(conversation)
            prompts[row] = _Prompt(text, [load_image(image) for image in conversation.images], videos, key)
        by_visuals = sorted(prompts, key=lambda row: prompts[row].visuals)
        for _, alike in groupby(by_visuals, key=lambda row: prompts[row].visuals):
            rows = tuple(alike)
            prepared.batches.append(self._batch(rows, [prompts[row] for row in rows]))
        return prepared

    def _text(self, conversation: Conversation) -> str:
        return TEMPLATES[self._harness.conv_template](self._processor, conversation)

    def _key(self, conversation: Conversation, text: str) -> Hashable | None:
        """Of the one video of a conversation, if there is nothing else beside it."""
        if not self._kept.are_wanted:
            return None
        if len(conversation.videos) != 1 or conversation.images or text.count(self._processor.video_token) != 1:
            return None
        return key_of(conversation.videos[0])

    def _read(self, video: str) -> Frames:
        return SAMPLINGS[self._harness.frame_sampling](video, self._harness.max_frames_num)

    def _batch(self, rows: tuple[int, ...], prompts: Sequence[_Prompt]) -> Batch:
        images = [image for prompt in prompts for image in prompt.images]
        videos = [video for prompt in prompts for video in prompt.videos]
        of_videos: dict[str, Any] = {}
        if videos:
            frames, metadata = zip(*videos)
            of_videos = {"videos": list(frames), "video_metadata": list(metadata), "do_sample_frames": False}
            of_videos["return_metadata"] = True
        texts = [prompt.text for prompt in prompts]
        inputs = self._processor(
            text=texts,
            images=images or None,
            padding=True,
            return_tensors="pt",
            **of_videos,
        )
        keys, known = tuple(prompt.key for prompt in prompts), tuple(inputs.pop("video_metadata", ()))
        return Batch(rows, inputs, keys, tuple(map(self._sentence, prompts)), tuple(texts), known)

    def _sentence(self, prompt: _Prompt) -> str:
        if prompt.key is None or not self._harness.add_time_instruction:
            return ""
        ((_, metadata),) = prompt.videos
        return time_instruction(metadata)


def _without_videos(conversation: Conversation) -> Conversation:
    messages = [
        {**message, "content": [part for part in message["content"] if part["type"] != "video"]}
        for message in conversation.messages
    ]
    return replace(conversation, messages=messages, videos=[])
