"""What the headers of a checkpoint's weights say: read in a few kilobytes a file, and held against the index."""

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import DamagedDownloadError, PushError, in_one_line
from .files import FileOnDisk, FileOnHub
from .hub import Hub
from .private_fields import check_holds_no_secret
from .safetensors_header import LENGTH, BadHeaderError, Header, Tensor, header_bytes, read_header
from .selection import INDEX

# Enough for the headers of most files in one request.
FIRST_READ = 8192


def read_headers(files: Sequence[FileOnDisk | FileOnHub], location: str, hub: Hub) -> dict[str, Header]:
    """Reads and checks the header of every file, by path.

    Raises:
        PushError: if one is damaged, or a name stands in two files.
    """
    headers = {file.path: _header_of(file, location, hub) for file in files}
    places: dict[str, str] = {}
    for path, header in headers.items():
        check_holds_no_secret(header_bytes(header.values), f"the header of {path} of {location}")
        for name in header.tensors:
            if name in places:
                raise PushError(
                    f"{location} has {in_one_line(name)} in two files, {places[name]} and {path}: save it again."
                )
            places[name] = path
    return headers


def check_index(index: Mapping[str, Any], headers: Mapping[str, Header], location: str) -> None:
    """Holds the index against what is in the files.

    Raises:
        PushError: if it names what is not there, or lacks what is.
    """
    weight_map = index["weight_map"]
    for path, header in headers.items():
        named = {name for name, shard in weight_map.items() if shard == path}
        for names, what in (
            (named - header.tensors.keys(), f"says that {path} has"),
            (header.tensors.keys() - named, f"does not say that {path} has"),
        ):
            if names:
                raise PushError(f"{INDEX} of {location} {what} {listed(names)}: download or save it again.")


def tensors_of(headers: Mapping[str, Header]) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name."""
    return {name: tensor for header in headers.values() for name, tensor in header.tensors.items()}


def listed(names: object) -> str:
    """Some names and how many there are, for a message."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - 3:,} more" if len(ordered) > 3 else ""
    return in_one_line(", ".join(ordered[:3])) + rest


def _header_of(file: FileOnDisk | FileOnHub, location: str, hub: Hub) -> Header:
    what = f"{file.path} of {location}"
    try:
        if isinstance(file, FileOnHub):
            return hub.call(f"Reading {file.path} of {file.repo_id}", _Remote(file, hub).read_header)
        with open(file.file, "rb") as opened:

            def read(first: int, count: int) -> bytes:
                opened.seek(first)
                return opened.read(count)

            return read_header(read, file.size)
    except BadHeaderError as error:
        raise PushError(f"{what} {error}.") from error
    except OSError as error:
        raise PushError(f"{what} cannot be read ({error.strerror}): check its permissions and the disk.") from error


class _Remote:
    """A file on the Hub, of which no more is asked for than a header takes."""

    def __init__(self, file: FileOnHub, hub: Hub):
        self._file = file
        self._hub = hub
        self._start = b""
        self._bad = b""

    def read_header(self) -> Header:
        """May be called again: what is bad and comes down twice is so on the Hub, and not damaged on its way."""
        self._start = b""
        try:
            return read_header(self._read, self._file.size)
        except BadHeaderError as error:
            if self._start == self._bad:
                raise PushError(f"{self._file.path} of {self._file.repo_id} {error}.") from error
            self._bad = self._start
            raise DamagedDownloadError(f"{self._file.path} arrived damaged: it {error}") from error

    def _read(self, first: int, count: int) -> bytes:
        stop = first + count
        if stop > len(self._start):
            wanted = min(max(stop, FIRST_READ if first < LENGTH else 0), self._file.size)
            self._start += self._hub.read_range(self._file, len(self._start), wanted)
        return self._start[first:stop]
