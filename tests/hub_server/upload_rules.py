"""Which files go to LFS, and which are not uploaded at all."""

from fnmatch import fnmatch

LARGE = 10 * 1024 * 1024

LFS_SUFFIXES = """
7z arrow bin bin.* bz2 ckpt ftz gz h5 joblib lfs.* mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl
pt pth rar safetensors tar.* tar tflite tgz wasm xz zip zst
"""
LFS_PATTERNS = [*(f"*.{suffix}" for suffix in LFS_SUFFIXES.split()), "saved_model/**/*", "*tfevents*"]

# Every new repository begins with this file.
GIT_ATTRIBUTES = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS)


def is_for_lfs(path: str, size: int, sample: bytes, git_attributes: str) -> bool:
    """True if a repository with these attributes keeps the file in LFS: by its name, its size or as it is binary."""
    patterns = [line.split()[0] for line in git_attributes.splitlines() if "filter=lfs" in line]
    return size > LARGE or b"\0" in sample or _matches(path, patterns)


def is_ignored(path: str, git_ignore: str) -> bool:
    lines = [line.strip() for line in git_ignore.splitlines()]
    return _matches(path, [line for line in lines if line and not line.startswith("#")])


def _matches(path: str, patterns: list[str]) -> bool:
    folders = ["/".join(path.split("/")[:depth]) for depth in range(1, path.count("/") + 1)]
    names = [path, path.split("/")[-1], *folders]
    return any(fnmatch(name, pattern.strip("/").replace("**/", "*")) for name in names for pattern in patterns)
