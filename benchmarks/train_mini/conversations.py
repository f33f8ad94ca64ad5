"""Questions as tokens, exactly as the chat template and the processor write them.

A prompt is `before` + the video tokens + the newline + the question. So the questions of one clip share everything up
to the newline, and the model reads a clip once for all of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Qwen2Tokenizer

from benchmarks.video_questions import Question

BEFORE_VIDEO = "<|im_start|>user "
AFTER_VIDEO = "\n{question}<|im_end|><|im_start|>assistant\n"
END_OF_ANSWER = "<|im_end|>"


@dataclass
class QuestionTokens:
    """Questions with their answers, padded on the right.

    Attributes:
        ids: (Q, L), prompt from behind the video on, and the answer.
        asks_at: (Q, 2), the positions that predict `answers`.
        answers: (Q, 2), the answer and the end token.
    """

    ids: Tensor
    asks_at: Tensor
    answers: Tensor

    def to(self, device: torch.device) -> "QuestionTokens":
        """The same on another device."""
        return QuestionTokens(self.ids.to(device), self.asks_at.to(device), self.answers.to(device))


def tokens_before_video(tokenizer: Qwen2Tokenizer) -> Tensor:
    """(n,), what comes before the video tokens."""
    return torch.tensor(tokenizer(BEFORE_VIDEO).input_ids)


def question_tokens(tokenizer: Qwen2Tokenizer, questions: list[Question]) -> QuestionTokens:
    """Writes questions as tokens; every answer must be one token."""
    prompts = [tokenizer(AFTER_VIDEO.format(question=question.text)).input_ids for question in questions]
    answers = torch.tensor([tokenizer(question.answer + END_OF_ANSWER).input_ids for question in questions])
    longest = max(map(len, prompts)) + 1
    ids = torch.full((len(questions), longest), tokenizer.pad_token_id)
    for row, (prompt, answer) in enumerate(zip(prompts, answers[:, 0].tolist())):
        ids[row, : len(prompt) + 1] = torch.tensor([*prompt, answer])
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return QuestionTokens(ids, torch.stack([lengths - 1, lengths], dim=1), answers)
