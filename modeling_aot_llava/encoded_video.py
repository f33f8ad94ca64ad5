"""A video as the language model reads it, made once and asked often; also as a file."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from transformers.video_utils import VideoMetadata

from .error_texts import shorten, show
from .plain_numbers import is_integer, is_number

# By this ending the processor knows that a path is no video's.
SUFFIX = ".safetensors"
# Whose videos the files of each format hold.
_MAKERS = {
    "aot-encoded-video-1": "LLaVA-OneVision or LLaVA-Video",
    "aot-encoded-video-qwen-vl-1": "the Qwen-VL family",
}


class EncodedVideo:
    """The tokens of one video, what they were made of, and what made them.

    It is what `model.encode_video` returns, and it stands wherever the processor takes a video.

    A subclass is another kind of model's: with a format, and perhaps with tensors, of its own.

    Attributes:
        tokens: (n, D), with the newline tokens.
        num_frames: F, how many frames they were made of.
        retention_ratio: the share of the video tokens that was asked for; 1 for all.
        config: the fields of the model's config that decide what the tokens are.
        fingerprint: of the weights that made them: vision tower, projector, `image_newline`.
        frame_indices: which frames of the source, F integers from 0; None where unknown.
        fps: the source's frame rate in 1/s; None where unknown.
        total_num_frames: frames of the source; None where unknown.
        source: a name for it, such as the path of its file; nothing is read from there.
    """

    format = "aot-encoded-video-1"
    tensor_names: tuple[str, ...] = ("tokens",)

    # No dataclass: transformers takes those in conversations apart.
    def __init__(
        self,
        tokens: Tensor,
        num_frames: int,
        retention_ratio: float,
        config: dict[str, Any],
        fingerprint: str,
        frame_indices: Sequence[int] | None = None,
        fps: float | None = None,
        total_num_frames: int | None = None,
        source: str | None = None,
    ):
        self.tokens = tokens
        self.num_frames = num_frames
        self.retention_ratio = retention_ratio
        self.config = config
        self.fingerprint = fingerprint
        self.frame_indices = tuple(frame_indices) if isinstance(frame_indices, (list, tuple)) else frame_indices
        self.fps = fps
        self.total_num_frames = total_num_frames
        self.source = source

    def __repr__(self) -> str:
        facts = ", ".join(
            f"{name}={show(getattr(self, name))}" for name in ("source", "num_frames", "retention_ratio")
        )
        return f"{type(self).__name__}({len(self.tokens)} tokens, {facts})"

    @property
    def frame_times(self) -> tuple[float, ...] | None:
        """When the frames are shown, F numbers in s; None where unknown."""
        if self.frame_indices is None or not self.fps:
            return None
        return tuple(index / self.fps for index in self.frame_indices)

    @property
    def metadata(self) -> VideoMetadata:
        """What is known of the source, as the processor returns it of a video."""
        return VideoMetadata(
            total_num_frames=self.num_frames if self.total_num_frames is None else self.total_num_frames,
            fps=self.fps,
            frames_indices=None if self.frame_indices is None else list(self.frame_indices),
        )

    def to(self, *args: Any, **kwargs: Any) -> EncodedVideo:
        """The same on another device or with another floating dtype; arguments as of `torch.Tensor.to`."""
        tokens = self.tokens.to(*args, **kwargs)
        if not tokens.is_floating_point():
            raise ValueError(f"The tokens of a video cannot be {tokens.dtype}: give a floating dtype.")
        return type(self)(**{**vars(self), "tokens": tokens})

    def save(self, path: str | os.PathLike) -> None:
        """Writes one safetensors file, whole or not at all.

        A file of an encoded video that stands there is replaced, and nothing else is.

        Args:
            path: must end in `.safetensors`; `clip.aot.safetensors` tells best what it is.

        Raises:
            ValueError: if the path ends otherwise, or something else stands there.
            FileNotFoundError: if there is no such folder.
        """
        from safetensors.torch import save_file

        path = os.fspath(path)
        if not path.lower().endswith(SUFFIX):
            raise ValueError(f"{shorten(path)} does not end in {SUFFIX}: name the file like clip.aot{SUFFIX}.")
        folder, name = os.path.split(path)
        if not os.path.isdir(folder or "."):
            raise FileNotFoundError(f"The folder {shorten(folder)} does not exist: make it first.")
        written = os.path.join(folder, f".{name[:100]}.{uuid.uuid4().hex}.tmp")
        try:
            # For whom new files are: safetensors would make it the owner's alone.
            with open(written, "xb") as file:
                mode = os.fstat(file.fileno()).st_mode
            tensors = {name: getattr(self, name).detach().cpu().contiguous() for name in self.tensor_names}
            save_file(tensors, written, metadata={"format": self.format, "video": json.dumps(self._facts())})
            os.chmod(written, stat.S_IMODE(mode))
            _check_may_be_replaced(path)
            os.replace(written, path)
        finally:
            if os.path.exists(written):
                os.remove(written)

    @classmethod
    def load(cls, path: str | os.PathLike) -> EncodedVideo:
        """Reads what `save` wrote; the tokens are on the CPU.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is cut short, damaged, no safetensors file, one of something else, or of another kind of
                model.
        """
        path = os.fspath(path)
        if not os.path.exists(path):
            raise FileNotFoundError(f"{shorten(path)} does not exist: check the path.")
        found, facts = _read_header(path)
        if found != cls.format:
            raise ValueError(f"{shorten(path)} {reason_of_kind(found, cls.format)}")
        tensors = _read_tensors(path, cls.tensor_names)
        try:
            video = cls(**tensors, **facts)
        except TypeError:
            raise _not_ours(path, "its header names other things than this version knows") from None
        reason = video.find_fault()
        if reason:
            raise _not_ours(path, reason)
        return video

    def find_fault(self) -> str | None:
        """What cannot be of a value that a stranger has put together; None if all can be."""
        if self.tokens.ndim != 2 or not len(self.tokens) or not self.tokens.is_floating_point():
            return f"its tokens are {self.tokens.dtype} of the shape {tuple(self.tokens.shape)}"
        if not is_integer(self.num_frames) or self.num_frames < 1:
            return f"its number of frames is {show(self.num_frames)}"
        if not is_number(self.retention_ratio) or not 0 < self.retention_ratio <= 1:
            return f"its retention ratio is {show(self.retention_ratio)}"
        if not isinstance(self.config, dict) or not isinstance(self.fingerprint, str):
            return "it does not tell which model made it"
        if self.source is not None and not isinstance(self.source, str):
            return f"its source is {show(self.source)}"
        if self.fps is not None and not (is_number(self.fps) and 0 < self.fps < float("inf")):
            return f"its frame rate is {show(self.fps)}"
        return self._find_fault_of_frames()

    def _find_fault_of_frames(self) -> str | None:
        if self.total_num_frames is not None and not is_integer(self.total_num_frames):
            return f"the number of its source's frames is {show(self.total_num_frames)}"
        indices = self.frame_indices
        if indices is not None and not (
            isinstance(indices, tuple) and len(indices) == self.num_frames and all(map(is_integer, indices))
        ):
            return f"its frame indices are {show(indices)}, but it has {self.num_frames} frames"
        return None

    def _facts(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in self.tensor_names}


def is_encoded_video(video: Any) -> bool:
    """Whether this is an encoded video; also one of another copy of this code, as a folder of the Hub brings it."""
    return any(kind.__name__ == EncodedVideo.__name__ for kind in type(video).__mro__)


def reason_of_kind(found: str, expected: str) -> str:
    """Why a video of one format cannot stand where another is expected, and what to do: the end of a sentence."""
    made_by, taken = _MAKERS.get(found, found), _MAKERS[expected]
    return f"is an encoded video of {made_by}, but here one of {taken} is needed: encode the video with such a model."


def _read_tensors(path: str, names: Sequence[str]) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            if set(file.keys()) != set(names):
                raise _not_ours(path, "it holds something else")
            return {name: file.get_tensor(name).clone() for name in names}  # which need the file no more
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _read_header(path: str) -> tuple[str, dict[str, Any]]:
    """Its format, and what it tells of the video; raises `ValueError` where it is not of an encoded video."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None
    if metadata.get("format") not in _MAKERS or "tokens" not in names:
        raise _not_ours(path, "it holds something else")
    try:
        facts = json.loads(metadata["video"])
    except (KeyError, ValueError, RecursionError):
        raise _not_ours(path, "its header cannot be read") from None
    if not isinstance(facts, dict):
        raise _not_ours(path, "its header cannot be read")
    return metadata["format"], facts


def _check_may_be_replaced(path: str) -> None:
    if not os.path.lexists(path):
        return
    try:
        _read_header(path)
    except ValueError as error:
        raise ValueError(
            f"{shorten(path)} is there already and is no encoded video, so it is left alone: give another name."
        ) from error


def _damaged(path: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(
        f"{shorten(path)} is cut short, damaged or no safetensors file ({shorten(reason)}): encode the video again."
    )


def _not_ours(path: str, reason: str) -> ValueError:
    return ValueError(
        f"{shorten(path)} is a safetensors file, but not one of an encoded video that can be read here, for {reason}: "
        "make it with `model.encode_video(...).save(path)` or `aot-llava encode`."
    )
