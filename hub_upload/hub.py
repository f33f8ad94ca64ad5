"""The connection to the Hub: every request is tried again where that may help, and every failure is put in words."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from .errors import DamagedDownloadError, PushError, diagnose, in_one_line
from .files import FileOnDisk, FileOnHub

ATTEMPTS = 5
LONGEST_WAIT = 600
# Seconds without a byte.
LONGEST_SILENCE = 60

Result = TypeVar("Result")


class Hub:
    """What a push asks of the Hub.

    Args:
        api: the Hub's client, which holds the token.
        warn: called with a line of text where a request is tried again.
    """

    def __init__(self, api: HfApi, warn: Callable[[str], None]):
        self.api = api
        self._warn = warn

    def call(self, doing: str, function: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Calls a function that may be repeated safely, up to `ATTEMPTS` times.

        It waits as long as the Hub asks for, or 1, 2, 4, 8 seconds.

        Raises:
            PushError: with what was being done, the cause and the remedy.
        """
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return function(*args, **kwargs)
            except PushError:
                raise
            except Exception as error:
                diagnosis = diagnose(error)
                wait = 2.0 ** (attempt - 1) if diagnosis.wait is None else diagnosis.wait
                if not diagnosis.is_transient or attempt == ATTEMPTS or wait > LONGEST_WAIT:
                    raise PushError(f"{doing}: {diagnosis.cause}. {diagnosis.remedy}".rstrip()) from error
                self._warn(f"{doing}: {diagnosis.cause}. Trying again in {wait:.0f} s ({attempt} of {ATTEMPTS - 1}).")
                time.sleep(wait)
        raise AssertionError("unreachable")

    def fetch(self, file: FileOnHub) -> FileOnDisk:
        """Downloads a file into huggingface_hub's cache and checks it against the hash that the Hub tells.

        What arrives damaged is removed again; what stood in the cache before is the user's.

        Raises:
            PushError: also if it is in the cache, but is not what the Hub has.
        """
        return self.call(f"Downloading {file.path} of {file.repo_id}", self._fetch, file)

    def read_range(self, file: FileOnHub, first: int, stop: int) -> bytes:
        """Some bytes of a file, from `first` up to `stop`; the rest does not come down. It is not tried again here."""
        url = hf_hub_url(file.repo_id, file.path, revision=file.revision, endpoint=self.api.endpoint)
        headers = {**build_hf_headers(token=self.api.token), "Range": f"bytes={first}-{stop - 1}"}
        headers["Accept-Encoding"] = "identity"
        session = get_session()
        with session.stream("GET", url, headers=headers, timeout=LONGEST_SILENCE, follow_redirects=True) as response:
            if response.is_error:
                response.read()  # the reason
            hf_raise_for_status(response)
            # A server that knows no ranges sends the file from its beginning.
            skipped = 0 if response.status_code == 206 else first
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) >= skipped + stop - first:
                    break
        content = content[skipped : skipped + stop - first]
        if len(content) < stop - first:
            raise DamagedDownloadError(f"{file.path} arrived cut short")
        return content

    def _fetch(self, file: FileOnHub) -> FileOnDisk:
        started = datetime.now().timestamp()
        path = self.api.hf_hub_download(file.repo_id, file.path, revision=file.revision)
        on_disk = FileOnDisk.at(file.path, path)
        if not file.is_same_as(on_disk):
            if on_disk.file.stat().st_ctime < started:  # not of this download: somebody may have edited it there
                raise PushError(
                    f"{in_one_line(on_disk.file)}, in huggingface_hub's cache, is not what the Hub has as "
                    f"{file.path}: it was changed or damaged there. Move it elsewhere and run the same command again."
                )
            # Or the cache would hand it out again.
            on_disk.file.unlink()
            raise DamagedDownloadError(f"{file.path} arrived damaged, with another hash than the Hub tells")
        return on_disk
