"""Which files the repository of a variant consists of."""

from typing import Any

from .base import Base
from .files import File, GeneratedFile, as_json
from .package_code import auto_map, package_code
from .variants import Variant

_SHARED_WITH_PROCESSOR = ("mm_spatial_pool_mode", "mm_newline_position", "aot_newline_position")


def repository_files(base: Base, variant: Variant, model_card: str) -> list[File]:
    """Everything, sorted by path: what the base has, what describes the variant, and the code."""
    described = [*description_files(base, variant), GeneratedFile("README.md", model_card.encode())]
    return sorted([*base.files, *described], key=lambda file: file.path)


def description_files(base: Base, variant: Variant) -> list[GeneratedFile]:
    """The two configs and the code: all that is needed to load the variant without weights."""
    configs = {"config.json": model_config(base, variant), "processor_config.json": processor_config(base, variant)}
    code = [GeneratedFile(name, content) for name, content in package_code().items()]
    return [*(GeneratedFile(name, as_json(values)) for name, values in configs.items()), *code]


def model_config(base: Base, variant: Variant) -> dict[str, Any]:
    """The base's config with the AOT fields, and with where the weights come from.

    Fields that are not set are left out, also where the base sets them.
    """
    return {
        **{name: value for name, value in base.config.items() if name not in variant.fields},
        **{name: value for name, value in variant.fields.items() if value is not None},
        "model_type": "aot_llava_onevision",
        "architectures": ["AOTLlavaOnevisionForConditionalGeneration"],
        "auto_map": auto_map().AUTO_MAP_OF_CONFIG,
        "aot_base_model": base_model_id(base, variant),
        "aot_base_revision": base.revision,
    }


def processor_config(base: Base, variant: Variant) -> dict[str, Any]:
    """The base's processor config with what AOT's processor needs to count placeholders.

    Checkpoints from before transformers 5 keep the image and the video processor in files of their own, which are
    copied as they are; newer ones keep them in this file.
    """
    config = model_config(base, variant)
    return {
        **_patches_per_frame(base.config),
        **base.processor_config,
        **{name: config[name] for name in _SHARED_WITH_PROCESSOR if name in config},
        "processor_class": "AOTLlavaOnevisionProcessor",
        "auto_map": auto_map().AUTO_MAP_OF_PROCESSOR,
        "retention_ratio": variant.fields["retention_ratio"],
        "num_clips": variant.fields["num_clips"],
        "num_frames": variant.num_frames,
    }


def base_model_id(base: Base, variant: Variant) -> str:
    """The base on the Hub; of a folder, the one that the variant names."""
    return base.location if base.is_on_hub else variant.base_model


def _patches_per_frame(config: dict[str, Any]) -> dict[str, int]:
    """The processor has to know it, and the processor config of old checkpoints does not say it."""
    vision = config.get("vision_config", {})
    if "image_size" not in vision or "patch_size" not in vision:
        return {}
    return {"num_image_tokens": (vision["image_size"] // vision["patch_size"]) ** 2}
