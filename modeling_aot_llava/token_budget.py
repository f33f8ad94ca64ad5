"""How many video tokens a clip and a frame keep: integers only.

The paper tunes its threshold until the overall token retention budget is met (Sec. 7); here the budget is planned
first and met exactly. It depends on the number of frames alone, so the processor can write the placeholders before
any pixel is seen, and nothing downstream has to know that tokens were reduced.
"""

import math
from dataclasses import dataclass

from .error_texts import show
from .plain_numbers import is_integer, is_number

# Sec. 7: anchors a frame at each retention ratio, on the 27 x 27 patch grid of LLaVA-OneVision with 32 frames.
PAPER_PATCHES = 729
PAPER_ANCHORS = ((0.0, 0), (0.10, 126), (0.15, 144), (0.20, 196), (0.25, 205), (1.0, 729))


@dataclass(frozen=True)
class TokenBudget:
    """The plan of one video of F frames.

    Attributes:
        num_video_tokens: B, tokens that reach the language model, newline token not counted.
        clip_lengths: frames of each of the K clips; they sum to F.
        patch_anchors: M, token anchors a frame on the patch grid.
        pooled_anchors: M_p, tokens a frame keeps on the pooled grid before the frames are compared.
        kept_per_frame: F counts that sum to B: M_p for a clip's first frame, the quota of a later one.
    """

    num_video_tokens: int
    clip_lengths: tuple[int, ...]
    patch_anchors: int
    pooled_anchors: int
    kept_per_frame: tuple[int, ...]

    def with_clips(self, clip_lengths: tuple[int, ...]) -> "TokenBudget":
        """The same budget spent on other clips, whose number may differ but must be affordable: K * M_p <= B."""
        rest = self.num_video_tokens - len(clip_lengths) * self.pooled_anchors
        return TokenBudget(
            num_video_tokens=self.num_video_tokens,
            clip_lengths=clip_lengths,
            patch_anchors=self.patch_anchors,
            pooled_anchors=self.pooled_anchors,
            kept_per_frame=_kept_per_frame(clip_lengths, self.pooled_anchors, rest),
        )


def plan_token_budget(config, num_frames: int, num_video_tokens: int | None = None) -> TokenBudget:
    """Plans how many tokens a video keeps (Sec. 4.1 and 7; ALGORITHM.md section 7).

    Args:
        config: an `AOTLlavaOnevisionConfig`; it is validated.
        num_frames: F, at least 1.
        num_video_tokens: B as the prompt has it; by default B follows from `config.retention_ratio`.

    Raises:
        ValueError: if the config is invalid, or there is no plan for these numbers.
    """
    config.validate_aot()
    grid = config.patch_grid_size
    patches, pooled = grid * grid, pooled_tokens_per_frame(grid)
    configured = count_video_tokens(num_frames, config.retention_ratio, pooled, config.num_clips)
    retention_ratio = min(config.retention_ratio, 1.0)
    if num_video_tokens is None:
        num_video_tokens = configured
    elif not 1 <= num_video_tokens <= num_frames * pooled:
        raise ValueError(
            f"`num_video_tokens` is {num_video_tokens}, but a video of {num_frames} frames has from 1 to "
            f"{num_frames * pooled} tokens."
        )
    elif num_video_tokens != configured:
        retention_ratio = num_video_tokens / (num_frames * pooled)

    # A prompt may ask for fewer tokens than there are clips; then each clip keeps one.
    num_clips = min(count_clips(num_frames, config.num_clips), num_video_tokens)
    anchors = config.num_anchors or max(1, _interpolate_anchors(retention_ratio, patches))
    pooled_anchors = _round_half_up(anchors * pooled / patches)
    if num_frames == 1:
        pooled_anchors = num_video_tokens
    pooled_anchors = max(pooled_anchors, math.ceil(num_video_tokens / num_frames))
    pooled_anchors = min(pooled_anchors, num_video_tokens // num_clips)

    clip_lengths = share_evenly(num_frames, num_clips)
    rest = num_video_tokens - num_clips * pooled_anchors
    return TokenBudget(
        num_video_tokens=num_video_tokens,
        clip_lengths=clip_lengths,
        patch_anchors=anchors,
        pooled_anchors=pooled_anchors,
        kept_per_frame=_kept_per_frame(clip_lengths, pooled_anchors, rest),
    )


def count_video_tokens(num_frames: int, retention_ratio: float, tokens_per_frame: int, num_clips: int) -> int:
    """B = min(F * P, max(K, round(r * F * P))), newline token not counted."""
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


def pooled_tokens_per_frame(patch_grid_size: int) -> int:
    """P: the base model pools the patch grid to half its side, rounded up."""
    return math.ceil(patch_grid_size / 2) ** 2


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


def _kept_per_frame(clip_lengths: tuple[int, ...], pooled_anchors: int, rest: int) -> tuple[int, ...]:
    num_later_frames = sum(clip_lengths) - len(clip_lengths)
    quotas = iter(share_evenly(rest, num_later_frames) if num_later_frames else ())
    kept: list[int] = []
    for length in clip_lengths:
        kept.append(pooled_anchors)
        kept.extend(next(quotas) for _ in range(length - 1))
    return tuple(kept)


def _interpolate_anchors(retention_ratio: float, patches: int) -> int:
    for (low_ratio, low), (high_ratio, high) in zip(PAPER_ANCHORS, PAPER_ANCHORS[1:]):
        if retention_ratio <= high_ratio:
            anchors = low + (high - low) * (retention_ratio - low_ratio) / (high_ratio - low_ratio)
            return _round_half_up(anchors * patches / PAPER_PATCHES)
    return patches


def _round_half_up(value: float) -> int:
    return math.floor(value + 0.5)
