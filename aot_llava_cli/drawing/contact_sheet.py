"""One picture of a compressed video: headline, legend, and every frame with its anchors and with its tokens."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from . import captions
from .compressed_video import CompressedVideo
from .frame_picture import paint_anchors, paint_tokens
from .sheet_header import draw_header
from .sheet_layout import CLIP_GAP, CLIP_PADDING, FRAME_GAP, MARGIN, Run, SheetLayout, lay_out
from .sheet_style import CLIP, FIRST_FRAME, FIRST_FRAME_EDGE, INK, PAPER, first_that_fits, font

# Pixels. A sheet of few frames still has room for the legend.
SMALLEST_WIDTH = 1080

CELL_PER_TEXT_SIZE = 10
SMALLEST_TEXT, LARGEST_TEXT = 14, 22
LINE_SPACING = 1.8


def draw_contact_sheet(video: CompressedVideo) -> Image.Image:
    """Draws the sheet, 1,800 pixels wide at most, 3,600 from 65 frames on; frames keep the video's proportions."""
    frame_width, frame_height = video.pictures[0].size
    layout = lay_out(video.clip_lengths, frame_width / frame_height)
    width = max(SMALLEST_WIDTH, layout.width)
    parts = [draw_header(video, width - 2 * MARGIN)]
    parts += [_draw_line(video, line, layout) for line in layout.lines]
    sheet = Image.new("RGB", (width, 2 * MARGIN + _total([part.height for part in parts], CLIP_GAP)), PAPER)
    y = MARGIN
    for part in parts:
        sheet.paste(part, (MARGIN, y))
        y += part.height + CLIP_GAP
    return sheet


def _draw_line(video: CompressedVideo, runs: Sequence[Run], layout: SheetLayout) -> Image.Image:
    clips = [_draw_run(video, run, layout) for run in runs]
    line = Image.new("RGB", (_total([clip.width for clip in clips], CLIP_GAP), clips[0].height), PAPER)
    x = 0
    for clip in clips:
        line.paste(clip, (x, 0))
        x += clip.width + CLIP_GAP
    return line


def _draw_run(video: CompressedVideo, run: Run, layout: SheetLayout) -> Image.Image:
    """A clip, or what of it stands on one line: a title above, and the count below each frame."""
    width, height = layout.cell
    text_size = min(LARGEST_TEXT, max(SMALLEST_TEXT, width // CELL_PER_TEXT_SIZE))
    text_height = round(text_size * LINE_SPACING)
    top = CLIP_PADDING // 3 + text_height
    bottom = top + height + FRAME_GAP + height
    drawn = Image.new("RGB", (layout.run_width(run), bottom + text_height + CLIP_PADDING // 3), CLIP)
    draw = ImageDraw.Draw(drawn)
    title = _title(video, run, text_size, drawn.width - 2 * CLIP_PADDING)
    draw.text((CLIP_PADDING, top - text_height // 2), title, INK, font(text_size), "lm")
    for place, number in enumerate(run.frames):
        frame, picture = video.frames[number], video.pictures[number]
        x = CLIP_PADDING + place * (width + FRAME_GAP)
        if frame.opens_clip:
            edge = FIRST_FRAME_EDGE
            draw.rectangle((x - edge, top - edge, x + width + edge - 1, bottom + edge - 1), FIRST_FRAME)
        drawn.paste(paint_anchors(picture, frame, layout.cell), (x, top))
        drawn.paste(paint_tokens(picture, frame, layout.cell), (x, bottom - height))
        caption = first_that_fits(captions.frame_captions(video, number), text_size, width)
        draw.text((x + width // 2, bottom + text_height // 2), caption, INK, font(text_size), "mm")
    return drawn


def _title(video: CompressedVideo, run: Run, text_size: int, width: int) -> str:
    name = f"clip {run.clip + 1}"
    continues = not video.frames[run.frames[0]].opens_clip
    return first_that_fits(
        [f"{name}, continued" if continues else captions.clip_title(video, run.clip), name], text_size, width
    )


def _total(lengths: Sequence[int], gap: int) -> int:
    return sum(lengths) + (len(lengths) - 1) * gap
