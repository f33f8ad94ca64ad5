"""Qwen3-VL-MoE on a part of its video tokens: AOT (arXiv 2603.01400), experimental. See docs/qwen-vl.md."""

import torch
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeModel
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import BaseModelOutputWithDeepstackFeatures

from .checkpoint_keys import take_over_key_renamings
from .configuration_aot_qwen_vl import AOTQwen3VLMoeConfig
from .qwen_vl_call_videos import NAMES
from .qwen_vl_model import AOTQwenVLForConditionalGeneration, AOTQwenVLModel
from .stock_signature import called_as


class AOTQwen3VLMoeModel(AOTQwenVLModel, Qwen3VLMoeModel):
    """Qwen3-VL-MoE without its language-model head, with AOT on the video path; images are left alone.

    `get_video_features` returns compressed videos, DeepStack's features included. `forward` fits the prompt as that of
    [`AOTQwen3VLMoeForConditionalGeneration`] does.
    """

    config_class = AOTQwen3VLMoeConfig
    config: AOTQwen3VLMoeConfig
    has_span_a_frame = True
    features_class = BaseModelOutputWithDeepstackFeatures

    @called_as(Qwen3VLMoeModel.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return super().forward(**kwargs)


class AOTQwen3VLMoeForConditionalGeneration(AOTQwenVLForConditionalGeneration, Qwen3VLMoeForConditionalGeneration):
    """Qwen3-VL-MoE that answers from a part of the video tokens, without training. Experimental.

    The paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known: see docs/qwen-vl.md.

    Used as the parent class is: `from_pretrained` on an AOT or a stock Qwen3-VL-MoE checkpoint, then `generate` with a
    prompt made by `AOTQwen3VLProcessor` or by the stock processor. What changes to the parent class is what
    [`AOTQwen3VLForConditionalGeneration`] changes to its own. Losses of the router are the stock model's, over the
    prompt that is run.
    """

    config_class = AOTQwen3VLMoeConfig
    config: AOTQwen3VLMoeConfig
    inner_class = AOTQwen3VLMoeModel

    @called_as(Qwen3VLMoeForConditionalGeneration.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return self.forward_with_videos(**kwargs)

    @torch.no_grad()
    @called_as(Qwen3VLMoeForConditionalGeneration.generate, more_keywords=NAMES)
    def generate(self, **kwargs):
        return self.generate_with_videos(**kwargs)


# By the model type: without, the published form's experts, which lie transposed, would not load.
take_over_key_renamings(Qwen3VLMoeConfig.model_type, AOTQwen3VLMoeConfig.model_type)

AOTQwen3VLMoeModel.register_for_auto_class("AutoModel")
AOTQwen3VLMoeForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["AOTQwen3VLMoeForConditionalGeneration", "AOTQwen3VLMoeModel"]
