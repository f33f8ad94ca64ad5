"""Endpoints by which files arrive: as Git LFS objects or from another repository, and then in one commit."""

import base64
import binascii
import hashlib
import secrets
from math import ceil
from urllib.parse import quote

from . import errors, upload_rules
from .hub import Hub, MultipartUpload
from .repositories import File, Repository, is_valid_path
from .routes import route
from .wire import Request, Response, json_response


@route("POST", "/api/models/{repo}/preupload/{revision}")
def preupload(hub: Hub, request: Request, repo: str, revision: str) -> Response:
    """Tells of each file by its name, size and first bytes how to upload it, and the hash of the one that is there."""
    wanted = request.json()
    files = hub.writable(repo, request.account).commit_at(revision).files
    attributes = hub.text_of(files, ".gitattributes")
    ignored = wanted.get("gitIgnore", hub.text_of(files, ".gitignore"))

    def describe(file: dict) -> dict:
        path, sample = file["path"], base64.b64decode(file["sample"])
        described = {
            "path": path,
            "uploadMode": "lfs" if upload_rules.is_for_lfs(path, file["size"], sample, attributes) else "regular",
            "shouldIgnore": upload_rules.is_ignored(path, ignored),
        }
        return {**described, "oid": files[path].oid} if path in files else described

    return json_response({"files": [describe(file) for file in wanted["files"]]})


# Git LFS


@route("POST", "/{repo}.git/info/lfs/objects/batch")
def lfs_batch(hub: Hub, request: Request, repo: str) -> Response:
    wanted = request.json()
    repository = hub.writable(repo, request.account)
    if wanted["operation"] != "upload" or wanted.get("hash_algo", "sha256") != "sha256":
        raise errors.bad_request("Only uploads of objects by sha256 are served here")
    objects = [_upload_instructions(hub, repository, item["oid"], item["size"]) for item in wanted["objects"]]
    transfer = "multipart" if any("chunk_size" in _upload_header(item) for item in objects) else "basic"
    return json_response({"transfer": transfer, "objects": objects})


def _upload_header(instructions: dict) -> dict:
    return instructions.get("actions", {}).get("upload", {}).get("header", {})


def _upload_instructions(hub: Hub, repository: Repository, sha256: str, size: int) -> dict:
    described = {"oid": sha256, "size": size, "authenticated": True}
    if sha256 in repository.lfs_objects:
        if size == hub.store.size(sha256):
            return described
        message = f"The object has {hub.store.size(sha256)} bytes, not {size}"
        return {**described, "error": {"code": 422, "message": message}}
    upload = _multipart(hub, repository, sha256, size) if size > hub.settings.multipart_above else None
    upload = upload or {"href": _signed(hub, f"/storage/upload/{quote(repository.id, safe='')}/{sha256}")}
    verify = {"href": f"{hub.endpoint}/{repository.id}.git/info/lfs/objects/verify"}
    return {**described, "actions": {"upload": upload, "verify": verify}}


def _multipart(hub: Hub, repository: Repository, sha256: str, size: int) -> dict:
    upload_id = secrets.token_hex(8)
    num_parts = ceil(size / hub.settings.part_size)
    hub.multipart_uploads[upload_id] = MultipartUpload(repository, sha256, num_parts)
    parts = {
        str(number): _signed(hub, f"/storage/part/{upload_id}/{number}/{sha256}") for number in range(1, num_parts + 1)
    }
    header = {"chunk_size": str(hub.settings.part_size), **parts}
    return {"href": _signed(hub, f"/storage/complete/{upload_id}"), "header": header}


def _signed(hub: Hub, address: str) -> str:
    return f"{hub.storage_endpoint}{address}?signature={hub.sign(address)}"


def _check_signature(hub: Hub, request: Request) -> None:
    if request.query.get("signature") != hub.sign(request.record.path):
        raise errors.HubError(403, "SignatureDoesNotMatch")


@route("PUT", "/storage/upload/{repository}/{sha256}")
def upload(hub: Hub, request: Request, repository: str, sha256: str) -> Response:
    _check_signature(hub, request)
    request.record.file_received = sha256
    _store(hub, hub.repositories[repository], request.file_chunks(), sha256)
    return Response(headers={"ETag": f'"{sha256}"'})


@route("PUT", "/storage/part/{upload_id}/{number}/{sha256}")
def upload_part(hub: Hub, request: Request, upload_id: str, number: str, sha256: str) -> Response:
    _check_signature(hub, request)
    request.record.file_received = sha256
    part = hub.parts.add(request.file_chunks())
    hub.multipart_uploads[upload_id].parts[int(number)] = part
    return Response(headers={"ETag": f'"{part}"'})


@route("POST", "/storage/complete/{upload_id}")
def complete_upload(hub: Hub, request: Request, upload_id: str) -> Response:
    _check_signature(hub, request)
    told = {part["partNumber"]: part["etag"].strip('"') for part in request.json()["parts"]}
    multipart = hub.multipart_uploads[upload_id]
    if told != multipart.parts or sorted(told) != list(range(1, multipart.num_parts + 1)):
        raise errors.bad_request("InvalidPart: one or more of the parts could not be found or have another ETag")
    parts = (hub.parts.read(multipart.parts[number]) for number in sorted(told))
    _store(hub, multipart.repository, parts, multipart.sha256)
    return json_response({"success": True})


