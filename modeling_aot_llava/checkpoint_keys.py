"""Names of weights in older and in original checkpoints, told to transformers.

It converts the keys of older LLaVA-OneVision checkpoints for its own classes only, unless asked. What is asked for the
model type also serves the stock class on a checkpoint that was saved here.
"""

from transformers import LlavaOnevisionConfig, LlavaOnevisionModel
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from .llava_video_checkpoint import KEY_RENAMINGS


def register_key_renamings(config_class: type, model_class: type) -> None:
    """Lets checkpoints load that were made by any transformers, or by LLaVA-NeXT.

    Args:
        config_class, model_class: those of the inner model, without the language-model head.
    """
    of_llava_next = [WeightRenaming(source, target) for source, target in KEY_RENAMINGS.items()]
    of_transformers = get_checkpoint_conversion_mapping(LlavaOnevisionConfig.model_type)
    of_inner_model = get_checkpoint_conversion_mapping(LlavaOnevisionModel.__name__)
    for name, renamings in (
        (config_class.model_type, [*of_llava_next, *of_transformers]),
        (model_class.__name__, of_inner_model),
    ):
        register_checkpoint_conversion_mapping(name, renamings, overwrite=True)
