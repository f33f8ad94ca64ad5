"""Runs in vLLM, which serves the model through its Transformers backend: what AOT must know of it (`docs/serving.md`).

vLLM reserves the places of a video's tokens before it encodes the video. Whatever would make another number of tokens,
or the ranks of a tensor-parallel model choose different ones, is refused when the model is built: later it would end
the server, or cut off the video's end without a word.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import BatchFeature, ProcessorMixin
from transformers.utils import logging

# The releases that this code was tried with. The backend is rebuilt in every release of vLLM.
VLLM_FROM, VLLM_BEFORE = (0, 32), (0, 34)
TRANSFORMERS_FROM, TRANSFORMERS_BEFORE = (5, 20), (5, 21)

# What vLLM reads of a video file unless it is told otherwise, whatever the folder's processor says.
FRAMES_READ_BY_VLLM = 32

logger = logging.get_logger(__name__)


def is_served_by_vllm(config) -> bool:
    """Whether vLLM builds the model: its backend marks the config of the language model so."""
    return config.text_config._attn_implementation == "vllm"


def check_can_be_served(config) -> None:
    """Raises if vLLM would build a model here that it cannot serve rightly.

    Args:
        config: an `AOTLlavaOnevisionConfig`.

    Raises:
        ValueError: if the number of video tokens depends on the video.
        ImportError: if vLLM or transformers are releases that this code was not made for.
    """
    _check_releases()
    if not config.has_fixed_token_count:
        name = "recipe" if config.recipe != "paper" else "temporal_threshold"
        raise ValueError(
            f"`{name}` is {getattr(config, name)!r}, with which the number of video tokens depends on the video, but "
            'vLLM must know it beforehand: serve a folder with `recipe="paper"` and without `temporal_threshold`, or '
            """add --hf-overrides '{"recipe": "paper", "temporal_threshold": null, "keep_ratio": null}'."""
        )
    _warn_of_other_frames()


def is_called_by_vllm(keywords: Mapping[str, Any]) -> bool:
    """Whether it is vLLM that calls the processor with these keywords: it asks where the placeholders are."""
    return "vllm" in sys.modules and bool(keywords.get("return_text_replacement_offsets"))


class Refusal(BatchFeature):
    """What vLLM gets instead of inputs, and finds the error in.

    What a processor raises, it replaces by a text of its own that shows all pixels of the request and not the reason.
    """

    def __init__(self, error: Exception):
        self._error = error

    @property
    def data(self) -> dict[str, Any]:
        """Raises what was wrong with the request."""
        raise self._error


def tells_vllm(call: Callable[..., BatchFeature]) -> Callable[..., BatchFeature]:
    """A processor's `__call__` that lets vLLM tell a client why a request is refused."""

    @functools.wraps(call)
    def call_telling(*arguments: Any, **keywords: Any) -> BatchFeature:
        try:
            return call(*arguments, **keywords)
        except (TypeError, ValueError) as error:
            if is_called_by_vllm(keywords):
                return Refusal(error.with_traceback(None))
            raise

    return call_telling


def vllm_compiles_vision_tower() -> bool:
    """Whether vLLM, which builds the model now, is to compile its vision tower (`compile_mm_encoder`)."""
    try:
        from vllm.config import get_current_vllm_config_or_none
    except ImportError:
        return False
    vllm_config = get_current_vllm_config_or_none()
    return vllm_config is not None and bool(vllm_config.compilation_config.compile_mm_encoder)


def mean_over_ranks(received: Tensor, projection: nn.Module) -> Tensor:
    """The mean of what the ranks of a tensor-parallel vision tower computed, each from the heads that it has.

    Args:
        received: of this rank's heads, any shape.
        projection: the module that gave their queries and keys; vLLM's tell among how many ranks they are split.
    """
    num_ranks = getattr(projection, "tp_size", 1)
    if num_ranks == 1:
        return received
    try:
        from vllm.distributed import tensor_model_parallel_all_reduce
    except ImportError as error:
        raise ImportError("The vision tower is split among several ranks, but vLLM cannot be imported.") from error
    return tensor_model_parallel_all_reduce(received) / num_ranks


def _check_releases() -> None:
    try:
        import vllm
    except ImportError:  # not vLLM's own doing that the config names it
        return
    if not VLLM_FROM <= vllm.__version_tuple__[:2] < VLLM_BEFORE:
        raise ImportError(
            f"vLLM is {vllm.__version__}, but this model is served by vLLM from {_text(VLLM_FROM)} and before "
            f"{_text(VLLM_BEFORE)}: install one of those, or a later release of the model's code."
        )
    release = tuple(int(number) for number in transformers.__version__.split(".")[:2])
    if not TRANSFORMERS_FROM <= release < TRANSFORMERS_BEFORE:
        raise ImportError(
            f"transformers is {transformers.__version__}, but beside vLLM this model needs one from "
            f"{_text(TRANSFORMERS_FROM)} and before {_text(TRANSFORMERS_BEFORE)}: run "
            f"`pip install --no-deps 'transformers=={_text(TRANSFORMERS_FROM)}.*'`."
        )


def _warn_of_other_frames() -> None:
    """vLLM decodes video files before any code of the folder is asked, and the model is built in another process."""
    vllm_config = _vllm_config()
    multimodal_config = vllm_config and vllm_config.model_config.multimodal_config
    if not multimodal_config or {"num_frames", "fps"} & set(multimodal_config.media_io_kwargs.get("video", {})):
        return
    folder, revision = vllm_config.model_config.model, vllm_config.model_config.revision
    num_frames = ProcessorMixin.get_processor_dict(folder, revision=revision or "main")[0].get("num_frames")
    if num_frames not in (None, FRAMES_READ_BY_VLLM):
        logger.warning(
            f"vLLM reads {FRAMES_READ_BY_VLLM} frames of a video, but the processor of {folder} says {num_frames}: so "
            "its answers are not those of `generate`. For the same, start it with "
            f"""--media-io-kwargs '{{"video": {{"num_frames": {num_frames}}}}}'."""
        )


def _vllm_config() -> Any:
    try:
        from vllm.config import get_current_vllm_config_or_none
    except ImportError:
        return None
    return get_current_vllm_config_or_none()


def _text(release: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in release)
