"""A page to step through the frames of a compressed video: one file that needs nothing else."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from . import captions
from .captions import Part
from .compressed_video import CompressedVideo
from .legend_swatch import swatch

TEMPLATE = Path(__file__).with_name("html_page.html.jinja")

# In pixels: of a frame in the page's units, and of its file at most.
LONGEST_SIDE = 480
JPEG_QUALITY = 80

# How the page's script tells a frame's patches and tokens apart: a part's number here is its character there.
PATCH_PARTS = (Part.NO_ANCHOR, Part.LOCAL_ANCHOR, Part.GLOBAL_ANCHOR)
TOKEN_PARTS = (Part.NO_TOKEN, Part.MERGED_ALONG_TIME, Part.KEPT)


def make_page(video: CompressedVideo) -> str:
    """Returns the HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    groups = captions.legend(video)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        headline=captions.headline(video),
        subtitle=captions.subtitle(video),
        clips=[_clip(video, clip) for clip in range(len(video.clip_lengths))],
        legend=groups,
        swatches={part: _data_address(swatch(part), "PNG") for part in Part},
        size=_size_on_page(video.pictures[0]),
        facts={
            "meanings": {part.value: text for group in groups for part, text in group.meanings.items()},
            "patchParts": [part.value for part in PATCH_PARTS],
            "tokenParts": [part.value for part in TOKEN_PARTS],
            "patchGrid": video.frames[0].anchors.shape,
            "tokenGrid": video.frames[0].kept.shape,
            "frames": [_frame_facts(video, index) for index in range(len(video.frames))],
        },
    )


def _clip(video: CompressedVideo, clip: int) -> dict[str, Any]:
    indices = [index for index, frame in enumerate(video.frames) if frame.clip == clip]
    return {
        "title": captions.clip_title(video, clip),
        "frames": [
            {
                "index": index,
                "opens_clip": video.frames[index].opens_clip,
                "caption": captions.frame_captions(video, index)[-1],
                "picture": _data_address(_reduced(video.pictures[index]), "JPEG", quality=JPEG_QUALITY),
            }
            for index in indices
        ],
    }


def _frame_facts(video: CompressedVideo, index: int) -> dict[str, Any]:
    frame = video.frames[index]
    return {
        "caption": captions.frame_captions(video, index)[0],
        "clip": captions.clip_title(video, frame.clip),
        "opensClip": frame.opens_clip,
        "patches": _digits(frame.local_anchors + 2 * frame.global_anchors),
        "tokens": _digits(frame.merged_along_time + 2 * frame.kept),
    }


def _digits(numbers: np.ndarray) -> str:
    """Row by row."""
    return "".join(map(str, numbers.flatten()))


def _size_on_page(picture: Image.Image) -> tuple[int, int]:
    scale = LONGEST_SIDE / max(picture.size)
    return round(picture.width * scale), round(picture.height * scale)


def _reduced(picture: Image.Image) -> Image.Image:
    reduced = picture.copy()
    reduced.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return reduced


def _data_address(picture: Image.Image, picture_format: str, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, picture_format, **options)
    return f"data:image/{picture_format.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
