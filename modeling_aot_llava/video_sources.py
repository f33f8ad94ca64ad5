"""What a video may be given as, and how it becomes something that PyAV can open."""

from __future__ import annotations

import base64
import binascii
import http.client
import io
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

from .error_texts import shorten

# The path of a file or of a folder of frame pictures; a file://, http(s):// or data: address; a file's content.
Source = str | os.PathLike | bytes | bytearray | io.BytesIO

LARGEST_DOWNLOAD = 4 * 2**30  # bytes
PICTURE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_CHUNK = 2**20
_SECONDS_WITHOUT_ANSWER = 30
_DOWNLOAD_REMEDIES = {
    401: "it needs a login: download it yourself and give the file",
    403: "the server does not allow it: download it yourself and give the file",
    404: "check the address",
    410: "the video is gone, give another address",
    429: "the server wants fewer requests: wait a while",
}


class VideoFile(NamedTuple):
    """A file that PyAV can open: its path, or an open file; and the name that messages call it by."""

    name: str
    content: str | BinaryIO

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes, from the first on."""
        if isinstance(self.content, str):
            with open(self.content, "rb") as file:
                yield file
        else:
            self.content.seek(0)
            yield self.content


def is_source(video: Any) -> bool:
    """Whether this is a video that is yet to be read, rather than decoded frames."""
    return isinstance(video, (str, os.PathLike, bytes, bytearray, io.BytesIO))


def name_of(source: Source) -> str:
    """What messages call a source: one line, however long the source."""
    if isinstance(source, (bytes, bytearray, io.BytesIO)):
        size = source.getbuffer().nbytes if isinstance(source, io.BytesIO) else len(source)
        return f"The video of {size:,} bytes in memory"
    name = os.fsdecode(source)
    if _scheme(name) == "data":
        return f"{shorten(name, 60)} ({len(name):,} characters)"
    return shorten(name)


@contextmanager
def open_source(source: Source) -> Iterator[VideoFile]:
    """A video file until the end of the context, which deletes what was downloaded.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is empty or no valid address, or it cannot be downloaded, as what is larger than
            `LARGEST_DOWNLOAD`.
    """
    name = name_of(source)
    if not isinstance(source, (str, os.PathLike)):
        yield VideoFile(name, _in_memory(name, source.getvalue() if isinstance(source, io.BytesIO) else source))
        return
    scheme = _scheme(os.fsdecode(source))
    if scheme == "data":
        yield VideoFile(name, _in_memory(name, _decode_data_address(name, source)))
    elif scheme in ("http", "https"):
        with tempfile.TemporaryFile(prefix="aot-video-") as file:
            _download(source, name, file)
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


def _in_memory(name: str, content: bytes) -> io.BytesIO:
    if len(content) == 0:
        raise ValueError(f"{name} is empty: give the content of a video file.")
    return io.BytesIO(content)


def _decode_data_address(name: str, address: str) -> bytes:
    header, comma, content = address.partition(",")
    if not comma:
        raise ValueError(f"{name} has no content: write data:video/mp4;base64,CONTENT.")
    if not header.lower().endswith(";base64"):
        return urllib.parse.unquote_to_bytes(content)
    try:
        return base64.b64decode("".join(urllib.parse.unquote(content).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} is not valid base64 ({reason}): encode the whole file anew.") from error


def _download(address: str, name: str, file: BinaryIO) -> None:
    """Fills the file with what is at the address, following redirects."""
    received = 0
    with _answer_of(address, name) as answer:
        promised = int(answer.headers.get("Content-Length") or 0)
        while max(promised, received) <= LARGEST_DOWNLOAD and (chunk := answer.read(_CHUNK)):
            file.write(chunk)
            received += len(chunk)
    if max(promised, received) > LARGEST_DOWNLOAD:
        limit = f"{LARGEST_DOWNLOAD / 2**30:g} GiB"
        raise ValueError(f"{name} is larger than {limit}, the most that is downloaded: download it and give the file.")
    if received < promised:
        raise ValueError(f"{name} broke off after {received:,} of {promised:,} bytes: try again.")
    if received == 0:
        raise ValueError(f"{name} is empty: check the address.")


@contextmanager
def _answer_of(address: str, name: str) -> Iterator[Any]:
    request = urllib.request.Request(address, headers={"User-Agent": "aot-llava"})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS_WITHOUT_ANSWER) as answer:
            yield answer
    except urllib.error.HTTPError as error:
        error.close()
        remedy = _DOWNLOAD_REMEDIES.get(error.code, "try again later, or give the file")
        raise ValueError(f"{name} cannot be downloaded (HTTP {error.code} {error.reason}): {remedy}.") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise ValueError(f"{name} cannot be downloaded ({reason}): check the address and the network.") from error
