"""How many video tokens a clip and a frame keep: integers only.

The paper tunes its threshold until the overall token retention budget is met (Sec. 7); here the budget is planned
first and met exactly. It depends on the number of frames alone, so the processor can write the placeholders before
any pixel is seen, and nothing downstream has to know that tokens were reduced.
"""

import math
from dataclasses import dataclass, replace

from .error_texts import show
from .plain_numbers import is_integer, is_number

# Sec. 7: anchors a frame at each retention ratio, on a 27 x 27 patch grid, by the base model's pooling: bilinear is
# LLaVA-OneVision with 32 frames, average is LLaVA-Video with 64. Models without pooling are not in the paper; they get
# LLaVA-OneVision's share of a frame's tokens.
PAPER_PATCHES = 729
PAPER_ANCHORS = {
    "bilinear": ((0.0, 0), (0.10, 126), (0.15, 144), (0.20, 196), (0.25, 205), (1.0, 729)),
    "none": ((0.0, 0), (0.10, 126), (0.15, 144), (0.20, 196), (0.25, 205), (1.0, 729)),
    "average": ((0.0, 0), (0.10, 108), (0.15, 144), (0.20, 176), (0.25, 198), (1.0, 729)),
}


@dataclass(frozen=True)
class FrameGrid:
    """The patches of a frame, and what the base model's spatial pooling leaves of them.

    Attributes:
        patches: height and width of the grid on which anchors are chosen; N is their product.
        pooling: `"bilinear"`, `"average"` or `"none"`, see `spatial_pooling.pool_grid`.
    """

    patches: tuple[int, int]
    pooling: str

    @property
    def pooled(self) -> tuple[int, int]:
        """Height and width after pooling."""
        height, width = (pooled_grid_size(side, self.pooling) for side in self.patches)
        return height, width

    @property
    def num_patches(self) -> int:
        """N."""
        return math.prod(self.patches)

    @property
    def num_pooled(self) -> int:
        """P."""
        return math.prod(self.pooled)


@dataclass(frozen=True)
class TokenBudget:
    """The plan of one video of F frames.

    Attributes:
        grid: of each frame.
        num_video_tokens: B, tokens that reach the language model, newline tokens not counted.
        clip_lengths: frames of each of the K clips; they sum to F.
        patch_anchors: M, token anchors a frame on the patch grid.
        pooled_anchors: M_p, tokens a frame keeps on the pooled grid before the frames are compared.
        kept_per_frame: F counts that sum to B: M_p for a clip's first frame, the quota of a later one.
    """

    grid: FrameGrid
    num_video_tokens: int
    clip_lengths: tuple[int, ...]
    patch_anchors: int
    pooled_anchors: int
    kept_per_frame: tuple[int, ...]

    def with_clips(self, clip_lengths: tuple[int, ...]) -> "TokenBudget":
        """The same budget spent on other clips, whose number may differ but must be affordable: K * M_p <= B."""
        rest = self.num_video_tokens - len(clip_lengths) * self.pooled_anchors
        kept_per_frame = _kept_per_frame(clip_lengths, self.pooled_anchors, rest)
        return replace(self, clip_lengths=clip_lengths, kept_per_frame=kept_per_frame)