def _store(hub: Hub, repository: Repository, chunks, sha256: str) -> None:
    if hub.store.add(chunks, expected_sha256=sha256) is None:
        raise errors.bad_request(f"BadDigest: the bytes received do not have the sha256 {sha256}")
    with hub.lock:
        repository.lfs_objects.add(sha256)


@route("POST", "/{repo}.git/info/lfs/objects/verify")
def lfs_verify(hub: Hub, request: Request, repo: str) -> Response:
    told = request.json()
    repository = hub.writable(repo, request.account)
    if told["oid"] not in repository.lfs_objects:
        raise errors.HubError(404, f"Object {told['oid']} does not exist on the server")
    if told["size"] != hub.store.size(told["oid"]):
        raise errors.HubError(422, f"Object {told['oid']} has not {told['size']} bytes")
    return json_response({})


# Copies between repositories


@route("POST", "/api/models/{repo}/lfs-files/duplicate")
def duplicate_files(hub: Hub, request: Request, repo: str) -> Response:
    """Makes large files of this repository known to another one, which may then commit them; no byte is moved."""
    wanted = request.json()
    source = hub.readable(repo, request.account)
    target = hub.writable(wanted["target"]["name"], request.account)
    with hub.lock:
        failed = []
        for file in wanted["files"]:
            if problem := _duplication_problem(hub, source, target, file):
                failed.append({"xetHash": file["xetHash"], "sha256": file["sha256"], "error": problem})
            else:
                target.lfs_objects.add(file["sha256"])
    processed = len(wanted["files"])
    counts = {"processed": processed, "succeeded": processed - len(failed)}
    return json_response({"success": not failed, **counts, "failed": failed})


def _duplication_problem(hub: Hub, source: Repository, target: Repository, file: dict) -> str | None:
    if source.region != target.region:
        return f"Cannot copy from storage region {source.region} to {target.region}"
    if file["sha256"] not in source.lfs_objects:
        return f"File not found in {source.id}"
    stored = source.file_of(file["sha256"], hub.store.size(file["sha256"]), is_lfs=True)
    if stored.xet_hash is None or stored.xet_hash != file["xetHash"]:
        return "The Xet hash is not that of the file"
    return None


# Commits


@route("POST", "/api/models/{repo}/commit/{branch}")
def create_commit(hub: Hub, request: Request, repo: str, branch: str) -> Response:
    lines = request.json_lines()
    repository = hub.writable(repo, request.account)
    if request.flag("create_pr"):
        raise errors.bad_request("Pull requests are not served here")
    if not lines or lines[0].get("key") != "header":
        raise errors.bad_request("The first line of a commit must be its header")
    header, operations = lines[0]["value"], lines[1:]
    with hub.lock:
        head = repository.head(branch)
        if not head.id.startswith(header.get("parentCommit", "")):
            raise errors.HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for operation in operations:
            _apply(hub, repository, files, operation["key"], operation["value"])
        commit = repository.add_commit(
            branch, files, header["summary"], request.account.user, header.get("description", "")
        )
    url = f"{hub.endpoint}/{repo}/commit/{commit.id}"
    return json_response({"success": True, "commitOid": commit.id, "commitUrl": url, "hookOutput": ""})


def _apply(hub: Hub, repository: Repository, files: dict[str, File], key: str, value: dict) -> None:
    path = value["path"]
    if not is_valid_path(path.rstrip("/")):
        raise errors.bad_request(f"Invalid path: {path}")
    if key == "file":
        files[path] = _regular_file(hub, repository, files, path, value)
    elif key == "lfsFile":
        files[path] = _lfs_file(hub, repository, path, value)
    elif key in ("deletedFile", "deletedFolder"):
        _delete(files, path.rstrip("/"), is_folder=key == "deletedFolder")
    else:
        raise errors.bad_request(f"Unknown operation: {key}")


def _regular_file(hub: Hub, repository: Repository, files: dict[str, File], path: str, value: dict) -> File:
    try:
        content = base64.b64decode(value["content"], validate=True)
    except binascii.Error as error:
        raise errors.bad_request(f"{path} is not in base64") from error
    attributes = hub.text_of(files, ".gitattributes")
    if content and upload_rules.is_for_lfs(path, len(content), content[:512], attributes):
        raise errors.bad_request(f"Your push was rejected because it contains a file that must be in LFS: {path}")
    sha256 = hub.store.add([content], expected_sha256=hashlib.sha256(content).hexdigest())
    return repository.file_of(sha256, len(content), is_lfs=False, content=content)


def _lfs_file(hub: Hub, repository: Repository, path: str, value: dict) -> File:
    """A large file by its hash; copies come without the size."""
    sha256 = value["oid"]
    if value["algo"] != "sha256" or sha256 not in repository.lfs_objects:
        raise errors.bad_request(
            "Your push was rejected because an LFS pointer pointed to a file that does not exist. For instance, this"
            f" can happen if you used git push --no-verify to push your changes. Offending file: - {path}"
        )
    size = hub.store.size(sha256)
    if value.get("size", size) != size:
        raise errors.bad_request(f"{path} has {size} bytes, not {value['size']}")
    return repository.file_of(sha256, size, is_lfs=True)


def _delete(files: dict[str, File], path: str, is_folder: bool) -> None:
    doomed = [name for name in files if (name.startswith(f"{path}/") if is_folder else name == path)]
    if not doomed:
        raise errors.entry_not_found(f"A {'folder' if is_folder else 'file'} with this name doesn't exist: {path}")
    for name in doomed:
        del files[name]
