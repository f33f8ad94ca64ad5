"""File contents, each stored once, in a folder, under its sha256."""

import hashlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

CHUNK = 1 << 20


class BlobStore:
    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, chunks: Iterable[bytes], expected_sha256: str | None = None) -> str | None:
        """Stores a stream and returns its sha256; keeps nothing of one whose hash is not the expected."""
        digest = hashlib.sha256()
        handle, name = tempfile.mkstemp(dir=self.folder)
        try:
            with open(handle, "wb") as file:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)
            if expected_sha256 in (None, digest.hexdigest()):
                os.replace(name, self.path(digest.hexdigest()))
                return digest.hexdigest()
            return None
        finally:
            Path(name).unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def size(self, sha256: str) -> int:
        return self.path(sha256).stat().st_size

    def read(self, sha256: str) -> bytes:
        return self.path(sha256).read_bytes()

    def damage(self, sha256: str) -> None:
        """Flips the first byte of a stored file, whose name goes on telling the old hash."""
        with open(self.path(sha256), "r+b") as file:
            first = file.read(1)
            file.seek(0)
            file.write(bytes([first[0] ^ 0xFF]))


def chunks_of(content: bytes | str | Path) -> Iterable[bytes]:
    """Bytes and text as they are, the file that a path names chunk by chunk."""
    if isinstance(content, Path):
        with open(content, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    else:
        yield content.encode() if isinstance(content, str) else content
