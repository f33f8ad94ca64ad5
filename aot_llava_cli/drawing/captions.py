"""The words beside the pictures: the same on the contact sheet and on the page."""

from dataclasses import dataclass
from enum import Enum

from .compressed_video import CompressedVideo
from .token_map import FrameMap

LONGEST_NAME = 40


class Part(Enum):
    """What the legend explains."""

    LOCAL_ANCHOR = "local-anchor"
    GLOBAL_ANCHOR = "global-anchor"
    NO_ANCHOR = "no-anchor"
    KEPT = "kept"
    MERGED_ALONG_TIME = "merged-along-time"
    NO_TOKEN = "no-token"
    FIRST_FRAME = "first-frame"


@dataclass(frozen=True)
class LegendGroup:
    """A title, and what the parts under it mean."""

    title: str
    meanings: dict[Part, str]


def headline(video: CompressedVideo) -> str:
    """Such as "clip.mp4: 627 of 6,272 video tokens (10.0 %)"."""
    share = 100 * video.tokens_after / video.tokens_before
    name = _shortened(video.name)
    return f"{name}: {video.tokens_after:,} of {video.tokens_before:,} video tokens ({share:.1f} %)"


def subtitle(video: CompressedVideo) -> str:
    """How it was compressed, in one line."""
    config = video.config
    frames = _count(len(video.frames), "frame")
    clips = _count(len(video.clip_lengths), f"{config.clip_segmentation} clip")
    anchors = _count(int(video.frames[0].anchors.sum()), "token anchor")
    return f"{frames} in {clips}, {anchors} a frame, recipe: {config.recipe}"


def clip_title(video: CompressedVideo, clip: int) -> str:
    """Such as "clip 3: 79 tokens"."""
    num_tokens = sum(frame.num_tokens for frame in video.frames if frame.clip == clip)
    return f"clip {clip + 1}: {_count(num_tokens, 'token')}"


def frame_captions(video: CompressedVideo, number: int) -> list[str]:
    """From long to short, such as "frame 5: 15 of 196 tokens"; tokens that are read twice show as "34 + 34"."""
    frame = video.frames[number]
    count = " + ".join([str(frame.kept.sum())] * frame.times_read)
    name = f"frame {number + 1}"
    return [
        f"{name}: {count} of {frame.kept.size} tokens",
        f"{name}: {count} of {frame.kept.size}",
        f"{name}: {count}",
    ]


def legend(video: CompressedVideo) -> tuple[LegendGroup, LegendGroup]:
    """Explains what this video's config makes of a frame's patches, and of its tokens."""
    return _patch_legend(video.frames[0], video.config), _token_legend(video.frames[0], video.config)


def _patch_legend(frame: FrameMap, config) -> LegendGroup:
    anchors = {
        Part.LOCAL_ANCHOR: "local: most attended in its window",
        Part.GLOBAL_ANCHOR: "global: most attended in the frame",
    }
    if config.anchor_selection == "random":
        anchors = {Part.GLOBAL_ANCHOR: "drawn at random"}
    rest = _fate("the anchors", config.intra_frame_aggregation)
    # Where nothing is pooled, anchors are chosen among the tokens themselves.
    of_what = "tokens" if frame.anchors.shape == frame.kept.shape else "patches"
    return LegendGroup(f"token anchors among the {frame.anchors.size} {of_what}", {**anchors, Part.NO_ANCHOR: rest})


def _token_legend(first_frame: FrameMap, config) -> LegendGroup:
    twice = "; read as it is, and again with the later frames merged in" if first_frame.times_read > 1 else ""
    # Compared are tokens and not places: an object that has moved is found again where it was.
    alike = _fate("it", config.inter_frame_aggregation)
    return LegendGroup(
        f"what the language model reads of {first_frame.kept.size} tokens",
        {
            Part.KEPT: "kept as a token of its own",
            Part.MERGED_ALONG_TIME: f"like a token of the clip's first frame, even elsewhere: {alike}",
            Part.NO_TOKEN: "no token: few anchors here",
            Part.FIRST_FRAME: f"first frame of a clip{twice}",
        },
    )


def _fate(target: str, aggregation: str) -> str:
    return "left out" if aggregation == "none" else f"merged into {target}"


def _shortened(name: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
