"""A conversation about one encoded video, whose turns go on from one key-value cache."""

from typing import Any

import torch
from transformers import DynamicCache

from modeling_aot_llava.cache_name import CACHE
from modeling_aot_llava.encoded_video import EncodedVideo

from .answer import AnswerStreamer, encode, greedily, read_question, text_content
from .hosts import moved


class Conversation:
    """Questions about a video, each after what was said before."""

    def __init__(self, model: Any, processor: Any, max_new_tokens: int, num_frames: int | None):
        self._model = model
        self._processor = processor
        self._max_new_tokens = max_new_tokens
        self._num_frames = num_frames
        self._encoded: EncodedVideo | None = None
        self.video = ""
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forgets what was said; the video stays."""
        self._cache: DynamicCache | None = None
        self._ids: torch.Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Of the video, newline tokens included."""
        return len(self._encoded.tokens)

    def take(self, video: str, file: str, retention_ratio: float | None) -> None:
        """Goes on with a video, whose file lies there, and forgets what was said about another.

        Args:
            retention_ratio: share of its tokens to keep; by default the processor's, or that of an encoded video.
        """
        self._encoded = encode(
            self._model, self._processor, file, num_frames=self._num_frames, retention_ratio=retention_ratio
        )
        self.video = video
        self.begin_anew()

    def ask(self, question: str) -> None:
        """Streams the answer on stdout."""
        if self._cache is None:
            inputs = moved(read_question(self._processor, self._encoded, question), self._model)
            self._cache = DynamicCache(config=self._model.config.get_text_config())
        else:
            ids = torch.cat([self._ids, self._next_turn(question)], dim=1)
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        streamer = AnswerStreamer(self._processor.tokenizer)
        outputs = self._model.generate(
            **inputs, **{CACHE: self._cache}, streamer=streamer, **greedily(self._max_new_tokens)
        )
        self._ids = outputs.sequences

    def _next_turn(self, question: str) -> torch.Tensor:
        """The ids of a question behind an answer, (1, n): the chat template's, without those before."""
        before = [
            {"role": "user", "content": [text_content("a")]},
            {"role": "assistant", "content": [text_content("b")]},
        ]
        turn = {"role": "user", "content": [text_content(question)]}
        said, whole = (
            self._processor.apply_chat_template(turns, add_generation_prompt=is_asked)
            for turns, is_asked in ((before, False), ([*before, turn], True))
        )
        tokenizer = self._processor.tokenizer
        behind_end = said.rpartition(tokenizer.eos_token)[2] if tokenizer.eos_token in said else ""
        ends = self._model.generation_config.eos_token_id
        is_ended = int(self._ids[0, -1]) in (ends if isinstance(ends, list) else [ends])
        # An answer that was cut off at its longest has no end yet.
        text = ("" if is_ended else tokenizer.eos_token) + behind_end + whole.removeprefix(said)
        return tokenizer(text, return_tensors="pt")["input_ids"].to(self._ids.device)
