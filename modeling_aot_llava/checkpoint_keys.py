"""Runs when the model's code is loaded: names of weights in older and in original checkpoints, told to transformers.

It converts the keys of older checkpoints for its own classes only, unless asked. What is asked for a model type also
serves the stock class on a checkpoint that was saved here.
"""

from collections.abc import Mapping

from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming


def take_over_key_renamings(stock_name: str, own_name: str, more: Mapping[str, str] | None = None) -> None:
    """Lets checkpoints load that were made by any transformers, as they do with the stock class.

    Args:
        stock_name, own_name: model types, or names of classes; those of inner models, without the language-model head,
            have renamings of their own.
        more: further patterns of names, and what takes their place.
    """
    renamings = [WeightRenaming(source, target) for source, target in (more or {}).items()]
    of_transformers = get_checkpoint_conversion_mapping(stock_name) or []
    register_checkpoint_conversion_mapping(own_name, [*renamings, *of_transformers], overwrite=True)
