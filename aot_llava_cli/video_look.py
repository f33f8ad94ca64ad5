"""A look at the video before torch and transformers are imported, which takes long: what is no video is told at once.

With the project's own reader, so that what passes here is read there, and under the same limits.
"""

import importlib
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from .arguments import is_web_address, name_of_video

_READER = "aot_llava_cli._reader"


@contextmanager
def looked_at(video: str) -> Iterator[str]:
    """Where the video lies, which opens and has frames; one at an http(s) address is downloaded, for the context.

    Raises:
        ValueError, FileNotFoundError: as the reader, of what it cannot read.
    """
    if not is_web_address(video):
        _look(video)
        yield video
        return
    with tempfile.TemporaryDirectory(prefix="aot-video-") as folder:
        copy = Path(folder, name_of_video(video)[-100:])
        with _reader("video_sources").open_source(video) as downloaded:
            _look_into(downloaded)
            with downloaded.open() as content, copy.open("wb") as file:
                shutil.copyfileobj(content, file)
        try:
            yield str(copy)
        except (ValueError, OSError) as error:
            if str(copy) not in str(error):
                raise
            raise ValueError(str(error).replace(str(copy), shown(video))) from error


def shown(video: str) -> str:
    """What messages call a video: one line, without what may be secret in an address."""
    return _reader("video_sources").name_of(video)


def _look(video: str) -> None:
    sources, stream = _reader("video_sources"), _reader("video_stream")
    stream.check_pyav()
    path = sources.local_path(video)
    if path is not None and Path(path).is_dir():
        with sources.open_source(sources.pictures_in(path)[0]) as file:
            _decode_one(file)
        return
    with sources.open_source(video) as file:
        _look_into(file)


def _look_into(file) -> None:
    """Reads the list of its packets, which tells whether it is whole; decodes a frame only where that says nothing."""
    index = _reader("video_index")
    try:
        with _reader("video_stream").open_video(file) as video:
            index.index_by_time(video)
    except index.TimesMisleadError:
        _decode_one(file)


def _decode_one(file) -> None:
    stream = _reader("video_stream")
    with stream.open_video(file) as video:
        if next(video.container.decode(video.stream), None) is None:
            raise stream.unreadable(file, "has no frame that can be decoded")


def _reader(name: str) -> ModuleType:
    """A module of the reader in a package of its own: that of the model imports torch before any of its modules."""
    if _READER not in sys.modules:
        package = ModuleType(_READER)
        package.__path__ = list(importlib.util.find_spec("modeling_aot_llava").submodule_search_locations)
        sys.modules[_READER] = package
    return importlib.import_module(f"{_READER}.{name}")
