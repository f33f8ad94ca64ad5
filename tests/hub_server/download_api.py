"""Endpoints that send files: small ones themselves, large ones from the storage, which is another host."""

import re
from urllib.parse import quote

from . import errors
from .hub import Hub
from .repositories import Commit, File, lfs_pointer
from .routes import route
from .wire import FileResponse, Request, Response


@route("GET", "/{repo}/resolve/{revision}/{path}")
def resolve(hub: Hub, request: Request, repo: str, revision: str, path: str) -> Response:
    commit, file = _find(hub, request, repo, revision, path)
    headers = {"X-Repo-Commit": commit.id}
    if not file.is_lfs:
        return _content(hub, request, file, path, {**headers, "ETag": f'"{file.blob_id}"'})
    address = f"/storage/download/{quote(repo, safe='')}/{file.sha256}/{quote(path)}"
    headers["Location"] = f"{hub.storage_endpoint}{address}?signature={hub.sign(address)}"
    headers["X-Linked-Size"] = str(file.size)
    headers["X-Linked-Etag"] = f'"{file.sha256}"'
    return Response(302, headers=headers)


@route("GET", "/{repo}/raw/{revision}/{path}")
def raw(hub: Hub, request: Request, repo: str, revision: str, path: str) -> Response:
    """The file as git has it: of a large one, the pointer."""
    _, file = _find(hub, request, repo, revision, path)
    return Response(body=lfs_pointer(file.sha256, file.size)) if file.is_lfs else _content(hub, request, file, path)


@route("GET", "/storage/download/{repository}/{sha256}/{path}")
def download(hub: Hub, request: Request, repository: str, sha256: str, path: str) -> Response:
    if request.query.get("signature") != hub.sign(request.record.path):
        raise errors.HubError(403, "SignatureDoesNotMatch")
    file = hub.repositories[repository].file_of(sha256, hub.store.size(sha256), is_lfs=True)
    return _content(hub, request, file, path, {"ETag": f'"{file.sha256}"'})


def _find(hub: Hub, request: Request, repo: str, revision: str, path: str) -> tuple[Commit, File]:
    commit = hub.readable(repo, request.account).commit_at(revision)
    if path not in commit.files:
        raise errors.entry_not_found(commit_id=commit.id)
    return commit, commit.files[path]


def _content(hub: Hub, request: Request, file: File, path: str, headers: dict[str, str] | None = None) -> Response:
    request.record.file_sent = path
    start, stop = _range(request.headers.get("Range"), file.size)
    response = FileResponse(206 if "Range" in request.headers else 200, path=hub.store.path(file.sha256))
    response.start, response.stop = start, stop
    response.headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **(headers or {})}
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.size}"
    return response


def _range(header: str | None, size: int) -> tuple[int, int]:
    """The first byte to send and the one after the last."""
    if header is None:
        return 0, size
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
    if match is None or int(match[1]) >= size:
        raise errors.HubError(416, "Requested range not satisfiable")
    return int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
