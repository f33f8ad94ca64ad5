"""AOT for LLaVA-OneVision: video language models on a tenth of their video tokens (arXiv 2603.01400)."""

from .configuration_aot_llava import AOTLlavaOnevisionConfig
from .modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionModel
from .processing_aot_llava import AOTLlavaOnevisionProcessor

__all__ = [
    "AOTLlavaOnevisionConfig",
    "AOTLlavaOnevisionForConditionalGeneration",
    "AOTLlavaOnevisionModel",
    "AOTLlavaOnevisionProcessor",
]
