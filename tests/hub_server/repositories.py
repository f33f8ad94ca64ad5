"""A repository: branches that point at commits, and commits that name files by their hashes."""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone

from . import errors

DEFAULT_BRANCH = "main"


@dataclass(frozen=True)
class File:
    """One version of a file; `blob_id` is git's hash, of the pointer if the file is in LFS."""

    sha256: str
    size: int
    blob_id: str
    is_lfs: bool
    xet_hash: str | None = None

    @property
    def oid(self) -> str:
        """The hash by which huggingface_hub knows that a file need not be committed again."""
        return self.sha256 if self.is_lfs else self.blob_id


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: datetime
    files: dict[str, File]


@dataclass
class Repository:
    id: str
    private: bool = False
    gated: bool | str = False
    region: str = "us"
    readers: frozenset[str] = frozenset()
    is_on_xet: bool = True
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Commit] = field(default_factory=dict)
    lfs_objects: set[str] = field(default_factory=set)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def head(self, branch: str) -> Commit:
        if branch not in self.branches:
            raise errors.revision_not_found(branch)
        return self.commits[self.branches[branch]]

    def commit_at(self, revision: str) -> Commit:
        """The commit of a branch or the one with that hash."""
        return self.commits[revision] if revision in self.commits else self.head(revision)

    def history(self, revision: str) -> list[Commit]:
        """The commits that lead to a revision, newest first."""
        commits = [self.commit_at(revision)]
        while commits[-1].parent:
            commits.append(self.commits[commits[-1].parent])
        return commits

    def add_commit(self, branch: str, files: dict[str, File], title: str, author: str, message: str = "") -> Commit:
        parent = self.branches.get(branch)
        identity = (self.id, parent, len(self.commits), title, message, sorted(files.items()))
        commit = Commit(
            hashlib.sha1(repr(identity).encode()).hexdigest(),
            parent,
            title,
            message,
            author,
            datetime.now(timezone.utc),
            dict(files),
        )
        self.commits[commit.id] = commit
        self.branches[branch] = commit.id
        return commit

    def squash(self, branch: str, title: str, author: str) -> Commit:
        """Leaves a branch one commit without a parent; what no other branch leads to is gone."""
        files = dict(self.head(branch).files)
        del self.branches[branch]
        kept = {commit.id for other in self.branches for commit in self.history(other)}
        self.commits = {name: commit for name, commit in self.commits.items() if name in kept}
        return self.add_commit(branch, files, title, author)

    def file_of(self, sha256: str, size: int, is_lfs: bool, content: bytes = b"") -> File:
        if not is_lfs:
            return File(sha256, size, git_blob_id(content), is_lfs)
        xet_hash = hashlib.sha256(b"xet" + sha256.encode()).hexdigest() if self.is_on_xet else None
        return File(sha256, size, git_blob_id(lfs_pointer(sha256, size)), is_lfs, xet_hash)


def git_blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lfs_pointer(sha256: str, size: int) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def is_valid_path(path: str) -> bool:
    parts = path.split("/")
    return all(parts) and not {".", "..", ".git"} & set(parts) and re.search(r"[\x00-\x1f\\]", path) is None
