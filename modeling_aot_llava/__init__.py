"""AOT for LLaVA-OneVision: video language models on a tenth of their video tokens (arXiv 2603.01400).

And, experimental, for Qwen2-VL, Qwen2.5-VL, Qwen3-VL and Qwen3-VL-MoE.
"""

import transformers

from .configuration_aot_llava import AOTLlavaOnevisionConfig
from .configuration_aot_qwen_vl import AOTQwen2_5_VLConfig, AOTQwen2VLConfig, AOTQwen3VLConfig, AOTQwen3VLMoeConfig
from .modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionModel
from .modeling_aot_qwen2_5_vl import AOTQwen2_5_VLForConditionalGeneration, AOTQwen2_5_VLModel
from .modeling_aot_qwen2_vl import AOTQwen2VLForConditionalGeneration, AOTQwen2VLModel
from .modeling_aot_qwen3_vl import AOTQwen3VLForConditionalGeneration, AOTQwen3VLModel
from .modeling_aot_qwen3_vl_moe import AOTQwen3VLMoeForConditionalGeneration, AOTQwen3VLMoeModel
from .processing_aot_llava import AOTLlavaOnevisionProcessor
from .processing_aot_qwen_vl import AOTQwen2_5_VLProcessor, AOTQwen2VLProcessor, AOTQwen3VLProcessor

# Where the package is installed, the Auto classes know it, and nothing asks for `trust_remote_code`.
for _config, _model, _generating, _processor in (
    (
        AOTLlavaOnevisionConfig,
        AOTLlavaOnevisionModel,
        AOTLlavaOnevisionForConditionalGeneration,
        AOTLlavaOnevisionProcessor,
    ),
    (AOTQwen2VLConfig, AOTQwen2VLModel, AOTQwen2VLForConditionalGeneration, AOTQwen2VLProcessor),
    (
        AOTQwen2_5_VLConfig,
        AOTQwen2_5_VLModel,
        AOTQwen2_5_VLForConditionalGeneration,
        AOTQwen2_5_VLProcessor,
    ),
    (AOTQwen3VLConfig, AOTQwen3VLModel, AOTQwen3VLForConditionalGeneration, AOTQwen3VLProcessor),
    # As in transformers, the processor is Qwen3-VL's.
    (AOTQwen3VLMoeConfig, AOTQwen3VLMoeModel, AOTQwen3VLMoeForConditionalGeneration, AOTQwen3VLProcessor),
):
    transformers.AutoConfig.register(_config.model_type, _config, exist_ok=True)
    transformers.AutoModel.register(_config, _model, exist_ok=True)
    transformers.AutoModelForImageTextToText.register(_config, _generating, exist_ok=True)
    transformers.AutoModelForMultimodalLM.register(_config, _generating, exist_ok=True)
    transformers.AutoProcessor.register(_config, _processor, exist_ok=True)

__all__ = [
    "AOTLlavaOnevisionConfig",
    "AOTLlavaOnevisionForConditionalGeneration",
    "AOTLlavaOnevisionModel",
    "AOTLlavaOnevisionProcessor",
    "AOTQwen2VLConfig",
    "AOTQwen2VLForConditionalGeneration",
    "AOTQwen2VLModel",
    "AOTQwen2VLProcessor",
    "AOTQwen2_5_VLConfig",
    "AOTQwen2_5_VLForConditionalGeneration",
    "AOTQwen2_5_VLModel",
    "AOTQwen2_5_VLProcessor",
    "AOTQwen3VLConfig",
    "AOTQwen3VLForConditionalGeneration",
    "AOTQwen3VLModel",
    "AOTQwen3VLMoeConfig",
    "AOTQwen3VLMoeForConditionalGeneration",
    "AOTQwen3VLMoeModel",
    "AOTQwen3VLProcessor",
]
