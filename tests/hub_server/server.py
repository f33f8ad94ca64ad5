"""The server as tests have it in hand: they fill it, look into it, see what it was asked and make it fail."""

import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path

from . import account_api, download_api, repository_api, upload_api
from .faults import Fault, FaultPlan, PlannedFault
from .http_front import HttpFront
from .hub import Hub, Settings
from .recording import RecordedRequest, Recording
from .repositories import DEFAULT_BRANCH, Commit, File, Repository

ENDPOINTS = (account_api, download_api, repository_api, upload_api)  # importing them registers their routes


class HubServer:
    """A Hub on a free port of the loopback while it is entered; `Settings` can be passed by name and changed later."""

    def __init__(self, **settings):
        self.settings = Settings(**settings)
        self.faults = FaultPlan()
        self.recording = Recording()

    def __enter__(self) -> "HubServer":
        self._folder = Path(tempfile.mkdtemp(prefix="hub-server-"))
        self._http = HttpFront(self.recording, self.faults)
        port = self._http.server_address[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        # The same server under another name: clients take it for another host, as the real storage is one, and send
        # no token there.
        self.hub = Hub(self._folder, self.endpoint, f"http://localhost:{port}", self.settings)
        self._http.hub = self.hub
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, exception_type, *_) -> None:
        self._http.shutdown()
        self._http.close_everything()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._http.crashes and exception_type is None:
            raise AssertionError("The server has a fault of its own:\n" + "\n".join(self._http.crashes))

    # Filling it

    def token(self, user: str, role: str = "write") -> str:
        """The user's token with that role, "read" or "write"."""
        return self.hub.accounts.token(user, role)

    def revoke(self, token: str) -> None:
        self.hub.accounts.revoke(token)

    def add_organization(self, name: str, members: Iterable[str]) -> None:
        self.hub.accounts.add_organization(name, tuple(members))

    def add_repo(
        self,
        repo_id: str,
        files: Mapping[str, bytes | str | Path] | None = None,
        *,
        branches: Mapping[str, Mapping[str, bytes | str | Path]] | None = None,
        private: bool = False,
        gated: bool | str = False,
        readers: Iterable[str] = (),
        region: str = "us",
        is_on_xet: bool = True,
    ) -> str:
        """Makes a repository without HTTP and returns the commit of its main branch.

        `readers` may read it though it is private or gated. Files not on Xet cannot be copied to other repositories.
        """
        rights = {"private": private, "gated": gated, "readers": frozenset(readers)}
        repository = self.hub.create(repo_id, repo_id.split("/")[0], **rights, region=region, is_on_xet=is_on_xet)
        if files:
            self.hub.add_files(repository, DEFAULT_BRANCH, files, "Add files")
        for branch, branch_files in (branches or {}).items():
            repository.branches[branch] = repository.head(DEFAULT_BRANCH).id
            self.hub.add_files(repository, branch, branch_files, f"Add files of {branch}")
        return repository.head(DEFAULT_BRANCH).id

    def commit(
        self,
        repo_id: str,
        files: Mapping[str, bytes | str | Path],
        *,
        branch: str = DEFAULT_BRANCH,
        deleted: Iterable[str] = (),
        title: str = "Change files",
    ) -> str:
        """Changes a repository without HTTP, as another client would, and returns the new commit."""
        return self.hub.add_files(self.repository(repo_id), branch, files, title, deleted).id

    def squash(self, repo_id: str, branch: str = DEFAULT_BRANCH) -> str:
        """Squashes a branch's history without HTTP and returns its only commit."""
        repository = self.repository(repo_id)
        return repository.squash(branch, f"Super-squash branch '{branch}'", repository.namespace).id

    def damage(self, repo_id: str, path: str, revision: str = DEFAULT_BRANCH) -> None:
        """Flips a byte of a stored file; the server goes on telling its old hash."""
        self.hub.store.damage(self.files(repo_id, revision)[path].sha256)

    # Looking into it

    @property
    def repositories(self) -> list[str]:
        return sorted(self.hub.repositories)

    def repository(self, repo_id: str) -> Repository:
        return self.hub.repositories[repo_id]

    def branches(self, repo_id: str) -> dict[str, str]:
        """The branches and the commits that they point at."""
        return dict(self.repository(repo_id).branches)

    def history(self, repo_id: str, revision: str = DEFAULT_BRANCH) -> list[Commit]:
        """The commits that lead to a revision, newest first."""
        return self.repository(repo_id).history(revision)

    def files(self, repo_id: str, revision: str = DEFAULT_BRANCH) -> dict[str, File]:
        return dict(self.repository(repo_id).commit_at(revision).files)

    def tree(self, repo_id: str, revision: str = DEFAULT_BRANCH) -> dict[str, str]:
        """The sha256 of each file."""
        return {path: file.sha256 for path, file in self.files(repo_id, revision).items()}

    def read(self, repo_id: str, path: str, revision: str = DEFAULT_BRANCH) -> bytes:
        return self.hub.store.read(self.files(repo_id, revision)[path].sha256)

    @property
    def stored_blobs(self) -> dict[str, int]:
        """The large files that any repository has, committed or not, with their sizes; each is stored once."""
        known = set().union(*(repository.lfs_objects for repository in self.hub.repositories.values()))
        return {sha256: self.hub.store.size(sha256) for sha256 in known}

    # What it was asked

    @property
    def requests(self) -> list[RecordedRequest]:
        return list(self.recording.requests)

    def requests_to(self, pattern: str) -> list[RecordedRequest]:
        """The requests whose "METHOD /path" the regular expression finds."""
        return [request for request in self.requests if re.search(pattern, f"{request.method} {request.path}")]

    def bytes_downloaded(self, pattern: str = "*") -> int:
        """The bytes of files that went out, of the files whose path in their repository the glob matches."""
        sent = [request for request in self.requests if request.file_sent]
        return sum(request.bytes_sent for request in sent if fnmatch(request.file_sent, pattern))

    def large_bytes_uploaded(self) -> int:
        """The bytes of large files that came in; small ones come within their commit."""
        return sum(request.bytes_received for request in self.requests if request.file_received)

    # Making it fail

    def fail(
        self,
        fault: Fault,
        *,
        at: int = 1,
        matching: str | Callable[[RecordedRequest], object] | None = None,
        times: int | None = 1,
    ) -> PlannedFault:
        """Plans a fault from request number `at` on, for those that match, so many times, or always if None.

        `matching` is a regular expression found in "METHOD /path" or a function of the request. The number is the
        request's place in `requests`. What is returned counts in `fired` how often it has happened.
        """
        return self.faults.add(fault, at, matching, times)

    def clear(self) -> None:
        """Forgets the requests so far and the planned faults: the next request is number 1."""
        self.recording.clear()
        self.faults.clear()
