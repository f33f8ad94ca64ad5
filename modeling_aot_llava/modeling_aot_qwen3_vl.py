"""Qwen3-VL on a part of its video tokens: AOT (arXiv 2603.01400), experimental. See docs/qwen-vl.md."""

import torch
from transformers import Qwen3VLForConditionalGeneration, Qwen3VLModel
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from .configuration_aot_qwen_vl import AOTQwen3VLConfig
from .qwen_vl_call_videos import NAMES
from .qwen_vl_model import AOTQwenVLForConditionalGeneration, AOTQwenVLModel
from .stock_signature import called_as


class AOTQwen3VLModel(AOTQwenVLModel, Qwen3VLModel):
    """Qwen3-VL without its language-model head, with AOT on the video path; images are left alone.

    `get_video_features` returns compressed videos, DeepStack's features included. `forward` fits the prompt as that of
    [`AOTQwen3VLForConditionalGeneration`] does.
    """

    config_class = AOTQwen3VLConfig
    config: AOTQwen3VLConfig
    has_span_a_frame = True
    features_class = BaseModelOutputWithDeepstackFeatures

    @called_as(Qwen3VLModel.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return super().forward(**kwargs)


class AOTQwen3VLForConditionalGeneration(AOTQwenVLForConditionalGeneration, Qwen3VLForConditionalGeneration):
    """Qwen3-VL that answers from a part of the video tokens, without training. Experimental.

    The paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known: see docs/qwen-vl.md.

    Used as the parent class is: `from_pretrained` on an AOT or a stock Qwen3-VL checkpoint, then `generate` with a
    prompt made by `AOTQwen3VLProcessor` or by the stock processor.

    Changes to the parent class:
    - videos reach the language model compressed. The call of the processor says how many tokens are kept; where it
      asks for all, everything is the parent's, bit for bit. A full prompt of the stock processor, which cannot ask, is
      cut down to `config.retention_ratio`. AOT adds no parameters.
    - kept tokens have the positions that they have in the whole prompt.
    - a prompt whose placeholders are not as many in each frame as it keeps tokens is fitted: `forward` then computes
      logits and loss over the fitted prompt, and `generate` puts the caller's own prompt in front of the answer; its
      cache serves no later turn. With dynamic clips that is so for every prompt, but not for those of encoded videos.
    - a new video in a later turn, on a cache, is refused.
    """

    config_class = AOTQwen3VLConfig
    config: AOTQwen3VLConfig
    inner_class = AOTQwen3VLModel

    @called_as(Qwen3VLForConditionalGeneration.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return self.forward_with_videos(**kwargs)

    @torch.no_grad()
    @called_as(Qwen3VLForConditionalGeneration.generate, more_keywords=NAMES)
    def generate(self, **kwargs):
        return self.generate_with_videos(**kwargs)


AOTQwen3VLModel.register_for_auto_class("AutoModel")
AOTQwen3VLForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["AOTQwen3VLForConditionalGeneration", "AOTQwen3VLModel"]
