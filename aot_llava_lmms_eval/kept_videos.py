"""Videos that have been encoded, kept for the next question about them: benchmarks ask several of each."""

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from aot_llava_baselines import BaselineGenerator
from aot_llava_baselines.interface import ReducedVideo
from modeling_aot_llava.encoded_video import EncodedVideo

# What AOT makes of a video, (n, D) with newlines; what another method makes of it; or an encoded video of Qwen-VL's.
Made = Tensor | ReducedVideo | EncodedVideo


@dataclass(frozen=True)
class KeptVideo:
    """What a prompt about a video needs instead of its frames.

    Attributes:
        made: on the CPU.
        num_placeholders: that the prompt has for it.
        sentence: that follows them: about the times of the frames, or none.
    """

    made: Made
    num_placeholders: int
    sentence: str

    @property
    def num_bytes(self) -> int:
        """Of its tensors."""
        return sum(tensor.nbytes for tensor in _tensors_of(self.made).values())


class KeptVideos:
    """Those of the last requests, by `key_of` their files; for two threads, of which one reads ahead.

    They are of one model, one method and one way to sample frames.
    """

    def __init__(self, max_bytes: int):
        """With 0 bytes there are never any."""
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._videos: OrderedDict[Hashable, KeptVideo] = OrderedDict()
        self._awaited: set[Hashable] = set()
        self._lock = threading.Lock()
        self.num_reused = 0

    @property
    def are_wanted(self) -> bool:
        """Whether there is room for any."""
        return self._max_bytes > 0

    def will_be_there(self, key: Hashable) -> bool:
        """Whether the video is there, or another request before has been told to bring it; else this one is."""
        with self._lock:
            if key in self._videos or key in self._awaited:
                return True
            self._awaited.add(key)
            return False

    def take(self, key: Hashable) -> KeptVideo | None:
        """The video; None if it did not come, or had to make room for others."""
        with self._lock:
            video = self._videos.get(key)
            if video is not None:
                self._videos.move_to_end(key)
                self.num_reused += 1
            return video

    def bring(self, key: Hashable, video: KeptVideo | None) -> None:
        """Keeps a video; None if there is none after all."""
        with self._lock:
            self._awaited.discard(key)
            if video is None or key in self._videos or video.num_bytes > self._max_bytes:
                return
            self._videos[key] = video
            self._num_bytes += video.num_bytes
            while self._num_bytes > self._max_bytes:
                _, oldest = self._videos.popitem(last=False)
                self._num_bytes -= oldest.num_bytes


def key_of(video: str) -> Hashable | None:
    """Path, time of the last change and size of a file, or of all files of a folder; None of an address."""
    try:
        path = os.path.realpath(video)
        if not os.path.isdir(path):
            return (path, *_state(os.stat(path)))
        with os.scandir(path) as entries:
            return (path, *sorted((entry.name, *_state(entry.stat())) for entry in entries))
    except (OSError, ValueError, TypeError):
        return None


def _state(of_file: os.stat_result) -> tuple[int, int]:
    return of_file.st_mtime_ns, of_file.st_size


class RecordingGenerator(BaselineGenerator):
    """Puts what it makes of videos into `made`, if that is a list, with the placeholders that it needs."""

    made: list[tuple[Made, int]] | None = None

    def answer(self, prompt: Tensor, video: ReducedVideo, num_placeholders: int, **options: Any) -> Tensor:
        """As the parent's."""
        if self.made is not None:
            self.made.append((video, num_placeholders))
        return super().answer(prompt, video, num_placeholders, **options)


@contextmanager
def recorded(model: nn.Module) -> Iterator[list[tuple[Made, int]]]:
    """What AOT makes of the videos of a call of `generate`, as its language model reads them first."""
    made: list[tuple[Made, int]] = []

    def record(_module: nn.Module, _args: Any, given: dict[str, Any]) -> None:
        video = (given.get("mm_encoder_outputs") or {}).get("video")
        if video is not None and not made:
            made.extend((tokens, len(tokens)) for tokens in video.pooler_output)

    handle = model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        yield made
    finally:
        handle.remove()


def moved(made: Tensor | ReducedVideo, device: torch.device | str) -> Made:
    """On another device; on the same a copy, which keeps nothing else alive."""
    tensors = {name: tensor.to(device, copy=True) for name, tensor in _tensors_of(made).items()}
    return tensors[""] if isinstance(made, Tensor) else replace(made, **tensors)


def _tensors_of(made: Made) -> dict[str, Tensor]:
    if isinstance(made, Tensor):
        return {"": made}
    if isinstance(made, EncodedVideo):
        return {name: getattr(made, name) for name in made.tensor_names}
    values = {field.name: getattr(made, field.name) for field in fields(made)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
