"""From a checkpoint, a video file and a question to a streamed answer."""

import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError
from transformers import BatchFeature, TextStreamer

from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)
from modeling_aot_llava.cache_name import CACHE
from modeling_aot_llava.encoded_video import EncodedVideo

from .arguments import is_encoded_file
from .hosts import frames_to_sample, host_of, load_encoded, moved


@dataclass(frozen=True)
class Answer:
    """What is told about an answer once it has been streamed."""

    video_tokens_before: int
    video_tokens_after: int
    seconds_to_first_token: float


class AnswerStreamer(TextStreamer):
    """Prints an answer as it is generated and measures how long its first token took.

    The clock starts when the streamer is made, just before it is given to `generate`.
    """

    def __init__(self, tokenizer: Any):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._started_at = time.perf_counter()
        self._first_token_at: float | None = None

    @property
    def seconds_to_first_token(self) -> float:
        """NaN until the first token has come."""
        came_at = math.nan if self._first_token_at is None else self._first_token_at
        return came_at - self._started_at

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompt first, then token after token."""
        if self._first_token_at is None and not self.next_tokens_are_prompt:
            self._first_token_at = time.perf_counter()
        super().put(value)


def silence_libraries() -> None:
    """Leaves the terminal to the answer and the progress bars."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity_error()


def find_device(name: str | None) -> str | None:
    """A `device_map`: the named device, or all GPUs; None is the CPU.

    Raises:
        ValueError: if there is no such device.
    """
    if name is None:
        return "auto" if torch.cuda.is_available() else None
    kind, _, number = name.partition(":")
    count = 1 if kind == "cpu" else getattr(torch, kind).device_count()
    if int(number or 0) >= count:
        raise ValueError(f"{name!r} is not there: this machine has {count} {kind} devices that PyTorch can use.")
    return name


def load(
    model_id: str, retention_ratio: float | None
) -> tuple[AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor]:
    """Loads model and processor; see `load_model` and `load_processor`."""
    processor = load_processor(model_id, retention_ratio)
    return load_model(model_id, retention_ratio), processor


def load_processor(model_id: str, retention_ratio: float | None, revision: str | None = None) -> Any:
    """Loads the processor of any of the hosts; a retention ratio of None leaves it to the checkpoint.

    Raises:
        ValueError: if it is a checkpoint of another kind of model.
        OSError: if there is no such checkpoint.
    """
    revision = revision or "main"
    processor_class = host_of(model_id, revision).processor
    return processor_class.from_pretrained(model_id, revision=revision, **_overrides(retention_ratio))


def load_model(
    model_id: str,
    retention_ratio: float | None,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
) -> Any:
    """Loads the model of any of the hosts; a retention ratio of None leaves it to the checkpoint.

    Args:
        device: as `find_device` takes it.

    Raises:
        ValueError: if it is a checkpoint of another kind of model.
        OSError: if there is no such checkpoint, or its weights are damaged.
    """
    revision = revision or "main"
    model_class = host_of(model_id, revision).model
    try:
        return model_class.from_pretrained(
            model_id,
            revision=revision,
            dtype=dtype,
            device_map=find_device(device),
            **_overrides(retention_ratio),
        )
    except SafetensorError as error:
        raise OSError(f"The weights of {model_id} cannot be read ({error}). Download or save them again.") from error


def _overrides(retention_ratio: float | None) -> dict[str, float]:
    return {} if retention_ratio is None else {"retention_ratio": retention_ratio}


def read_question(
    processor: Any, video: str | Path | EncodedVideo, prompt: str, num_frames: int | None = None, **options: Any
) -> BatchFeature:
    """Reads the video and writes the prompt around its placeholders.

    Args:
        video: a file, also one of an encoded video; or an encoded video.
        num_frames: to sample; None leaves it to the checkpoint. Of an encoded video it must be as many.
        options: of the processor's call; those that are None are its own.
    """
    options = {name: value for name, value in options.items() if value is not None}
    of_file = isinstance(video, (str, Path))
    content = [{"type": "video", **({"path": str(video)} if of_file else {"video": video})}, text_content(prompt)]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={**_frames_to_sample(processor, video, num_frames), **options},
    )


