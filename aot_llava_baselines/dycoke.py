"""DyCoke (arXiv 2411.15024, CVPR 2025): frames against those before them, and a cache that is read in part.

Program: `KD-TAO/DyCoke` dd74634, `llava_arch.py` and `modeling_qwen2.py`. Settings: k 0.7 in its README and lmms-eval;
the tables' 25 % is k = 1, with the last group treated as the paper describes it. The program leaves the third frame of
the last group whole, loses an odd last frame, and crashes on 4 frames or fewer. Nothing is merged, in spite of the
stage's name: tokens are dropped.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from .interface import Baseline, EncodedVideo, PromptSpan, ReducedVideo, check_count, check_share
from .layer_loop import LayerLoop
from .ranking import greatest

SIMILARITY_THRESHOLD = 0.9


def dycoke(tokens: Tensor, merging_ratio: float, last_group: bool = False) -> tuple[Tensor, Tensor]:
    """Temporal token merging: of each group of four frames the first is whole, the others keep what changed.

    Args:
        tokens: (F, P, D), after projector and pooling.
        merging_ratio: k, share of a frame's tokens that is dropped.
        last_group: whether the last frames are treated like the others, as in the paper; else as in the program.

    Returns:
        (n, D), and their places in the video, (n,): frame by frame; in a frame that was cut, the least similar first.

    Raises:
        ValueError: if the program cannot take so few frames.
    """
    num_frames, num_places = tokens.shape[:2]
    if not last_group and num_frames <= 4:
        raise ValueError(
            f"The video has {num_frames} frames, but DyCoke's program takes 5 or more. Sample more frames, or set "
            "last_group=True, which treats the last frames as the paper describes it."
        )
    kept = [
        _least_similar(tokens, frame, compared, merging_ratio)
        for frame, compared in enumerate(_compared_frames(num_frames, last_group))
    ]
    places = torch.cat([frame * num_places + rows for frame, rows in enumerate(kept)])
    return tokens.flatten(0, 1)[places], places


def _compared_frames(num_frames: int, last_group: bool) -> list[int | None]:
    # The frame before against which each is compared; None where it stays whole.
    if last_group:
        return [None if frame % 4 == 0 else frame - (2 if frame % 4 == 2 else 1) for frame in range(num_frames)]
    paired = num_frames - num_frames % 2
    cut_by_two = range(2, num_frames - 2, 4)
    return [frame - 1 if frame % 2 else frame - 2 if frame in cut_by_two else None for frame in range(paired)]


def _least_similar(tokens: Tensor, frame: int, compared: int | None, merging_ratio: float) -> Tensor:
    num_places = tokens.shape[1]
    if compared is None:
        return torch.arange(num_places, device=tokens.device)
    similarity = torch.cosine_similarity(tokens[frame], tokens[compared], dim=-1)
    return greatest(-similarity, int((1 - merging_ratio) * num_places))


class DyCokeDecoder(LayerLoop):
    """While it writes, layers from `layer` on read only the video tokens that the layer before looks at.

    Where this step's attention resembles the last step's, the program reads the whole cache. So does this.
    """

    def __init__(self, language_model: nn.Module, span: PromptSpan, layer: int, dropped_share: float):
        super().__init__(language_model)
        self._layer = layer
        # The program's count is one short: the last video token is never dropped, nor the newline.
        self._video = slice(span.start, span.end - 1)
        self._num_kept = int((span.num_tokens - 1) * (1 - dropped_share))
        self._attention: Tensor | None = None
        self.similarities: list[float] = []

    def decode(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Writes one token."""
        for index in range(self._layer):
            before = hidden
            hidden = self.run_layer(index, hidden, positions, cache)
        attention = self.attention_of_last(self._layer - 1, before, positions, cache)
        rows = self._rows_to_read(attention)
        partial = cache if rows is None else ReadPart(cache, rows)
        for index in range(self._layer, self.num_layers):
            hidden = self.run_layer(index, hidden, positions, partial)
        return hidden

    def _rows_to_read(self, attention: Tensor) -> Tensor | None:
        to_video, last = attention[self._video], self._attention
        similarity = 0.0 if last is None else float(torch.cosine_similarity(to_video, last, dim=0))
        self._attention = to_video
        self.similarities.append(similarity)
        if similarity >= SIMILARITY_THRESHOLD:
            return None
        is_read = torch.ones_like(attention, dtype=torch.bool)
        is_read[self._video] = False
        is_read[self._video.start + greatest(to_video, self._num_kept)] = True
        return is_read.nonzero().flatten()


class ReadPart:
    """A cache that takes everything but shows only some rows of it."""

    def __init__(self, cache, rows: Tensor):
        self._cache, self._rows = cache, rows

    def update(self, keys: Tensor, values: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """As a cache's."""
        keys, values = self._cache.update(keys, values, *args, **kwargs)
        return keys[:, :, self._rows], values[:, :, self._rows]


@dataclass(frozen=True)
class DyCoke(Baseline):
    """DyCoke.

    Attributes:
        retention_ratio: share of the video tokens, from 1/4; it sets `merging_ratio` where that is None.
        merging_ratio: k, `dycoke_k`.
        last_group: the paper's last group, not the program's.
        layer: l, `dycoke_l`: layers from this one on read part of the cache.
        dropped_share: p, `dycoke_p`: 0.8 in the code, 0.7 in the README; 0 leaves decoding alone, as in the tables.
    """

    name: ClassVar[str] = "dycoke"

    retention_ratio: float = 0.25
    merging_ratio: float | None = None
    last_group: bool = True
    layer: int = 3
    dropped_share: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_count("layer", self.layer)
        if not 0 <= self.dropped_share < 1:
            raise ValueError(f"dropped_share is {self.dropped_share!r}, but must be from 0 to below 1.")
        if self.merging_ratio is not None:
            if self.merging_ratio != 0:
                check_share("merging_ratio", self.merging_ratio)
        elif self.retention_ratio < 0.25:
            raise ValueError(
                f"retention_ratio is {self.retention_ratio!r}, but DyCoke keeps every fourth frame whole: set 0.25 or "
                "more, or merging_ratio."
            )

    @property
    def dropped_of_frame(self) -> float:
        """k."""
        # A quarter of the frames is whole.
        return 4 * (1 - self.retention_ratio) / 3 if self.merging_ratio is None else self.merging_ratio

    def reduce(self, video: EncodedVideo) -> ReducedVideo:
        tokens, _ = dycoke(video.tokens, self.dropped_of_frame, self.last_group)
        return ReducedVideo(tokens)

    @property
    def works_inside(self) -> bool:
        return self.dropped_share > 0

    def wrap(self, language_model: nn.Module, span: PromptSpan, video: ReducedVideo) -> nn.Module | None:
        if not self.works_inside:
            return None
        return DyCokeDecoder(language_model, span, self.layer, self.dropped_share)

    def num_video_tokens(self, num_frames: int, tokens_per_frame: int) -> int:
        kept = int((1 - self.dropped_of_frame) * tokens_per_frame)
        return sum(
            tokens_per_frame if compared is None else kept
            for compared in _compared_frames(num_frames, self.last_group)
        )
