"""Qwen2.5-VL on a part of its video tokens: AOT (arXiv 2603.01400), experimental. See docs/qwen-vl.md."""

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from .checkpoint_keys import take_over_key_renamings
from .configuration_aot_qwen_vl import AOTQwen2_5_VLConfig
from .qwen_vl_call_videos import NAMES
from .qwen_vl_model import AOTQwenVLForConditionalGeneration, AOTQwenVLModel
from .stock_signature import called_as


class AOTQwen2_5_VLModel(AOTQwenVLModel, Qwen2_5_VLModel):
    """Qwen2.5-VL without its language-model head, with AOT on the video path; images are left alone.

    `get_video_features` returns compressed videos. `forward` fits the prompt as that of
    [`AOTQwen2_5_VLForConditionalGeneration`] does.
    """

    config_class = AOTQwen2_5_VLConfig
    config: AOTQwen2_5_VLConfig
    has_span_a_frame = False
    features_class = BaseModelOutputWithPooling

    def raster_order(self, grid_thw: tuple[int, int, int]) -> torch.Tensor:
        """The tower runs tokens window by window."""
        tower = self.visual
        window_order, _ = get_vision_window_index(
            torch.tensor([grid_thw]),
            spatial_merge_size=tower.spatial_merge_size,
            window_size=tower.window_size,
            patch_size=tower.patch_size,
        )
        return window_order.argsort()

    @called_as(Qwen2_5_VLModel.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return super().forward(**kwargs)


class AOTQwen2_5_VLForConditionalGeneration(AOTQwenVLForConditionalGeneration, Qwen2_5_VLForConditionalGeneration):
    """Qwen2.5-VL that answers from a part of the video tokens, without training. Experimental.

    The paper (arXiv 2603.01400) does not define AOT on this model, and no accuracy is known: see docs/qwen-vl.md.

    Used as the parent class is: `from_pretrained` on an AOT or a stock Qwen2.5-VL checkpoint, then `generate` with a
    prompt made by `AOTQwen2_5_VLProcessor` or by the stock processor.

    Changes to the parent class:
    - videos reach the language model compressed. The call of the processor says how many tokens are kept; where it
      asks for all, everything is the parent's, bit for bit. A full prompt of the stock processor, which cannot ask, is
      cut down to `config.retention_ratio`. AOT adds no parameters.
    - kept tokens have the positions that they have in the whole prompt.
    - a prompt whose placeholders are not as many as the tokens is fitted: `forward` then computes logits and loss over
      the fitted prompt, and `generate` puts the caller's own prompt in front of the answer; its cache serves no later
      turn.
    - a new video in a later turn, on a cache, is refused.
    """

    config_class = AOTQwen2_5_VLConfig
    config: AOTQwen2_5_VLConfig
    inner_class = AOTQwen2_5_VLModel

    @called_as(Qwen2_5_VLForConditionalGeneration.forward, more_keywords=NAMES)
    def forward(self, **kwargs):
        return self.forward_with_videos(**kwargs)

    @torch.no_grad()
    @called_as(Qwen2_5_VLForConditionalGeneration.generate, more_keywords=NAMES)
    def generate(self, **kwargs):
        return self.generate_with_videos(**kwargs)


# By the classes' names: without, checkpoints of the published form load with a random language model.
for _kind in ("Model", "ForConditionalGeneration"):
    take_over_key_renamings(f"Qwen2_5_VL{_kind}", f"AOTQwen2_5_VL{_kind}")

AOTQwen2_5_VLModel.register_for_auto_class("AutoModel")
AOTQwen2_5_VLForConditionalGeneration.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["AOTQwen2_5_VLForConditionalGeneration", "AOTQwen2_5_VLModel"]
