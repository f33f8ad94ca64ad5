"""A checkpoint that answers conversations, with AOT or with another method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers.image_utils import load_image

from aot_llava_baselines import BASELINES, BaselineGenerator, PoolingHead, build_baseline, check_defined_for
from aot_llava_cli.answer import check_model_type
from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)
from modeling_aot_llava.configuration_aot_llava import AOT_FIELDS

from .arguments import HarnessArguments
from .conversations import TEMPLATES, Conversation
from .frame_sampling import SAMPLINGS, Frames
from .names import AOT

# How the checkpoint pools and where it has newlines: of AOT's fields those that every method has, too.
OF_CHECKPOINT = ("mm_spatial_pool_mode", "mm_newline_position")
# Of FastVID alone: the SigLIP checkpoint whose pooling head it reads.
POOLING_HEAD = "pooling_head"
# What tasks say beside the options of `generate`. LLaVA's classes write on beyond `until`, too.
NOT_OF_GENERATE = ("until", "image_aspect_ratio")
OF_SAMPLING = ("temperature", "top_p", "top_k")
LONGEST_ANSWER = 1024


@dataclass(frozen=True)
class Answer:
    """What was written, without white space around it."""

    text: str
    num_tokens: int


@dataclass(frozen=True)
class _Prompt:
    """A conversation with its videos read."""

    text: str
    images: Sequence[Any]
    videos: Sequence[Frames]

    @property
    def shape(self) -> tuple[int, ...]:
        """Prompts of one shape fit into one batch."""
        return (len(self.images), *(len(frames) for frames, _ in self.videos))


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
        self._harness = harness
        overrides = settings = dict(settings)
        if method != AOT:
            head = settings.pop(POOLING_HEAD, None)
            overrides = {name: settings.pop(name) for name in OF_CHECKPOINT if name in settings}
            overrides["retention_ratio"] = 1.0  # all tokens, of which the method then makes its own
            baseline = build_baseline(method, **settings)
        revision = str(harness.revision or "main")
        check_model_type(harness.pretrained, revision)
        source = {"pretrained_model_name_or_path": harness.pretrained, "revision": revision}
        config = AOTLlavaOnevisionConfig.from_pretrained(**source, **overrides)  # raises before weights are loaded
        if method != AOT:
            check_defined_for(baseline, config)
        self.processor = AOTLlavaOnevisionProcessor.from_pretrained(
            **source,
            retention_ratio=1.0,
            add_time_instruction=harness.add_time_instruction,
            **_of_processor(overrides),
        )
        self.processor.tokenizer.padding_side = "left"
        self.model = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(
            **source,
            **overrides,
            dtype=harness.dtype,
            device_map=device_map,
            attn_implementation=harness.attn_implementation,
        ).eval()
        self._generate = self.model.generate
        if method != AOT:
            pooling_head = None if head is None else PoolingHead.from_pretrained(head).to(self.model.device)
            self._generate = BaselineGenerator(self.model, baseline, pooling_head).generate

    @torch.inference_mode()
    def answer(self, conversations: Sequence[Conversation], options: Mapping[str, Any]) -> list[Answer]:
        """Answers conversations of all kinds, those that fit together in one batch.

        Args:
            options: a task's `generation_kwargs`.
        """
        prompts = [self._prompt(conversation) for conversation in conversations]
        answers: dict[int, Answer] = {}
        by_shape = sorted(range(len(prompts)), key=lambda row: prompts[row].shape)
        for _, rows in groupby(by_shape, key=lambda row: prompts[row].shape):
            batch = list(rows)
            answers.update(zip(batch, self._answer_batch([prompts[row] for row in batch], options)))
        return [answers[row] for row in range(len(prompts))]

    def _prompt(self, conversation: Conversation) -> _Prompt:
        text = TEMPLATES[self._harness.conv_template](self.processor, conversation)
        sample = SAMPLINGS[self._harness.frame_sampling]
        videos = [sample(video, self._harness.max_frames_num) for video in conversation.videos]
        return _Prompt(text, [load_image(image) for image in conversation.images], videos)

    def _answer_batch(self, prompts: Sequence[_Prompt], options: Mapping[str, Any]) -> list[Answer]:
        images = [image for prompt in prompts for image in prompt.images]
        videos = [video for prompt in prompts for video in prompt.videos]
        of_videos = {}
        if videos:
            frames, metadata = zip(*videos)
            of_videos = {"videos": list(frames), "video_metadata": list(metadata), "do_sample_frames": False}
        inputs = self.processor(
            text=[prompt.text for prompt in prompts],
            images=images or None,
            padding=True,
            return_tensors="pt",
            **of_videos,
        ).to(self.model.device, self.model.dtype)
        sequences = self._generate(**inputs, **options_of_generate(options))
        return [self._read(row) for row in sequences[:, inputs["input_ids"].shape[1] :]]

    def _read(self, written: Tensor) -> Answer:
        tokenizer = self.processor.tokenizer
        num_tokens = int((written != tokenizer.pad_token_id).sum())
        return Answer(tokenizer.decode(written, skip_special_tokens=True).strip(), num_tokens)


def options_of_generate(given: Mapping[str, Any]) -> dict[str, Any]:
    """A task's `generation_kwargs` as options of `generate`: greedy unless it wants to sample."""
    options = {name: value for name, value in given.items() if name not in NOT_OF_GENERATE}
    options.setdefault("do_sample", bool(options.get("temperature")))
    options.setdefault("max_new_tokens", LONGEST_ANSWER)
    return {name: value for name, value in options.items() if options["do_sample"] or name not in OF_SAMPLING}


def _of_processor(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the model's fields that the processor has, too, without the ratio: its prompts have all tokens.

    The model then cuts them down to its own ratio, also where the number of tokens depends on the video.
    """
    shared = ("num_clips", "mm_spatial_pool_mode", "mm_newline_position", "aot_newline_position")
    return {name: overrides[name] for name in shared if name in overrides}