def _frames_to_sample(processor: Any, video: str | Path | EncodedVideo, num_frames: int | None) -> dict[str, Any]:
    is_encoded = isinstance(video, EncodedVideo) or is_encoded_file(str(video))
    return {} if is_encoded and num_frames is None else frames_to_sample(processor, num_frames)


def text_content(text: str) -> dict[str, str]:
    """A text as conversations hold it."""
    return {"type": "text", "text": text}


def encode(
    model: Any,
    processor: Any,
    video: str,
    source: str | None = None,
    num_frames: int | None = None,
    **options: Any,
) -> EncodedVideo:
    """Reads and encodes a video for many questions; the file of an encoded video is loaded.

    Args:
        source: what the video is called.
        num_frames, options: as in `read_question`.
    """
    options = {name: value for name, value in options.items() if value is not None}
    options.update(_frames_to_sample(processor, video, num_frames))
    call = {"text": processor.video_token, "videos": [video], "return_tensors": "pt", **options}
    if is_encoded_file(video):
        processor(**call)  # raises if the call asks for another ratio than the file's, or for other frames
        return load_encoded(processor, video)
    inputs = processor(**call, return_metadata=True)
    return model.encode_video(**moved(inputs, model), source=source)


def stream_answer(
    model: Any, processor: Any, question: BatchFeature, max_new_tokens: int, num_frames: int | None = None
) -> Answer:
    """Generates greedily and prints every word on stdout as soon as it stands.

    Args:
        num_frames: of an encoded video of LLaVA's; the question tells those of another.
    """
    grids = question.get("video_grid_thw")
    question = moved(question, model)
    streamer = AnswerStreamer(processor.tokenizer)
    outputs = model.generate(**question, streamer=streamer, **greedily(max_new_tokens))
    num_read = _count_placeholders_read(model, question["input_ids"], outputs)
    if grids is None:
        num_frames = question["pixel_values_videos"].shape[1] if num_frames is None else num_frames
        num_whole = num_frames * model.config.pooled_grid_size**2
        num_read = without_newlines(num_read, num_frames, model.config)
    else:
        num_whole = sum(frames * model.config.grid_of((frames, *grid)).num_pooled for frames, *grid in grids.tolist())
    return Answer(
        video_tokens_before=num_whole,
        video_tokens_after=num_read,
        seconds_to_first_token=streamer.seconds_to_first_token,
    )


def greedily(max_new_tokens: int) -> dict[str, Any]:
    """Options of `generate` for one answer that can be streamed, whatever the checkpoint's generation config says."""
    return {
        "do_sample": False,
        "num_beams": 1,
        "num_return_sequences": 1,
        "max_new_tokens": max_new_tokens,
        "use_cache": True,
        "return_dict_in_generate": True,
    }


def _count_placeholders_read(model: Any, input_ids: torch.Tensor, outputs: Any) -> int:
    """Counts what the language model really read: some settings leave the number to the video."""
    num_generated = outputs.sequences.shape[1] - input_ids.shape[1]
    # The last token is written but never read.
    prompt_tokens = getattr(outputs, CACHE).get_seq_length() - (num_generated - 1)
    return prompt_tokens - int((input_ids != model.config.video_token_id).sum())


def without_newlines(num_tokens: int, num_frames: int, config: AOTLlavaOnevisionConfig) -> int:
    """What is left of a video's tokens, or placeholders, without those for newlines."""
    all_tokens, newlines = num_frames * config.pooled_grid_size**2, config.count_newlines(num_frames, False)
    if num_tokens != all_tokens + newlines:
        newlines = config.count_newlines(num_frames, is_compressed=True)
    return num_tokens - newlines
