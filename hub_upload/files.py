"""A file of the published repository: where it comes from, and what it is compared by."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy
from huggingface_hub.hf_api import RepoSibling

CHUNK = 1 << 20


@dataclass(frozen=True)
class GeneratedFile:
    """A small file that was made in memory."""

    path: str
    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Git's hash of the content."""
        return _git_hash(self.size, lambda update: update(self.content))

    def operation(self) -> CommitOperationAdd:
        return CommitOperationAdd(self.path, self.content)

    def place_in(self, folder: Path) -> None:
        target_in(folder, self.path).write_bytes(self.content)


@dataclass(frozen=True)
class FileOnDisk:
    """A file of a local base, or one that was downloaded. It is never read whole into memory."""

    path: str
    file: Path

    @classmethod
    def at(cls, path: str, file: str | Path) -> "FileOnDisk":
        """The caches of huggingface_hub hold links: what they point at is the file."""
        return cls(path, Path(file).resolve())

    @cached_property
    def size(self) -> int:
        return self.file.stat().st_size

    @cached_property
    def sha256(self) -> str:
        digest = hashlib.sha256()
        self._read_into(digest.update)
        return digest.hexdigest()

    @cached_property
    def blob_id(self) -> str:
        """Git's hash of the content."""
        return _git_hash(self.size, self._read_into)

    def operation(self) -> CommitOperationAdd:
        operation = CommitOperationAdd(self.path, self.file)
        # Told what we know, huggingface_hub does not read a large file just to hash it again.
        operation.upload_info.sha256 = bytes.fromhex(self.sha256)
        return operation

    def read(self, limit: int) -> bytes:
        """The content of a small file, up to so many bytes."""
        with open(self.file, "rb") as file:
            return file.read(limit)

    def _read_into(self, update: Callable[[bytes], Any]) -> None:
        with open(self.file, "rb") as file:
            while chunk := file.read(CHUNK):
                update(chunk)


@dataclass(frozen=True)
class FileOnHub:
    """A file of a repository on the Hub at one commit; `sha256` is known of large files alone."""

    path: str
    size: int
    sha256: str | None
    blob_id: str | None
    repo_id: str
    revision: str

    @classmethod
    def from_sibling(cls, sibling: RepoSibling, repo_id: str, revision: str) -> "FileOnHub":
        sha256 = sibling.lfs.sha256 if sibling.lfs else None
        return cls(sibling.rfilename, sibling.size or 0, sha256, sibling.blob_id, repo_id, revision)

    @property
    def is_large(self) -> bool:
        """Whether it is kept in LFS, and so can be copied on the Hub."""
        return self.sha256 is not None

    def is_same_as(self, other: "File") -> bool:
        """Compares contents by hash. Of two files on the Hub, one large and one not, it cannot tell: False."""
        if self.size != other.size:
            return False
        if self.is_large:
            return self.sha256 == other.sha256
        is_comparable = not (isinstance(other, FileOnHub) and other.is_large)
        return is_comparable and self.blob_id == other.blob_id

    def operation(self, path: str, is_from_elsewhere: bool) -> CommitOperationCopy:
        """Copies the file on the Hub, from another repository or from another branch of the same one."""
        source = {"src_repo_id": self.repo_id, "src_repo_type": "model"} if is_from_elsewhere else {}
        return CommitOperationCopy(self.path, path, src_revision=self.revision, **source)


File = GeneratedFile | FileOnDisk | FileOnHub


def readable_size(num_bytes: int) -> str:
    """Like `4.9 GB`, in the Hub's powers of 1000."""
    size, units = float(num_bytes), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while size >= 999.5 and unit != "TB":
        size, unit = size / 1000, next(units)
    return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"


def as_json(values: dict[str, Any]) -> bytes:
    """As transformers writes it."""
    return (json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def target_in(folder: Path, path: str) -> Path:
    """Where a file of this path lies in a folder, whose folders are made for it."""
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _git_hash(size: int, read_into: Callable[[Callable[[bytes], Any]], Any]) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size)
    read_into(digest.update)
    return digest.hexdigest()
