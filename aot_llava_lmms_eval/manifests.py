"""What lmms-eval's entry point loads: the names of the models, and the classes behind them.

Looked at whenever lmms-eval starts, so nothing is imported here that takes time.
"""

from lmms_eval.models.registry_v2 import ModelManifest

from .names import AOT, METHODS, QWEN_VL, class_names, model_id

MODELS = "aot_llava_lmms_eval.models"


def manifests() -> list[ModelManifest]:
    """One for AOT and one for each method, and for AOT on Qwen-VL, for chat and for simple requests."""
    return [
        ModelManifest(model_id(method), f"{MODELS}.{simple}", f"{MODELS}.{chat}")
        for method in (AOT, *METHODS, *QWEN_VL)
        for simple, chat in [class_names(method)]
    ]
