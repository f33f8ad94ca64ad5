"""Runs where videos stand back to back in a prompt, in one run of placeholders: how many of them belong to each.

All videos of a call have one retention ratio. The more it is, the more placeholders has each video: so to a total of
placeholders there belongs at most one share for each.
"""

from collections.abc import Sequence

from .token_budget import count_video_tokens

_HALVINGS = 64  # as many as halve 1 down to where floats end


def counts_of_total(total: int, num_frames: Sequence[int | None], encoded_lengths: Sequence[int], config) -> list[int]:
    """Placeholders of each video, newline tokens included.

    Args:
        total: placeholders of all videos.
        num_frames: F of each video; None of one that was encoded before.
        encoded_lengths: n of those videos, in their order.
        config: an `AOTLlavaOnevisionConfig`.

    Raises:
        ValueError: if no ratio gives that total.
    """
    frames_to_share = [frames for frames in num_frames if frames is not None]
    left = total - sum(encoded_lengths)
    shares = _shares(left, frames_to_share, config)
    if shares is None:
        fewest, most = (sum(_counts(ratio, frames_to_share, config)) for ratio in (0.0, 1.0))
        of_encoded = f" beside {sum(encoded_lengths)} of encoded videos" if encoded_lengths else ""
        raise ValueError(
            f"The prompt has {total} video placeholders for {len(num_frames)} videos, some of them back to back, but "
            f"{', '.join(map(str, frames_to_share)) or 'no'} frames give from {fewest} to {most}{of_encoded}, and "
            "never so many at one retention ratio: make prompt and videos with one call of AOTLlavaOnevisionProcessor."
        )
    encoded, of_pixels = iter(encoded_lengths), iter(shares)
    return [next(encoded) if frames is None else next(of_pixels) for frames in num_frames]


def _shares(total: int, num_frames: Sequence[int], config) -> list[int] | None:
    low, high = 0.0, 1.0
    counts = _counts(1.0, num_frames, config)
    for _ in range(_HALVINGS):
        if sum(counts) == total:
            return counts
        ratio = (low + high) / 2
        counts = _counts(ratio, num_frames, config)
        low, high = (ratio, high) if sum(counts) < total else (low, ratio)
    return None


def _counts(ratio: float, num_frames: Sequence[int], config) -> list[int]:
    counts = []
    for frames in num_frames:
        all_tokens = frames * config.pooled_grid_size**2
        tokens = count_video_tokens(frames, ratio, config.pooled_grid_size**2, config.num_clips)
        counts.append(tokens + config.count_newlines(frames, is_compressed=tokens < all_tokens))
    return counts
