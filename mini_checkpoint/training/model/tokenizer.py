"""The mini model's tokenizer: Qwen2's byte-level one, with merges learnt from the questions.

Every byte is a token, so it takes any text; every word of the questions is one token too, so prompts are short and an
answer is a single token.
"""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

from .prompt_format import SPECIAL_TOKENS

# More merges than the questions' words can use: training ends when every word is one token.
LARGEST_VOCABULARY = 4096


def build_tokenizer(texts: Iterable[str], answers: Iterable[str]) -> Qwen2Tokenizer:
    """Builds the tokenizer from questions and answers.

    Args:
        texts: what prompts are made of; each of their words becomes a token.
        answers: each becomes one token as it stands at the start of a line.

    Raises:
        ValueError: if an answer is not one word.
    """
    answers = sorted(set(answers))
    learner = Tokenizer(models.BPE())
    # Qwen2's own rules of where words end, with bytes as characters.
    learner.pre_tokenizer = _empty_tokenizer().backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator([*texts, *answers], trainer)
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    tokenizer = _tokenizer(merges)
    for answer in answers:
        if len(tokenizer(answer).input_ids) != 1:
            raise ValueError(f"the answer {answer!r} is not one word, so it cannot be one token")
    return tokenizer


def _empty_tokenizer() -> Qwen2Tokenizer:
    return _tokenizer([])


def _tokenizer(merges: list[tuple[str, str]]) -> Qwen2Tokenizer:
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    tokens = [*dict.fromkeys(tokens), *SPECIAL_TOKENS]
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=["<|im_start|>", "<image>", "<video>"],
        padding_side="left",
    )