def plan_token_budget(
    config, num_frames: int, num_video_tokens: int | None = None, grid: FrameGrid | None = None
) -> TokenBudget:
    """Plans how many tokens a video keeps (Sec. 4.1 and 7; ALGORITHM.md section 7).

    Args:
        config: with the AOT fields; it is validated.
        num_frames: F, at least 1.
        num_video_tokens: B as the prompt has it; by default B follows from `config.retention_ratio`.
        grid: of each frame; by default `config.frame_grid`, where all videos have the same.

    Raises:
        ValueError: if the config is invalid, or there is no plan for these numbers.
    """
    config.validate_aot()
    grid = config.frame_grid if grid is None else grid
    pooled = grid.num_pooled
    configured = count_video_tokens(num_frames, config.retention_ratio, pooled, config.num_clips)
    retention_ratio = min(config.retention_ratio, 1.0)
    if num_video_tokens is None:
        num_video_tokens = configured
    elif not is_integer(num_video_tokens) or not 1 <= num_video_tokens <= num_frames * pooled:
        raise ValueError(
            f"`num_video_tokens` is {show(num_video_tokens)}, but a video of {num_frames} frames has from 1 to "
            f"{num_frames * pooled} tokens."
        )
    elif num_video_tokens != configured:
        retention_ratio = num_video_tokens / (num_frames * pooled)

    # A prompt may ask for fewer tokens than there are clips; then each clip keeps one.
    num_clips = min(count_clips(num_frames, config.num_clips), num_video_tokens)
    anchors = config.num_anchors
    if anchors is None or (num_video_tokens != configured and not has_deliberate_anchors(config, grid)):
        anchors = anchors_of_ratio(grid, retention_ratio)
    _check_some_anchor_is_left(config, anchors, grid)
    if config.clip_segmentation == "none":
        return _plan_single_frames(grid, num_frames, num_video_tokens, anchors)
    pooled_anchors = _round_half_up(anchors * pooled / grid.num_patches)
    if num_frames == 1:
        pooled_anchors = num_video_tokens
    pooled_anchors = max(pooled_anchors, math.ceil(num_video_tokens / num_frames))
    pooled_anchors = min(pooled_anchors, num_video_tokens // num_clips)

    clip_lengths = share_evenly(num_frames, num_clips)
    rest = num_video_tokens - num_clips * pooled_anchors
    return TokenBudget(
        grid=grid,
        num_video_tokens=num_video_tokens,
        clip_lengths=clip_lengths,
        patch_anchors=anchors,
        pooled_anchors=pooled_anchors,
        kept_per_frame=_kept_per_frame(clip_lengths, pooled_anchors, rest),
    )


def anchors_of_ratio(grid: FrameGrid, retention_ratio: float) -> int:
    """M of a ratio, interpolated between the paper's values (Sec. 7)."""
    points = PAPER_ANCHORS[grid.pooling]
    return max(1, _interpolate_anchors(min(retention_ratio, 1.0), grid.num_patches, points))


def has_deliberate_anchors(config, grid: FrameGrid) -> bool:
    """Whether `config.num_anchors` is another number than that of `config.retention_ratio`.

    Where it is the same, as in folders whose config spells it out, it belongs to that ratio and to no other.
    """
    return config.num_anchors is not None and config.num_anchors != anchors_of_ratio(grid, config.retention_ratio)


def count_video_tokens(num_frames: int, retention_ratio: float, tokens_per_frame: int, num_clips: int) -> int:
    """B = min(F * P, max(K, round(r * F * P))), newline tokens not counted."""
    if num_frames < 1:
        raise ValueError(f"The video has {num_frames} frames, but it must have at least 1.")
    all_tokens = num_frames * tokens_per_frame
    if retention_ratio >= 1:
        return all_tokens
    return min(all_tokens, max(count_clips(num_frames, num_clips), _round_half_up(retention_ratio * all_tokens)))


def check_retention_ratio(retention_ratio: float) -> None:
    """Raises `ValueError` unless the ratio is a number above 0; 1 or more means all tokens."""
    if not is_number(retention_ratio) or not 0 < retention_ratio < math.inf:
        raise ValueError(
            f"`retention_ratio` is {show(retention_ratio)}, but it must be a number above 0 (1 or more keeps all "
            "tokens)."
        )


def check_num_clips(num_clips: int) -> None:
    """Raises `ValueError` unless it is an integer from 1."""
    if not is_integer(num_clips) or num_clips < 1:
        raise ValueError(f"`num_clips` is {show(num_clips)}, but it must be an integer from 1.")


def count_clips(num_frames: int, num_clips: int) -> int:
    """K: a clip has at least two frames, so that there is something to transport along time."""
    return max(1, min(num_clips, num_frames // 2))


def pooled_grid_size(patch_grid_size: int, pool_mode: str = "bilinear") -> int:
    """Side of the pooled grid, which has P = side * side tokens a frame.

    Half the side of the patch grid: rounded up for `"bilinear"` pooling (LLaVA-OneVision), down for `"average"`
    (LLaVA-Video), which drops the last row and column of an odd grid. The side itself for `"none"`.
    """
    if pool_mode == "none":
        return patch_grid_size
    return patch_grid_size // 2 if pool_mode == "average" else math.ceil(patch_grid_size / 2)


def newline_places(num_frames: int, pooled_grid: int, newline_position: str) -> range:
    """The places in the video, frame * P + position, after which the base model has a newline token.

    Args:
        num_frames: F.
        pooled_grid: side of the pooled grid.
        newline_position: `"grid"` (after each row of each frame), `"frame"` (after each frame), `"one_token"` (after
            the video) or `"no_token"`, as LLaVA-NeXT calls them.
    """
    num_places = num_frames * pooled_grid**2
    step = {
        "grid": pooled_grid,
        "frame": pooled_grid**2,
        "one_token": num_places,
        "no_token": num_places + 1,
    }[newline_position]
    return range(step - 1, num_places, step)


def released_keep_ratio(budget: TokenBudget) -> float:
    """The keep ratio with which the released recipe meets the budget on average.

    The released program outputs a clip's first frame, its final anchors where it has more frames than one, and the
    kept tokens of the F - K later frames. All these frames have M_p tokens each.
    """
    num_clips, num_frames = len(budget.clip_lengths), sum(budget.clip_lengths)
    later_tokens = (num_frames - num_clips) * budget.pooled_anchors
    if later_tokens == 0:
        return 0.0
    num_merged = sum(length > 1 for length in budget.clip_lengths)
    rest = budget.num_video_tokens - (num_clips + num_merged) * budget.pooled_anchors
    return min(1.0, max(0.0, rest / later_tokens))


def share_evenly(total: int, parts: int) -> tuple[int, ...]:
    """Splits an amount into parts that differ by at most one, larger parts first."""
    return tuple(total // parts + (part < total % parts) for part in range(parts))


def _plan_single_frames(grid: FrameGrid, num_frames: int, num_video_tokens: int, anchors: int) -> TokenBudget:
    # Frames that are not compared with each other share evenly; with the released recipe the video decides in the end.
    pooled_anchors = max(1, _round_half_up(num_video_tokens / num_frames))
    return TokenBudget(
        grid=grid,
        num_video_tokens=num_frames * pooled_anchors,
        clip_lengths=(1,) * num_frames,
        patch_anchors=anchors,
        pooled_anchors=pooled_anchors,
        kept_per_frame=(pooled_anchors,) * num_frames,
    )


def _check_some_anchor_is_left(config, anchors: int, grid: FrameGrid) -> None:
    # Of the released recipe's anchors those are lost that the windows leave over.
    if config.recipe != "released" or config.anchor_selection != "attention":
        return
    local = math.floor(anchors * config.local_anchor_ratio)
    windows = math.prod(math.ceil(side / config.local_window_size) for side in grid.patches)
    if anchors == local and local < windows:
        raise ValueError(
            f"`local_anchor_ratio` is {config.local_anchor_ratio}, so that all {anchors} anchors of a frame are local "
            f"ones, too few for its {windows} windows, and the released recipe leaves none: lower it, or set "
            f"`num_anchors` to {windows} or more."
        )


def _kept_per_frame(clip_lengths: tuple[int, ...], pooled_anchors: int, rest: int) -> tuple[int, ...]:
    num_later_frames = sum(clip_lengths) - len(clip_lengths)
    quotas = iter(share_evenly(rest, num_later_frames) if num_later_frames else ())
    kept: list[int] = []
    for length in clip_lengths:
        kept.append(pooled_anchors)
        kept.extend(next(quotas) for _ in range(length - 1))
    return tuple(kept)


def _interpolate_anchors(retention_ratio: float, patches: int, points: tuple[tuple[float, int], ...]) -> int:
    for (low_ratio, low), (high_ratio, high) in zip(points, points[1:]):
        if retention_ratio <= high_ratio:
            anchors = low + (high - low) * (retention_ratio - low_ratio) / (high_ratio - low_ratio)
            return _round_half_up(anchors * patches / PAPER_PATCHES)
    return patches


def _round_half_up(value: float) -> int:
    return math.floor(value + 0.5)
