"""AOT for LLaVA-OneVision: video language models on a tenth of their video tokens (arXiv 2603.01400)."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

from .configuration_aot_llava import AOTLlavaOnevisionConfig
from .modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionModel
from .processing_aot_llava import AOTLlavaOnevisionProcessor

# Where the package is installed, the Auto classes know it, and nothing asks for `trust_remote_code`.
AutoConfig.register(AOTLlavaOnevisionConfig.model_type, AOTLlavaOnevisionConfig, exist_ok=True)
AutoModel.register(AOTLlavaOnevisionConfig, AOTLlavaOnevisionModel, exist_ok=True)
AutoModelForImageTextToText.register(AOTLlavaOnevisionConfig, AOTLlavaOnevisionForConditionalGeneration, exist_ok=True)
AutoModelForMultimodalLM.register(AOTLlavaOnevisionConfig, AOTLlavaOnevisionForConditionalGeneration, exist_ok=True)
AutoProcessor.register(AOTLlavaOnevisionConfig, AOTLlavaOnevisionProcessor, exist_ok=True)

__all__ = [
    "AOTLlavaOnevisionConfig",
    "AOTLlavaOnevisionForConditionalGeneration",
    "AOTLlavaOnevisionModel",
    "AOTLlavaOnevisionProcessor",
]
