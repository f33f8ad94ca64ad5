"""Questions as tokens, exactly as the chat template and the processor write them.

A prompt is `before` + the video tokens + the newline + the question. So the questions of one clip share everything up
to the newline, and the model reads a clip once for all of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer

from mini_checkpoint.questions import Question

BEFORE_VIDEO = "<|im_start|>user "
AFTER_VIDEO = "\n{question}<|im_end|><|im_start|>assistant\n"
END_OF_ANSWER = "<|im_end|>"


# In `answers`: nothing is to be predicted.
NO_ANSWER = -100


@dataclass
class QuestionTokens:
    """Questions with their answers, or beginnings of questions, padded on the right.

    Attributes:
        ids: (Q, L), prompt from behind the video on, and the answer.
        asks_at: (Q, 2), the positions that predict `answers`; of a beginning, its last one, twice.
        answers: (Q, 2), the answer and the end token, or NO_ANSWER.
    """

    ids: Tensor
    asks_at: Tensor
    answers: Tensor

    def __getitem__(self, chosen: Tensor) -> "QuestionTokens":
        """Some of them."""
        return QuestionTokens(self.ids[chosen], self.asks_at[chosen], self.answers[chosen])

    def to(self, device: torch.device) -> "QuestionTokens":
        """The same on another device."""
        return QuestionTokens(self.ids.to(device), self.asks_at.to(device), self.answers.to(device))


def tokens_before_video(tokenizer: Qwen2Tokenizer) -> Tensor:
    """(n,), what comes before the video tokens."""
    return torch.tensor(tokenizer(BEFORE_VIDEO).input_ids)


def first_tokens(tokenizer: Qwen2Tokenizer) -> tuple[int, int]:
    """The two tokens that every prompt begins with."""
    first, second, *_ = tokenizer(BEFORE_VIDEO).input_ids
    return first, second


def question_tokens(tokenizer: Qwen2Tokenizer, questions: list[Question]) -> QuestionTokens:
    """Writes questions as tokens; every answer must be one token."""
    prompts = [tokenizer(AFTER_VIDEO.format(question=question.text)).input_ids for question in questions]
    answers = [tokenizer(question.answer + END_OF_ANSWER).input_ids for question in questions]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    ids = _padded([[*prompt, answer] for prompt, (answer, _) in zip(prompts, answers)])
    return QuestionTokens(ids, torch.stack([lengths - 1, lengths], dim=1), torch.tensor(answers))


def beginning_tokens(tokenizer: Qwen2Tokenizer, beginnings: list[str]) -> QuestionTokens:
    """Writes beginnings of questions as tokens."""
    rows = [tokenizer(f"\n{beginning}").input_ids for beginning in beginnings]
    last = torch.tensor([len(row) - 1 for row in rows]).unsqueeze(1).expand(-1, 2)
    return QuestionTokens(_padded(rows), last, torch.full((len(rows), 2), NO_ANSWER))


def joined(parts: list[QuestionTokens]) -> QuestionTokens:
    """One after the other."""
    ids = _padded([row for part in parts for row in part.ids.tolist()])
    return QuestionTokens(
        ids, *(torch.cat([getattr(part, name) for part in parts]) for name in ("asks_at", "answers"))
    )


def _padded(rows: list[list[int]]) -> Tensor:
    # What is written there is never read.
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])
