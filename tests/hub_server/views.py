"""How commits, files and repositories look in the Hub's JSON."""

from collections.abc import Iterable

from .hub import Hub
from .repositories import Commit, File, Repository, git_blob_id, lfs_pointer


def timestamp(date) -> str:
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def entry(path: str, files: dict[str, File], commit: Commit, expand: bool) -> dict:
    """A file or a folder of a commit."""
    described = _file(path, files[path]) if path in files else _folder(path, files)
    if expand:
        described["lastCommit"] = {"id": commit.id, "title": commit.title, "date": timestamp(commit.date)}
        described["securityFileStatus"] = {"status": "safe", "avScan": None, "pickleImportScan": None}
    return described


def _file(path: str, file: File) -> dict:
    described = {"type": "file", "oid": file.blob_id, "size": file.size, "path": path}
    if file.is_lfs:
        described["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    if file.xet_hash:
        described["xetHash"] = file.xet_hash
    return described


def _folder(path: str, files: dict[str, File]) -> dict:
    content = sorted((name, file.blob_id) for name, file in files.items() if name.startswith(f"{path}/"))
    return {"type": "directory", "oid": git_blob_id(repr(content).encode()), "size": 0, "path": path}


def folders(paths: Iterable[str]) -> set[str]:
    return {path.rsplit("/", depth)[0] for path in paths for depth in range(1, path.count("/") + 1)}


def model_info(hub: Hub, repository: Repository, commit: Commit, blobs: bool) -> dict:
    card_data = front_matter(hub.text_of(commit.files, "README.md"))
    return {
        "_id": git_blob_id(repository.id.encode())[:24],
        "id": repository.id,
        "modelId": repository.id,
        "author": repository.namespace,
        "sha": commit.id,
        "createdAt": timestamp(repository.history(commit.id)[-1].date),
        "lastModified": timestamp(commit.date),
        "private": repository.private,
        "gated": "auto" if repository.gated is True else repository.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": _tags(card_data),
        "library_name": card_data.get("library_name"),
        "pipeline_tag": card_data.get("pipeline_tag"),
        "cardData": card_data,
        "siblings": [_sibling(path, file, blobs) for path, file in sorted(commit.files.items())],
    }


def _sibling(path: str, file: File, blobs: bool) -> dict:
    described = {"rfilename": path}
    if blobs:
        described.update({"blobId": file.blob_id, "size": file.size})
    if blobs and file.is_lfs:
        described["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": _pointer_size(file)}
    return described


def commit_info(commit: Commit) -> dict:
    return {
        "id": commit.id,
        "title": commit.title,
        "message": commit.message,
        "authors": [{"user": commit.author}],
        "date": timestamp(commit.date),
    }


def front_matter(card: str) -> dict:
    """The metadata of a model card: names with a value or a list of values, which is all that cards need here."""
    if not card.startswith("---\n"):
        return {}
    metadata, name = {}, None
    for line in card[4:].split("\n---", 1)[0].splitlines():
        text = line.strip().strip("'\"")
        if text.startswith("- ") and isinstance(metadata.get(name), list):
            metadata[name].append(text[2:].strip("'\" "))
        elif ":" in text and not line[0].isspace():
            name, value = (part.strip("'\" ") for part in text.split(":", 1))
            metadata[name] = value or []
    return metadata


def _tags(card_data: dict) -> list[str]:
    tags = list(card_data.get("tags") or [])
    named = [f"{name}:{card_data[name]}" for name in ("license", "base_model") if isinstance(card_data.get(name), str)]
    return [*tags, *named]


def _pointer_size(file: File) -> int:
    return len(lfs_pointer(file.sha256, file.size))
