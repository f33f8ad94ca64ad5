"""Qwen2-VL on a part of its video tokens: AOT (arXiv 2603.01400), experimental. See docs/qwen-vl.md."""

import torch
from transformers import Qwen2VLForConditionalGeneration, Qwen2VLModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .checkpoint_keys import take_over_key_renamings
from .configuration_aot_qwen_vl import AOTQwen2VLConfig
from .qwen_vl_call_videos import NAMES
from .qwen_vl_model import AOTQwenVLForConditionalGeneration, AOTQwenVLModel
from .stock_signature import called_as


class AOTQwen2VLModel(AOTQwenVLModel, Qwen2VLModel):
    """Qwen2-VL without its language-model head, with AOT on the video path; images are left alone.

    `get_video_features` returns compressed videos. `forward` fits the prompt as that of
    [`AOTQwen2VLForConditionalGeneration`] does.
    """

    config_class = AOTQwen2VLConfig
    config: AOTQwen2VLConfig
    has_span_a_frame = False
    features_class = BaseModelOutputWithPooling

    @called_as(Qwen2VLModel.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return super().forward(**kwargs)


class AOTQwen2VLForConditionalGeneration(AOTQwenVLForConditionalGeneration, Qwen2VLForConditionalGeneration):
    """Qwen2-VL that answers from a part of the video tokens, without training. Experimental.

    The paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known: see docs/qwen-vl.md.

    Used as the parent class is: `from_pretrained` on an AOT or a stock Qwen2-VL checkpoint, then `generate` with a
    prompt made by `AOTQwen2VLProcessor` or by the stock processor. What changes to the parent class is what
    [`AOTQwen2_5_VLForConditionalGeneration`] changes to its own.
    """

    config_class = AOTQwen2VLConfig
    config: AOTQwen2VLConfig
    inner_class = AOTQwen2VLModel

    @called_as(Qwen2VLForConditionalGeneration.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return self.forward_with_videos(**kwargs)

    @torch.no_grad()
    @called_as(Qwen2VLForConditionalGeneration.generate, more_keywords=NAMES)
    def generate(self, **kwargs):
        return self.generate_with_videos(**kwargs)


# By the classes' names: without, checkpoints of the published form load with a random language model.
for _kind in ("Model", "ForConditionalGeneration"):
    take_over_key_renamings(f"Qwen2VL{_kind}", f"AOTQwen2VL{_kind}")

AOTQwen2VLModel.register_for_auto_class("AutoModel")
AOTQwen2VLForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["AOTQwen2VLForConditionalGeneration", "AOTQwen2VLModel"]
