"""AOT for LLaVA-OneVision: video language models on a tenth of their video tokens (arXiv 2603.01400)."""

import transformers

from .configuration_aot_llava import AOTLlavaOnevisionConfig
from .modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionModel
from .processing_aot_llava import AOTLlavaOnevisionProcessor

# Where the package is installed, the Auto classes know it, and nothing asks for `trust_remote_code`.
transformers.AutoConfig.register(AOTLlavaOnevisionConfig.model_type, AOTLlavaOnevisionConfig, exist_ok=True)
transformers.AutoModel.register(AOTLlavaOnevisionConfig, AOTLlavaOnevisionModel, exist_ok=True)
transformers.AutoModelForImageTextToText.register(
    AOTLlavaOnevisionConfig, AOTLlavaOnevisionForConditionalGeneration, exist_ok=True
)
transformers.AutoModelForMultimodalLM.register(
    AOTLlavaOnevisionConfig, AOTLlavaOnevisionForConditionalGeneration, exist_ok=True
)
transformers.AutoProcessor.register(AOTLlavaOnevisionConfig, AOTLlavaOnevisionProcessor, exist_ok=True)

__all__ = [
    "AOTLlavaOnevisionConfig",
    "AOTLlavaOnevisionForConditionalGeneration",
    "AOTLlavaOnevisionModel",
    "AOTLlavaOnevisionProcessor",
]
