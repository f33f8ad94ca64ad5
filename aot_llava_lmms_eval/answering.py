"""A checkpoint that answers conversations, with AOT or with another method."""

import copy
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from aot_llava_baselines import BASELINES, PoolingHead, build_baseline, check_defined_for
from aot_llava_cli.hosts import check_is_llava
from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)
from modeling_aot_llava.configuration_aot_llava import AOT_FIELDS

from .arguments import HarnessArguments
from .conversations import Conversation
from .kept_videos import KeptVideo, KeptVideos, RecordingGenerator, moved, recorded
from .names import AOT
from .preparing import Batch, Prepared, Preparer

logger = logging.getLogger(__name__)

# How the checkpoint pools and where it has newlines: of AOT's fields those that every method has, too.
OF_CHECKPOINT = ("mm_spatial_pool_mode", "mm_newline_position")
# Of the model's fields those that the processor has, too, and counts placeholders with.
SHARED_WITH_PROCESSOR = ("num_clips", *OF_CHECKPOINT, "aot_newline_position")
# Of FastVID alone: the SigLIP checkpoint whose pooling head it reads.
POOLING_HEAD = "pooling_head"
# What tasks say beside the options of `generate`. LLaVA's classes write on beyond `until`, too.
NOT_OF_GENERATE = ("until", "image_aspect_ratio")
OF_SAMPLING = ("temperature", "top_p", "top_k")
LONGEST_ANSWER = 1024
# Of a checkpoint's generation config, with the value that switches each off: here they act on the prompt, too, while
# LLaVA's own `generate`, which is given embeddings, knows no prompt for them to act on.
ON_PROMPT = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
}


@dataclass(frozen=True)
class Answer:
    """What was written, without white space around it."""

    text: str
    num_tokens: int


def settings_of(method: str) -> tuple[str, ...]:
    """The names of a method's settings."""
    if method == AOT:
        return AOT_FIELDS
    names = (*(field.name for field in fields(BASELINES[method])), *OF_CHECKPOINT)
    return (*names, POOLING_HEAD) if method == "fastvid" else names


