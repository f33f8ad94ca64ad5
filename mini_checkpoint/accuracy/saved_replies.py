"""Replies that outlast an interruption: one line a clip, tied to what they were made with."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from .settings import Setting
from .survey import Reply

# How every file of replies begins.
_BEGINNING = b'{"made with": '


class SavedReplies:
    """The replies to a set of settings, in a file that grows clip by clip.

    The first line says what the replies were made with. A setting is known by its definition, not its name: changed
    settings are asked anew, and settings may be added. Files with the same first line may be joined: the lines of one
    behind the other's.
    """

    def __init__(self, file: Path, made_with: dict[str, str], definition_of: Callable[[Setting], str]):
        """Reads the file, or begins it.

        Args:
            made_with: versions of all that every reply depends on.
            definition_of: a text that tells all else that a setting's replies depend on.

        Raises:
            ValueError: if the file's replies were made with something else, or it holds none; it is left as it is.
            OSError: if the file cannot be read or written.
        """
        self._file = file
        self._definition_of = definition_of
        self._replies: dict[tuple[int, str], Reply] = {}
        content = file.read_bytes() if file.exists() else b""
        if not content.startswith(_BEGINNING[: len(content)]):
            raise ValueError(f"{file} holds no answers of this program. Move it elsewhere, or give another --output.")
        lines = content.split(b"\n")
        if len(lines) > 1:
            self._check(json.loads(lines[0])["made with"], made_with)
        # What an interrupted write has left behind the last whole line is cut off.
        if lines.pop():
            os.truncate(file, content.rfind(b"\n") + 1)
        if not lines:
            self._append({"made with": made_with})
        for line in lines[1:]:
            entry = json.loads(line)
            for definition, reply in entry["replies"].items():
                self._replies[entry["clip"], definition] = Reply(**reply)

    def missing(self, clip: int, settings: Iterable[Setting]) -> list[Setting]:
        """The settings under which the clip's questions have not been answered yet."""
        return [setting for setting in settings if (clip, self._definition_of(setting)) not in self._replies]

    def of(self, clip: int, setting: Setting) -> Reply:
        """The reply to a clip under a setting."""
        return self._replies[clip, self._definition_of(setting)]

    def add(self, clip: int, replies: dict[Setting, Reply]) -> None:
        """Adds replies about one clip; they are on the disk afterwards, or none of them is."""
        by_definition = {self._definition_of(setting): reply for setting, reply in replies.items()}
        self._append({"clip": clip, "replies": {key: asdict(reply) for key, reply in by_definition.items()}})
        self._replies |= {(clip, key): reply for key, reply in by_definition.items()}

    def _append(self, entry: dict) -> None:
        # A line without its end, because the machine stopped there, is taken for none when it is read.
        with self._file.open("ab") as file:
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _check(self, found: dict[str, str], wanted: dict[str, str]) -> None:
        different = [name for name in wanted if found.get(name) != wanted[name]]
        if different:
            raise ValueError(
                f"{self._file} holds answers of another {' and '.join(different)}. Remove it, or give another "
                "--output."
            )
