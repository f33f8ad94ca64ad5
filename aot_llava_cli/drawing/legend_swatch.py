"""Samples for the legend."""

import numpy as np
from PIL import Image, ImageDraw

from .captions import Part
from .frame_picture import paint_anchors, paint_tokens
from .sheet_style import CLIP, FIRST_FRAME, FIRST_FRAME_EDGE
from .token_map import FrameMap

# The side in pixels.
SWATCH = 36

SWATCH_PICTURE = Image.new("RGB", (SWATCH, SWATCH), (188, 200, 206))


def swatch(part: Part) -> Image.Image:
    """A sample of what the legend explains: in the midst of dimmed cells, painted as it is on the frames."""
    if part is Part.FIRST_FRAME:
        framed = Image.new("RGB", SWATCH_PICTURE.size, CLIP)
        ImageDraw.Draw(framed).rectangle((0, 0, SWATCH - 1, SWATCH - 1), outline=FIRST_FRAME, width=FIRST_FRAME_EDGE)
        return framed
    middle, nothing = np.zeros((4, 4), dtype=bool), np.zeros((4, 4), dtype=bool)
    middle[1:3, 1:3] = True
    frame = FrameMap(
        clip=0,
        opens_clip=False,
        local_anchors=middle if part is Part.LOCAL_ANCHOR else nothing,
        global_anchors=middle if part is Part.GLOBAL_ANCHOR else nothing,
        kept=middle if part is Part.KEPT else nothing,
        merged_along_time=middle if part is Part.MERGED_ALONG_TIME else nothing,
        times_read=1,
    )
    is_patch = part in (Part.LOCAL_ANCHOR, Part.GLOBAL_ANCHOR, Part.NO_ANCHOR)
    return (paint_anchors if is_patch else paint_tokens)(SWATCH_PICTURE, frame, SWATCH_PICTURE.size)
