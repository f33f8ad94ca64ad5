"""Runs where a video is not decoded yet: what it may be given as, and how it becomes something that PyAV can open."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from .error_texts import shorten
from .video_download import download, name_of_address, too_large
from .video_limits import DEFAULT_LIMITS, VideoLimits

# The path of a file or of a folder of frame pictures; a file://, http(s):// or data: address; a file's content.
Source = str | os.PathLike | bytes | bytearray | io.BytesIO

PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class VideoFile(NamedTuple):
    """A file that can be opened: its path, an open file, or its content; and the name that messages call it by."""

    name: str
    content: str | BinaryIO | bytes

    @property
    def is_sharable(self) -> bool:
        """Whether it can be open several times at once."""
        return isinstance(self.content, (str, bytes)) or hasattr(os, "pread")

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes, from the first on.

        Raises:
            ValueError: the file system does not allow it.
        """
        if isinstance(self.content, str):
            try:
                file = open(self.content, "rb", buffering=0)  # noqa: SIM115
            except OSError as error:
                raise ValueError(f"{self.name} cannot be read ({error.strerror}): check the file.") from error
            with file:
                yield file
        elif isinstance(self.content, bytes):
            yield io.BytesIO(self.content)  # which shares them
        elif self.is_sharable:
            yield _View(self.content)
        else:
            self.content.seek(0)
            yield self.content


class _View:
    """What an open file holds, with a position of its own."""

    def __init__(self, file: BinaryIO):
        self._descriptor = file.fileno()
        self._position = 0

    def read(self, size: int) -> bytes:
        content = os.pread(self._descriptor, size, self._position)
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}
        origin = origins[whence] if whence in origins else os.fstat(self._descriptor).st_size
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        return self._position


def is_source(video: Any) -> bool:
    """Whether this is a video that is yet to be read, rather than decoded frames."""
    return isinstance(video, (str, os.PathLike, bytes, bytearray, io.BytesIO))


def name_of(source: Source) -> str:
    """What messages call a source: one line, however long the source."""
    if isinstance(source, (bytes, bytearray, io.BytesIO)):
        size = source.getbuffer().nbytes if isinstance(source, io.BytesIO) else len(source)
        return f"The video of {size:,} bytes in memory"
    name = os.fsdecode(source)
    scheme = _scheme(name)
    if scheme == "data":
        return f"{shorten(name[:100], 60)} ({len(name):,} characters)"
    return name_of_address(name) if scheme else shorten(name)


@contextmanager
def open_source(source: Source, limits: VideoLimits = DEFAULT_LIMITS) -> Iterator[VideoFile]:
    """A video file until the end of the context, which deletes what was downloaded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty or no valid address, it cannot be downloaded, or goes beyond a limit.
    """
    name = name_of(source)
    if not isinstance(source, (str, os.PathLike)):
        yield VideoFile(name, _in_memory(name, source, limits))
        return
    address = os.fsdecode(source)
    scheme = _scheme(address)
    if scheme == "data":
        yield VideoFile(name, _in_memory(name, _decode_data_address(name, address, limits), limits))
    elif scheme in ("http", "https"):
        with tempfile.TemporaryFile(prefix="aot-video-") as file:
            download(address, file, limits)
            yield VideoFile(name, file)
    else:
        yield VideoFile(name, _checked_path(name, local_path(source)))


def local_path(source: Source) -> str | None:
    """The path of a source that lies on this machine, also where it is a file:// address; else None.

    Raises:
        ValueError: the address is one of another machine.
    """
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = os.fsdecode(source)
    scheme = _scheme(path)
    if scheme == "file":
        address = urllib.parse.urlsplit(path)
        if address.netloc not in ("", "localhost"):
            raise ValueError(f"{name_of(source)} is a file of another machine: give a path or file:///PATH.")
        return urllib.request.url2pathname(address.path)
    return None if scheme else path


def pictures_in(folder: str) -> list[str]:
    """The frame pictures of a folder, sorted by name; numbers in names count by their value.

    Raises:
        ValueError: there is none.
    """
    names = [entry.name for entry in os.scandir(folder) if entry.is_file() and not entry.name.startswith(".")]
    pictures = [name for name in names if name.lower().endswith(PICTURE_SUFFIXES)]
    if not pictures:
        kinds = ", ".join(PICTURE_SUFFIXES)
        raise ValueError(
            f"{name_of(folder)} is a directory: give the path of one video file, or of a folder with the pictures of "
            f"its frames ({kinds})."
        )
    return [os.path.join(folder, name) for name in sorted(pictures, key=_natural_order)]


def _natural_order(name: str) -> tuple:
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], name


def _scheme(name: str) -> str | None:
    """The scheme of an address, None of a path; a path may have a colon in it, too."""
    found = re.match(r"(data):|(file|https?)://", name[:10], re.IGNORECASE)
    return found and (found[1] or found[2]).lower()


def _checked_path(name: str, path: str) -> str:
    if not os.path.exists(path):
        raise FileNotFoundError(f"{name} does not exist: check the path.")
    if os.path.getsize(path) == 0:
        raise ValueError(f"{name} is empty: copy or download it again.")
    return path


def _in_memory(name: str, source: bytes | bytearray | io.BytesIO, limits: VideoLimits) -> bytes:
    size = source.getbuffer().nbytes if isinstance(source, io.BytesIO) else len(source)
    if size == 0:
        raise ValueError(f"{name} is empty: give the content of a video file.")
    if size > limits.max_bytes:
        raise too_large(name, limits.max_bytes, "give the file")
    return source.getvalue() if isinstance(source, io.BytesIO) else bytes(source)


def _decode_data_address(name: str, address: str, limits: VideoLimits) -> bytes:
    header, comma, content = address.partition(",")
    if not comma:
        raise ValueError(f"{name} has no content: write data:video/mp4;base64,CONTENT.")
    if len(content) > 4 * limits.max_bytes:  # four letters bring three bytes at least, and each may be written as %XX
        raise too_large(name, limits.max_bytes, "give the file")
    if not header.lower().endswith(";base64"):
        return urllib.parse.unquote_to_bytes(content)
    try:
        return base64.b64decode("".join(urllib.parse.unquote(content).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} is not valid base64 ({reason}): encode the whole file anew.") from error