class Answerer:
    """Model and processor."""

    def __init__(
        self, method: str, harness: HarnessArguments, settings: Mapping[str, Any], device_map: str | torch.device
    ):
        """Loads them, once all settings are known to be allowed.

        Raises:
            ValueError: if a setting is not allowed, or it is a checkpoint of another kind of model.
            OSError: if there is no such checkpoint.
        """
        overrides = settings = dict(settings)
        if method != AOT:
            head = settings.pop(POOLING_HEAD, None)
            overrides = {name: settings.pop(name) for name in OF_CHECKPOINT if name in settings}
            overrides["retention_ratio"] = 1.0  # all tokens, of which the method then makes its own
            baseline = build_baseline(method, **settings)
        revision = str(harness.revision or "main")
        check_is_llava(harness.pretrained, revision)
        source = {"pretrained_model_name_or_path": harness.pretrained, "revision": revision}
        config = AOTLlavaOnevisionConfig.from_pretrained(**source, **overrides)  # raises before weights are loaded
        if method != AOT:
            check_defined_for(baseline, config)
        processor = AOTLlavaOnevisionProcessor.from_pretrained(
            **source,
            retention_ratio=config.retention_ratio,
            add_time_instruction=harness.add_time_instruction,
            **{name: getattr(config, name) for name in SHARED_WITH_PROCESSOR},
        )
        self._take(processor, harness, KeptVideos(round(harness.keep_encoded_gib * 2**30)))
        self.model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(
            **source,
            **overrides,
            dtype=harness.dtype,
            device_map=device_map,
            attn_implementation=harness.attn_implementation,
        ).eval()
        reset_penalties(self.model.generation_config)
        self._generate, self._method = self.model.generate, None
        if method != AOT:
            pooling_head = None if head is None else PoolingHead.from_pretrained(head).to(self.model.device)
            self._method = RecordingGenerator(self.model, baseline, pooling_head)
            self._generate = self._method.generate

    def _take(self, processor: Any, harness: HarnessArguments, kept: KeptVideos) -> None:
        processor.tokenizer.padding_side = "left"
        self.processor, self.kept = processor, kept
        self._preparer = Preparer(processor, harness, kept)
        # A tokenizer that writes must not be read with at the same time, and prompts may be written in another thread.
        self._tokenizer = copy.deepcopy(processor.tokenizer)

    def prepare(self, conversations: Sequence[Conversation]) -> Prepared:
        """Reads the videos and writes the prompts, without the model: another thread may do it meanwhile.

        Raises:
            OSError, ValueError: as `Preparer.prepare`.
        """
        return self._preparer.prepare(conversations)

    @torch.inference_mode()
    def answer(self, conversations: Sequence[Conversation], options: Mapping[str, Any]) -> list[Answer]:
        """Answers conversations of all kinds, those that fit together in one batch.

        Args:
            conversations: of `prepare`, or as they are.
            options: a task's `generation_kwargs`.
        """
        prepared = conversations if isinstance(conversations, Prepared) else self.prepare(conversations)
        answers = {row: Answer(text, 0) for row, text in prepared.said.items()}
        for batch in prepared.batches:
            answers.update(zip(batch.rows, self._answer_batch(batch, options)))
        for row, reused in prepared.reused.items():
            video = self.kept.take(reused.key)
            if video is None:  # others took its room
                anew = self._preparer.prepare([prepared[row]], reuse=False)
                if anew.errors:
                    (prepared.errors[row],) = anew.errors.values()
                (answers[row],) = self.answer(anew, options)
            else:
                answers[row] = self._answer_reused(reused.text, video, options)
        return [answers[row] for row in range(len(prepared))]

    def _answer_batch(self, batch: Batch, options: Mapping[str, Any]) -> list[Answer]:
        inputs = batch.inputs.to(self.model.device, self.model.dtype)
        with self._recorded() as made:
            sequences = self._generate(**inputs, **options_of_generate(options))
        # Of several beams a video comes several times; and a batch without videos has nothing to keep.
        of_rows = zip(batch.keys, made, batch.sentences) if len(made) == len(batch.keys) else ()
        for key, (video, num_placeholders), sentence in of_rows:
            if key is not None:
                self.kept.bring(key, KeptVideo(moved(video, "cpu"), num_placeholders, sentence))
        return [self._read(row) for row in sequences[:, inputs["input_ids"].shape[1] :]]

    @contextmanager
    def _recorded(self) -> Iterator[list[Any]]:
        if self._method is None:
            with recorded(self.model) as made:
                yield made
            return
        self._method.made = made = []
        try:
            yield made
        finally:
            self._method.made = None

    def _answer_reused(self, text: str, video: KeptVideo, options: Mapping[str, Any]) -> Answer:
        placeholder = self.processor.video_token
        text = text.replace(placeholder, placeholder * video.num_placeholders + video.sentence)
        prompt = self._tokenizer([text], return_tensors="pt")["input_ids"].to(self.model.device)
        made, of_generate = moved(video.made, self.model.device), options_of_generate(options)
        if self._method is not None:
            return self._read(self._method.answer(prompt, made, video.num_placeholders, **of_generate))
        (written,) = self.model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            mm_encoder_outputs={"video": BaseModelOutputWithPooling(pooler_output=[made])},
            **of_generate,
        )
        return self._read(written[prompt.shape[1] :])

    def _read(self, written: Tensor) -> Answer:
        num_tokens = int((written != self._tokenizer.pad_token_id).sum())
        return Answer(self._tokenizer.decode(written, skip_special_tokens=True).strip(), num_tokens)


def reset_penalties(generation_config: GenerationConfig) -> None:
    """Switches off what would act on the prompt, as `ON_PROMPT` says, and says so."""
    for name, off in ON_PROMPT.items():
        value = getattr(generation_config, name, None)
        if value not in (None, off):
            setattr(generation_config, name, off)
            logger.warning(
                "The checkpoint's generation config says %s=%s. Here it would act on the prompt, too, but not in "
                "LLaVA's own classes: it is set to %s. With --gen_kwargs %s=%s it acts on both.",
                *(name, value, off, name, value),
            )


def options_of_generate(given: Mapping[str, Any]) -> dict[str, Any]:
    """A task's `generation_kwargs` as options of `generate`: greedy unless it wants to sample."""
    options = {name: value for name, value in given.items() if name not in NOT_OF_GENERATE}
    options.setdefault("do_sample", bool(options.get("temperature")))
    options.setdefault("max_new_tokens", LONGEST_ANSWER)
    return {name: value for name, value in options.items() if options["do_sample"] or name not in OF_SAMPLING}
