"""The classes that lmms-eval makes: two for each method, for simple and for chat requests.

Each process answers its share of the requests, one after the other; while it answers one, the next are read and
prepared. Answers are handed over as they come, so that lmms-eval's --use_cache keeps those of a run that is stopped
(with LMMS_CACHE_RUN_ID set: it is how lmms-eval finds an unfinished run again).
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from itertools import groupby
from typing import Any

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.api.task import Task
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from loguru import logger
from tqdm import tqdm

from . import conversations
from .answering import Answerer, settings_of
from .answering_qwen_vl import QwenVLAnswerer, settings_of_host
from .arguments import HarnessArguments, split_arguments
from .conversations import Conversation
from .names import AOT, METHODS, QWEN_VL, class_names, model_id
from .preparing import Prepared
from .running_ahead import running_ahead

Batch = tuple[Mapping[str, Any], list[Instance]]

# A process that is done waits for the slowest; never so long that the wait is taken for a failure.
PATIENCE = timedelta(weeks=52)


class AOTModel(lmms):
    """A method on a LLaVA-OneVision or LLaVA-Video checkpoint, or AOT on a Qwen-VL one, as lmms-eval drives it."""

    method: str = AOT

    def __init__(self, **arguments: Any):
        """Takes `HarnessArguments` and the method's settings.

        Raises:
            ValueError: if there is no such argument, or a value is not allowed.
            OSError: if there is no such checkpoint.
        """
        super().__init__()
        answerer, names = Answerer, settings_of
        if self.method in QWEN_VL:
            answerer, names = QwenVLAnswerer, settings_of_host
        harness, settings = split_arguments(model_id(self.method), arguments, names(self.method))
        # Told that there is nothing but CPUs, it lets processes of `torchrun` know each other there, too.
        self.accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(), kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)]
        )
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self._answerer = answerer(self.method, harness, settings, self._device_map(harness))
        self._device, self._harness = self._answerer.model.device, harness

    def _device_map(self, harness: HarnessArguments) -> Any:
        if self._world_size == 1:
            return harness.device_map or harness.device or self.accelerator.device
        for name in ("device_map", "device"):
            if getattr(harness, name) is not None:
                raise ValueError(
                    f"{name}={getattr(harness, name)} places the model of one process, but there are "
                    f"{self._world_size} processes with a GPU each: leave it out, or start one process."
                )
        return self.accelerator.device

    @property
    def device(self):
        """Where the model is, or its first layers."""
        return self._device

    def clean(self) -> None:
        """Frees the model's memory: lmms-eval may have a judge to load before it scores."""
        del self._answerer
        super().clean()

    @property
    def batch_size(self) -> int:
        """Prompts that are answered together."""
        return self._harness.batch_size

    def generate_until(self, requests: list[Instance]) -> Iterator[GenerationResult] | list[GenerationResult]:
        """Answers requests, in their order and as they come.

        Raises:
            OSError, ValueError: if a video cannot be read; what was answered before is not lost with --use_cache.
        """
        answers = self._answers(requests)
        # Where lmms-eval asks for one at a time it takes it by its index.
        return list(answers) if len(requests) == 1 else answers

    def _answers(self, requests: list[Instance]) -> Iterator[GenerationResult]:
        num_tokens = unreadable = 0
        started_at, reused_before = time.perf_counter(), self._answerer.kept.num_reused
        batches = running_ahead(self._prepare, self._batches(requests), self._harness.read_ahead)
        with closing(batches), tqdm(total=len(requests), disable=self._rank != 0, desc="Model Responding") as progress:
            for options, conversations in batches:
                answers = self._answerer.answer(conversations, options)
                unreadable += self._count_unreadable(conversations)
                num_tokens += sum(answer.num_tokens for answer in answers)
                progress.update(len(answers))
                for answer in answers:
                    yield GenerationResult(answer.text, TokenCounts(output_tokens=answer.num_tokens))
        if unreadable:
            answered = f"they were answered as {self._harness.unreadable_videos} does"
            of_requests = f"{unreadable} of {len(requests)} requests of process {self._rank}"
            logger.warning(f"{of_requests} had a video that cannot be read: {answered}.")
        reused = self._answerer.kept.num_reused - reused_before
        if reused:
            logger.info(f"{reused} of {len(requests)} requests of process {self._rank} reused an encoded video.")
        seconds = time.perf_counter() - started_at
        log_metrics(total_gen_tokens=num_tokens, total_elapsed_time=seconds, avg_speed=num_tokens / max(seconds, 1e-9))

    def _count_unreadable(self, conversations: Prepared) -> int:
        for row, error in conversations.errors.items():
            videos = ", ".join(map(str, conversations[row].videos))
            logger.warning(f"{videos} cannot be read, and the run goes on without it: {error}")
        return len(conversations.errors)

    def _batches(self, requests: list[Instance]) -> Iterator[Batch]:
        """Neighbours with the same options, as many as the batch size says."""
        for options, group in groupby(requests, key=self._options):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                yield options, alike[start : start + self.batch_size]

    def _prepare(self, batch: Batch) -> tuple[Mapping[str, Any], Prepared]:
        options, requests = batch
        return options, self._answerer.prepare([self._conversation(request) for request in requests])

    def _options(self, request: Instance) -> Mapping[str, Any]:
        return request.args[1]

    def _conversation(self, request: Instance) -> Conversation:
        context, _, doc_to_visual, doc_id, task_name, split = request.args
        # A request refers to its task by the task's methods alone.
        return self._of_text(context, doc_to_visual.__self__, self.task_dict[task_name][split][doc_id])

    def _of_text(self, context: str, task: Task, doc: Mapping[str, Any]) -> Conversation:
        wordings = task.config.lmms_eval_specific_kwargs or {}
        if self._harness.task_prompts in wordings:
            context = task.config.doc_to_text(doc, wordings[self._harness.task_prompts])
        return conversations.of_context(context, task.doc_to_visual(doc))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Not available: the methods are defined for reading a prompt and writing an answer."""
        raise NotImplementedError(
            f"{model_id(self.method)} writes answers: take the generating form of the task, as egoschema_subset "
            "instead of egoschema_subset_mcppl."
        )

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Not available."""
        raise NotImplementedError(f"{model_id(self.method)} answers one question at a time: take another task.")


class AOTChatModel(AOTModel):
    """The same for requests that come as messages."""

    is_simple = False

    def _options(self, request: Instance) -> Mapping[str, Any]:
        return request.args[2]

    def _conversation(self, request: Instance) -> Conversation:
        context, doc_to_messages, _, doc_id, task_name, split = request.args
        doc = self.task_dict[task_name][split][doc_id]
        task = getattr(doc_to_messages, "__self__", None)  # lmms-eval's agentic loop has a function of its own
        if task is None or callable(task.config.doc_to_messages):
            return conversations.of_messages(doc_to_messages(doc))
        # Messages that lmms-eval makes of text and visuals call a webm audio, and one path many of one letter.
        return self._of_text(context, task, doc)


# lmms-eval finds a model by the path of a class, and asks for one each.
for _method in (AOT, *METHODS, *QWEN_VL):
    for _base, _name in zip((AOTModel, AOTChatModel), class_names(_method)):
        globals()[_name] = type(_name, (_base,), {"method": _method, "__module__": __name__, "__doc__": _base.__doc__})
