"""Qwen3-VL-MoE on a part of its video tokens: AOT (arXiv 2603.01400), experimental. See docs/qwen-vl.md."""

import torch
from transformers import Qwen3VLMoeConfig, Qwen3VLMoeForConditionalGeneration, Qwen3VLMoeModel
from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import BaseModelOutputWithDeepstackFeatures

from .checkpoint_keys import take_over_key_renamings
from .configuration_aot_qwen3_vl_moe import AOTQwen3VLMoeConfig
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

    @called_as(Qwen3VLMoeModel.forward)
    def forward(self, **kwargs):
        return super().forward(**kwargs)


class AOTQwen3VLMoeForConditionalGeneration(AOTQwenVLForConditionalGeneration, Qwen3VLMoeForConditionalGeneration):
    """Qwen3-VL-MoE that answers from a part of the video tokens, without training. Experimental.

    The paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known: see docs/qwen-vl.md.

    Used as the parent class is: `from_pretrained` on an AOT or a stock Qwen3-VL-MoE checkpoint, then `generate` with a
    prompt made by `AOTQwen3VLProcessor` or by the stock processor.

    Changes to the parent class:
    - videos reach the language model compressed. The call of the processor says how many tokens are kept; where it
      asks for all, everything is the parent's, bit for bit. A full prompt of the stock processor, which cannot ask, is
      cut down to `config.retention_ratio`. AOT adds no parameters.
    - kept tokens have the positions that they have in the whole prompt.
    - a prompt whose placeholders are not as many in each frame as it keeps tokens is fitted: `forward` then computes
      logits and loss over the fitted prompt, and `generate` puts the caller's own prompt in front of the answer; its
      cache serves no later turn. With dynamic clips that is so for every prompt.
    - a new video in a later turn, on a cache, is refused.
    """

    config_class = AOTQwen3VLMoeConfig
    config: AOTQwen3VLMoeConfig
    inner_class = AOTQwen3VLMoeModel

    @called_as(Qwen3VLMoeForConditionalGeneration.forward)
    def forward(self, **kwargs):
        return self.forward_with_videos(**kwargs)

    @torch.no_grad()
    @called_as(Qwen3VLMoeForConditionalGeneration.generate)
    def generate(self, **kwargs):
        return self.generate_with_videos(**kwargs)


# By the model type: without, the published form's experts, which lie transposed, would not load.
take_over_key_renamings(Qwen3VLMoeConfig.model_type, AOTQwen3VLMoeConfig.model_type)

AOTQwen3VLMoeModel.register_for_auto_class("AutoModel")
AOTQwen3VLMoeForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["AOTQwen3VLMoeForConditionalGeneration", "AOTQwen3VLMoeModel"]
