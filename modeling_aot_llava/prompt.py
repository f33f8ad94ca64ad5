"""Runs where a prompt is fitted to its videos: the prompt as a value, which is cut and joined column by column."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .column_layout import PADDING, resized_layout, take_columns, take_positions
from .placeholder_spans import PlaceholderSpan

IGNORED_LABEL = -100


@dataclass(frozen=True)
class Prompt:
    """What describes a prompt column by column; None where the caller passed nothing.

    Attributes:
        input_ids: (rows, columns).
        inputs_embeds: (rows, columns, hidden size).
        attention_mask: (rows, cached columns + columns), 0 where a row is padded; after a cache it also tells of the
            tokens there.
        position_ids: (rows, columns).
        labels: (rows, columns), each of its own token; `shift_labels`: the same of the token that follows.
    """

    input_ids: Tensor | None = None
    inputs_embeds: Tensor | None = None
    attention_mask: Tensor | None = None
    position_ids: Tensor | None = None
    labels: Tensor | None = None
    shift_labels: Tensor | None = None

    @property
    def num_columns(self) -> int:
        """Columns of the prompt, those in a cache not counted."""
        return (self.input_ids if self.inputs_embeds is None else self.inputs_embeds).shape[1]

    def has_labels_of(self, spans: Sequence[PlaceholderSpan]) -> bool:
        """Whether placeholders of a video have labels that are not ignored."""
        if self.labels is None:
            return False
        labels = [self.labels[span.row, span.start : span.start + span.length] for span in spans]
        return bool((torch.cat(labels) != IGNORED_LABEL).any())

    def split_after(self, num_cached: int) -> tuple["Prompt", "Prompt"]:
        """The part that is in a cache, and the new part, whose mask still tells of both.

        A later turn may pass the whole conversation or, with a mask that is wider than it, the new part alone.
        """
        is_new_alone = self.attention_mask is not None and self.attention_mask.shape[-1] > self.num_columns
        start = 0 if is_new_alone else num_cached

        def take(columns: slice) -> dict[str, Tensor | None]:
            parts = {name: getattr(self, name) for name in ("input_ids", "inputs_embeds", "position_ids")}
            return {name: None if values is None else values[:, columns] for name, values in parts.items()}

        return Prompt(**take(slice(start))), Prompt(**take(slice(start, None)), attention_mask=self.attention_mask)

    def behind(self, cached: "Prompt") -> "Prompt":
        """The whole prompt again: the inverse of `split_after`."""

        def join(first: Tensor | None, second: Tensor | None) -> Tensor | None:
            return second if first is None or second is None else torch.cat([first, second], dim=1)

        return replace(
            self,
            input_ids=join(cached.input_ids, self.input_ids),
            inputs_embeds=join(cached.inputs_embeds, self.inputs_embeds),
            position_ids=join(cached.position_ids, self.position_ids),
        )

    def instead_of(self, other: "Prompt", sequences: Tensor) -> Tensor:
        """Generated sequences that begin with this prompt instead of the other, from which they were generated.

        sequences: (sequences, columns of the other + new columns); beams and samples of a row follow each other.
        """
        if self.input_ids is None:  # from embeddings alone: nothing stands before the new tokens
            return sequences
        prompts = self.input_ids.repeat_interleave(len(sequences) // len(self.input_ids), dim=0)
        return torch.cat([prompts.to(sequences), sequences[:, other.input_ids.shape[1] :]], dim=1)

    def with_lengths(
        self, spans: Sequence[PlaceholderSpan], new_lengths: Sequence[int], pad_token_id: int
    ) -> "Prompt":
        """The prompt with another number of placeholders for each video; see `resized_layout`.

        Raises:
            ValueError: if mask, labels or positions do not describe the columns one by one, or the mask is missing
                where the rows need new padding.
        """
        self._check_widths()
        whole_mask = self._checked_mask()
        cached_mask, mask = whole_mask[:, : -self.num_columns], whole_mask[:, -self.num_columns :]
        layout = resized_layout(mask, spans, new_lengths)
        if self.attention_mask is None and bool((layout == PADDING).any()):
            raise ValueError(
                "`attention_mask` is None, but the rows of the batch get different lengths as their video "
                "placeholders are fitted: pass the mask that the processor returned, or make the prompt with "
                "AOTLlavaOnevisionProcessor."
            )
        new_mask = None if self.attention_mask is None else torch.cat([cached_mask, take_columns(mask, layout, 0)], 1)
        return Prompt(
            input_ids=_take(self.input_ids, layout, pad_token_id),
            inputs_embeds=_take(self.inputs_embeds, layout, 0),
            attention_mask=new_mask,
            position_ids=None if self.position_ids is None else take_positions(self.position_ids, mask, layout),
            labels=_take(self.labels, layout, IGNORED_LABEL),
            shift_labels=_take(self.shift_labels, layout, IGNORED_LABEL),
        )

    def _check_widths(self) -> None:
        for name in ("labels", "shift_labels", "position_ids"):
            values = getattr(self, name)
            if values is not None and values.shape[-1] != self.num_columns:
                raise ValueError(
                    f"`{name}` has {values.shape[-1]} columns, but the prompt, whose number of video placeholders "
                    f"changes here, has {self.num_columns}: pass one value a column, or make the prompt with "
                    "AOTLlavaOnevisionProcessor."
                )

    def _checked_mask(self) -> Tensor:
        values = self.input_ids if self.inputs_embeds is None else self.inputs_embeds
        if self.attention_mask is None:
            return torch.ones(values.shape[:2], dtype=torch.long, device=values.device)
        if not isinstance(self.attention_mask, Tensor) or self.attention_mask.dim() != 2:
            shape = getattr(self.attention_mask, "shape", type(self.attention_mask).__name__)
            raise ValueError(
                f"`attention_mask` is {tuple(shape) if isinstance(shape, torch.Size) else shape}, but the number of "
                "video placeholders changes here, which needs a mask of (rows, columns): make the prompt with "
                "AOTLlavaOnevisionProcessor."
            )
        return self.attention_mask


def _take(values: Tensor | None, layout: Tensor, padding: float) -> Tensor | None:
    return None if values is None else take_columns(values, layout, padding)
