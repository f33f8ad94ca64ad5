"""Runs while a video file is read: how much of a stranger's is, in bytes, seconds, pixels, and from which machines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .error_texts import show
from .plain_numbers import is_integer, is_number


@dataclass(frozen=True)
class VideoLimits:
    """What is refused, each with a `ValueError` that names the setting.

    Attributes:
        max_bytes: of a download, of a `data:` address and of a file in memory, once decoded.
        max_download_seconds: for a download as a whole.
        max_redirects: that a download follows. It never leaves http and https, nor goes from https to http.
        public_addresses_only: whether a download refuses to connect to machines of private networks and to this one,
            whatever name, redirect or number leads there. Proxies of the environment are then not used.
        max_pixels_per_frame: width times height.
        max_pixels: of all frames that are read of a video.
    """

    max_bytes: int = 4 * 2**30
    max_download_seconds: float = 600
    max_redirects: int = 10
    public_addresses_only: bool = False
    max_pixels_per_frame: int = 2**26
    max_pixels: int = 2**31

    def __post_init__(self):
        for name in ("max_bytes", "max_pixels_per_frame", "max_pixels"):
            _check(name, getattr(self, name), is_integer, 1, "an integer")
        _check("max_redirects", self.max_redirects, is_integer, 0, "an integer")
        if not (is_number(self.max_download_seconds) and self.max_download_seconds > 0):
            raise ValueError(f"max_download_seconds={show(self.max_download_seconds)} must be above 0, a number.")
        if not isinstance(self.public_addresses_only, bool):
            raise ValueError(f"public_addresses_only={show(self.public_addresses_only)} must be True or False.")

    def check_frame(self, width: int, height: int, name: str) -> None:
        """Raises `ValueError` if a frame of the video with this name has too many pixels."""
        if width * height > self.max_pixels_per_frame:
            raise ValueError(
                f"{name} has frames of {width} x {height}, more than {self.max_pixels_per_frame:,} pixels, which is "
                "max_pixels_per_frame: scale it down, or raise it."
            )

    def check_frames(self, num_frames: int, width: int, height: int, name: str) -> None:
        """Raises `ValueError` if that many frames have too many pixels together."""
        if num_frames * width * height > self.max_pixels:
            raise ValueError(
                f"{name} would give {num_frames} frames of {width} x {height}, more than {self.max_pixels:,} pixels, "
                "which is max_pixels: read fewer frames, or raise it."
            )

    @classmethod
    def of(cls, settings: VideoLimits | Mapping[str, Any] | None) -> VideoLimits:
        """Those that are named, the others by default.

        Raises:
            ValueError: there is no such limit, or its value makes no sense.
        """
        if isinstance(settings, VideoLimits):
            return settings
        if settings is not None and not isinstance(settings, Mapping):
            raise ValueError(f"video_limits={show(settings)} must be a dict, as {{'max_bytes': 1000000}}, or None.")
        names = [field.name for field in fields(cls)]
        for name in settings or {}:
            if name not in names:
                raise ValueError(f"video_limits has no {show(name)}: there are {', '.join(names)}.")
        return cls(**(settings or {}))


def _check(name: str, value: Any, is_kind: Any, least: int, kind: str) -> None:
    if not (is_kind(value) and value >= least):
        raise ValueError(f"{name}={show(value)} must be at least {least}, {kind}.")


DEFAULT_LIMITS = VideoLimits()
