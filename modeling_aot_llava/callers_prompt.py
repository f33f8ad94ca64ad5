"""Generation from another prompt than the caller's, unseen from outside.

Where the number of video placeholders changes, the language model runs a prompt of another length than the caller
wrote. Everything that the caller gets to see (streamers, logits processors, stopping criteria, sequences) then has the
caller's own prompt again, and a cache carries what a later turn of the conversation needs to go on.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import Cache, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer


class CallersPrompt:
    """The prompt as the caller wrote it, and as it is run.

    Args:
        written: (rows, columns), the caller's token ids.
        run: (rows, other columns), the ids that are run instead.
        run_mask: the same shape, 0 where those are padded.
    """

    def __init__(self, written: Tensor, run: Tensor, run_mask: Tensor):
        self.written, self.run, self.run_mask = written, run, run_mask

    @property
    def num_removed(self) -> int:
        """Columns that the caller's prompt has more than the one that is run (negative if it has fewer)."""
        return self.written.shape[1] - self.run.shape[1]

    def as_written(self, sequences: Tensor) -> Tensor:
        """Generated sequences with the caller's prompt; beams and returned sequences are copies of its rows."""
        prompt = self.written.repeat_interleave(len(sequences) // len(self.written), dim=0)
        return torch.cat([prompt.to(sequences), sequences[:, self.run.shape[1] :]], dim=1)

    def as_run(self, sequences: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """A later turn, which begins with the caller's prompt, with the one that was run; and its mask.

        Where the mask is wider than the sequences, these are the new part alone: they stay as they are.
        """
        if mask is None:
            mask = torch.ones_like(sequences)
        run, run_mask = (part.repeat_interleave(len(mask) // len(part), dim=0) for part in (self.run, self.run_mask))
        is_whole = mask.shape[1] == sequences.shape[1]
        mask = torch.cat([run_mask.to(mask), mask[:, self.written.shape[1] :]], dim=1)
        if is_whole:
            sequences = torch.cat([run.to(sequences), sequences[:, self.written.shape[1] :]], dim=1)
        return sequences, mask

    def show(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `generate`, with the caller's own objects seeing the caller's prompt."""
        wrappers = {
            "streamer": lambda streamer: _Streamer(streamer, self),
            "logits_processor": lambda all_: LogitsProcessorList(_LogitsProcessor(one, self) for one in all_),
            "stopping_criteria": lambda all_: StoppingCriteriaList(_StoppingCriteria(one, self) for one in all_),
            "prefix_allowed_tokens_fn": self._show_row,
        }
        return kwargs | {name: wrap(kwargs[name]) for name, wrap in wrappers.items() if kwargs.get(name) is not None}

    def attach_to(self, cache: Cache | None) -> None:
        """Lets a cache remember the prompt for the next turn."""
        if cache is not None:
            cache.callers_prompt = self

    @staticmethod
    def of(cache: Cache | None) -> "CallersPrompt | None":
        """The prompt that a cache remembers, if it was run from another one than the caller's."""
        if cache is not None and cache.get_seq_length() == 0:  # new, or reset for another conversation
            cache.callers_prompt = None
        return getattr(cache, "callers_prompt", None)

    def _show_row(self, prefix_allowed_tokens_fn: Callable[[int, Tensor], list[int]]) -> Callable:
        def allowed_tokens(row: int, sequence: Tensor) -> list[int]:
            # Samples of one prompt are counted as rows of their own, so the prompt tells which one it is.
            prompt, added = sequence[: self.run.shape[1]], sequence[self.run.shape[1] :]
            is_of = (self.run == prompt.to(self.run)).all(-1)
            written = self.written[int(is_of.int().argmax())].to(sequence)
            return prefix_allowed_tokens_fn(row, torch.cat([written, added]))

        return allowed_tokens


class _Streamer(BaseStreamer):
    def __init__(self, streamer: BaseStreamer, prompt: CallersPrompt):
        self.streamer = streamer
        self.prompt: CallersPrompt | None = prompt

    def put(self, value: Tensor) -> None:
        if self.prompt is not None:  # the prompt comes first, then token after token
            value, self.prompt = self.prompt.as_written(value), None
        self.streamer.put(value)

    def end(self) -> None:
        self.streamer.end()


class _LogitsProcessor(LogitsProcessor):
    def __init__(self, processor: LogitsProcessor, prompt: CallersPrompt):
        self.processor, self.prompt = processor, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.processor(self.prompt.as_written(input_ids), scores)


class _StoppingCriteria(StoppingCriteria):
    def __init__(self, criteria: StoppingCriteria, prompt: CallersPrompt):
        self.criteria, self.prompt = criteria, prompt

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        return self.criteria(self.prompt.as_written(input_ids), scores, **kwargs)
