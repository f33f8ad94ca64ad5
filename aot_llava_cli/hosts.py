"""The kinds of models that the commands run: the classes of each, and what they ask of its processor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import BatchFeature

from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
    AOTQwen2_5_VLConfig,
    AOTQwen2_5_VLForConditionalGeneration,
    AOTQwen2_5_VLProcessor,
    AOTQwen2VLConfig,
    AOTQwen2VLForConditionalGeneration,
    AOTQwen2VLProcessor,
    AOTQwen3VLConfig,
    AOTQwen3VLForConditionalGeneration,
    AOTQwen3VLMoeConfig,
    AOTQwen3VLMoeForConditionalGeneration,
    AOTQwen3VLProcessor,
)
from modeling_aot_llava.call_videos import CallVideos
from modeling_aot_llava.encoded_video import EncodedVideo
from modeling_aot_llava.qwen_vl_call_videos import QwenVLCallVideos
from modeling_aot_llava.qwen_vl_encoded_video import QwenVLEncodedVideo
from modeling_aot_llava.qwen_vl_placeholders import AOTQwenVLProcessor

# Frames a second where a checkpoint does not say how many: those that Qwen's own program reads.
FRAMES_A_SECOND = 2.0


@dataclass(frozen=True)
class Host:
    """The classes of a kind of model."""

    config: type
    model: type
    processor: type

    @property
    def model_types(self) -> tuple[str, str]:
        """Of checkpoints with AOT, and of stock ones."""
        return self.config.model_type, self.config.__bases__[-1].model_type


LLAVA = Host(AOTLlavaOnevisionConfig, AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor)
HOSTS = (
    LLAVA,
    Host(AOTQwen2VLConfig, AOTQwen2VLForConditionalGeneration, AOTQwen2VLProcessor),
    Host(AOTQwen2_5_VLConfig, AOTQwen2_5_VLForConditionalGeneration, AOTQwen2_5_VLProcessor),
    Host(AOTQwen3VLConfig, AOTQwen3VLForConditionalGeneration, AOTQwen3VLProcessor),
    Host(AOTQwen3VLMoeConfig, AOTQwen3VLMoeForConditionalGeneration, AOTQwen3VLProcessor),
)


def host_of(model_id: str, revision: str = "main") -> Host:
    """The kind of a checkpoint.

    transformers would only warn of another kind, and then fill the weights that it cannot find with random ones.

    Raises:
        ValueError: if it is of none of these kinds.
        OSError: if there is no such checkpoint.
    """
    model_type = _model_type_of(model_id, revision)
    for host in HOSTS:
        if model_type in host.model_types:
            return host
    raise ValueError(
        f"{model_id} is a {model_type} checkpoint, but one of LLaVA-OneVision or LLaVA-Video is needed, such as "
        "llava-hf/llava-onevision-qwen2-0.5b-ov-hf; or one of Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Qwen3-VL-MoE."
    )


def check_is_llava(model_id: str, revision: str = "main") -> None:
    """Raises ValueError if it is a checkpoint of another kind than LLaVA's, OSError if there is none."""
    model_type = _model_type_of(model_id, revision)
    if model_type not in LLAVA.model_types:
        raise ValueError(
            f"{model_id} is a {model_type} checkpoint, but one of LLaVA-OneVision or LLaVA-Video is needed, "
            "such as llava-hf/llava-onevision-qwen2-0.5b-ov-hf."
        )


def is_qwen_vl(processor: Any) -> bool:
    """Whether it belongs to a Qwen-VL model."""
    return isinstance(processor, AOTQwenVLProcessor)


def frames_to_sample(processor: Any, num_frames: int | None) -> dict[str, Any]:
    """Options of the processor's call for so many frames; None leaves it to the checkpoint."""
    if not is_qwen_vl(processor):
        return {} if num_frames is None else {"num_frames": num_frames}
    if num_frames is not None:
        return {"num_frames": num_frames, "fps": None, "do_sample_frames": True}
    if processor.video_processor.do_sample_frames:
        return {}
    return {"fps": FRAMES_A_SECOND, "do_sample_frames": True}  # else every frame would be read


def frames_by_default(processor: Any, num_frames: int | None) -> dict[str, Any]:
    """The same in full: where nothing need be said it says what the checkpoint does."""
    if not is_qwen_vl(processor):
        return {"num_frames": processor.num_frames if num_frames is None else num_frames}
    own = processor.video_processor
    sampled = {name: getattr(own, name) for name in ("fps", "num_frames")}
    return frames_to_sample(processor, num_frames) or {**sampled, "do_sample_frames": True}


def load_encoded(processor: Any, path: str | Path) -> EncodedVideo:
    """Reads the file of an encoded video that the processor takes.

    Raises:
        FileNotFoundError, ValueError: as `EncodedVideo.load`.
    """
    return (QwenVLEncodedVideo if is_qwen_vl(processor) else EncodedVideo).load(path)


def check_made_by(model: Any, processor: Any, inputs: BatchFeature) -> None:
    """Raises ValueError where the encoded videos among a call's inputs are not this model's."""
    videos = QwenVLCallVideos if is_qwen_vl(processor) else CallVideos
    videos.taken_from(dict(inputs), None, None).check_made_by(model.model)


def moved(inputs: BatchFeature, model: Any) -> BatchFeature:
    """The inputs where the model is.

    Beside grids there are times, which are no less exact than they were read; such a tower takes any pixels.
    """
    return inputs.to(model.device, *([] if "video_grid_thw" in inputs else [model.dtype]))


def _model_type_of(model_id: str, revision: str) -> str | None:
    # LLaVA's, which knows original LLaVA-Video checkpoints, too; it leaves the others as they are.
    config_fields, _ = AOTLlavaOnevisionConfig.get_config_dict(model_id, revision=revision)
    return config_fields.get("model_type")
