"""The state of the Hub and who may see and change what; knows nothing of HTTP."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import errors, upload_rules
from .accounts import Account, Accounts
from .repositories import DEFAULT_BRANCH, Commit, File, Repository
from .storage import BlobStore, chunks_of


@dataclass
class Settings:
    region: str = "us"  # of repositories that clients create
    page_size: int = 1000  # entries of one answer that lists a tree
    multipart_above: int = 64 * 1024 * 1024  # larger files are uploaded in parts
    part_size: int = 16 * 1024 * 1024


@dataclass
class MultipartUpload:
    repository: Repository
    sha256: str
    num_parts: int
    parts: dict[int, str] = field(default_factory=dict)  # number: sha256, which is the part's ETag too


class Hub:
    def __init__(self, folder: Path, endpoint: str, storage_endpoint: str, settings: Settings):
        self.endpoint = endpoint
        self.storage_endpoint = storage_endpoint
        self.settings = settings
        self.accounts = Accounts()
        self.store = BlobStore(folder / "blobs")
        self.parts = BlobStore(folder / "parts")
        self.repositories: dict[str, Repository] = {}
        self.multipart_uploads: dict[str, MultipartUpload] = {}
        self.lock = threading.RLock()
        self._secret = secrets.token_bytes()

    # Rights

    def visible(self, repo_id: str, account: Account | None) -> Repository:
        """A repository whose names and hashes the caller may see."""
        repository = self.repositories.get(repo_id)
        if repository is None or (repository.private and not self._may_read(repository, account)):
            raise errors.repo_not_found(account is not None)
        return repository

    def readable(self, repo_id: str, account: Account | None) -> Repository:
        """A repository whose contents the caller may read."""
        repository = self.visible(repo_id, account)
        if repository.gated and not self._may_read(repository, account):
            raise errors.gated_repo(repo_id, f"{self.endpoint}/{repo_id}", account is not None)
        return repository

    def writable(self, repo_id: str, account: Account | None) -> Repository:
        if account is None:
            raise errors.login_required()
        repository = self.visible(repo_id, account)
        if account.role != "write":
            raise errors.write_token_required()
        if not self.accounts.belongs_to(account, repository.namespace):
            raise errors.forbidden()
        return repository

    def _may_read(self, repository: Repository, account: Account | None) -> bool:
        if account is None:
            return False
        return account.user in repository.readers or self.accounts.belongs_to(account, repository.namespace)

    def sign(self, address: str) -> str:
        """What an address of the storage must carry, as the storage asks for no token."""
        return hmac.new(self._secret, address.encode(), hashlib.sha256).hexdigest()[:32]

    # Repositories

    def create(self, repo_id: str, author: str, **properties) -> Repository:
        """A new repository; it has one commit with a .gitattributes, as all on the Hub do."""
        repository = Repository(repo_id, **properties)
        attributes = self.add_file(repository, ".gitattributes", upload_rules.GIT_ATTRIBUTES)
        repository.add_commit(DEFAULT_BRANCH, {".gitattributes": attributes}, "initial commit", author)
        self.repositories[repo_id] = repository
        return repository

    def add_files(
        self,
        repository: Repository,
        branch: str,
        files: Mapping[str, bytes | str | Path],
        title: str,
        deleted: Iterable[str] = (),
    ) -> Commit:
        with self.lock:
            contents = dict(repository.head(branch).files)
            attributes = self.text_of(contents, ".gitattributes")
            contents.update({path: self.add_file(repository, path, file, attributes) for path, file in files.items()})
            for path in deleted:
                del contents[path]
            return repository.add_commit(branch, contents, title, repository.namespace)

    def add_file(self, repository: Repository, path: str, content: bytes | str | Path, attributes: str = "") -> File:
        """Stores a file without HTTP, as the Hub would store it."""
        sha256 = self.store.add(chunks_of(content))
        size = self.store.size(sha256)
        with open(self.store.path(sha256), "rb") as file:
            is_lfs = size > 0 and upload_rules.is_for_lfs(path, size, file.read(512), attributes)
        if is_lfs:
            repository.lfs_objects.add(sha256)
            return repository.file_of(sha256, size, is_lfs=True)
        return repository.file_of(sha256, size, is_lfs=False, content=self.store.read(sha256))

    def text_of(self, files: Mapping[str, File], path: str) -> str:
        return self.store.read(files[path].sha256).decode() if path in files else ""
