"""What transformers' mixins ask for: small configs and inputs of LLaVA-OneVision, stock and ours."""

from copy import deepcopy

import torch
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel
from transformers.testing_utils import torch_device

from modeling_aot_llava import (
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionModel,
)
from modeling_aot_llava.token_budget import plan_token_budget

from .cases import Case, Family

STOCK = (LlavaOnevisionModel, LlavaOnevisionForConditionalGeneration)
OURS = (AOTLlavaOnevisionModel, AOTLlavaOnevisionForConditionalGeneration)
# 4 x 4 patches, pooled to 2 x 2.
SIDE, PATCH, NUM_FRAMES = 32, 8, 8
# Seven prompts: a smaller batch some tests fill up with random rows, which would have no placeholders.
BATCH, NUM_WORDS = 7, 7
IMAGE_TOKEN, VIDEO_TOKEN, FIRST_WORD = 5, 6, 7
AOT = {"local_window_size": 3, "local_attention_layer": 0, "global_attention_layer": 1, "num_clips": 2}


class ModelTester:
    """The `model_tester` of a case; its attributes are those that the mixin reads."""

    batch_size = BATCH
    is_training = True
    num_hidden_layers = 2
    hidden_size = 32
    num_attention_heads = 4
    image_size = SIDE

    def __init__(self, case: Case):
        self.case = case
        self.text_config = {
            "model_type": "qwen2",
            "vocab_size": 99,
            "hidden_size": self.hidden_size,
            "intermediate_size": 37,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": 4,
            "pad_token_id": 0,
            "eos_token_id": 0,
            "bos_token_id": 0,
        }
        self.vision_config = {
            "model_type": "siglip_vision_model",
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_size": 32,
            "intermediate_size": 37,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vision_use_head": False,
        }
        num_placeholders = self._num_placeholders(case.prompt)
        self.seq_length = num_placeholders + NUM_WORDS
        # Outputs are over the prompt as it is run, with the placeholders that are kept.
        kept = self._num_placeholders("exact" if case.aot_fields is not None else "full")
        self.encoder_seq_length = kept + NUM_WORDS

    def _num_placeholders(self, prompt: str) -> int:
        if self.case.sees == "image":  # the whole, and one tile with a newline behind each of its rows
            return 16 + 4 * (4 + 1)
        config = self.get_config()
        is_cut = prompt == "exact" and config.retention_ratio < 1
        return (plan_token_budget(config, NUM_FRAMES).num_video_tokens if is_cut else NUM_FRAMES * 4) + 1

    def get_config(self) -> LlavaOnevisionConfig:
        return self.case.config_class(
            text_config=deepcopy(self.text_config),
            vision_config=deepcopy(self.vision_config),
            image_token_index=IMAGE_TOKEN,
            video_token_index=VIDEO_TOKEN,
            image_grid_pinpoints=[[SIDE, SIDE]],
            tie_word_embeddings=False,
            **(self.case.aot_fields or {}),
        )

    def prepare_config_and_inputs_for_common(self) -> tuple[LlavaOnevisionConfig, dict[str, torch.Tensor]]:
        config = self.get_config()
        input_ids = torch.randint(FIRST_WORD, self.text_config["vocab_size"], (BATCH, self.seq_length))
        is_image = self.case.sees == "image"
        input_ids[:, :-NUM_WORDS] = IMAGE_TOKEN if is_image else VIDEO_TOKEN
        num_pictures = 2 if is_image else NUM_FRAMES
        pixels = torch.rand(BATCH, num_pictures, 3, SIDE, SIDE)
        inputs = {
            "pixel_values" if is_image else "pixel_values_videos": pixels,
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
        }
        if is_image:
            inputs["image_sizes"] = torch.tensor([[SIDE, SIDE]] * BATCH)
        return config, {name: value.to(torch_device) for name, value in inputs.items()}


FAMILY = Family("aot_llava_onevision", STOCK, OURS, ModelTester)
CASES = [
    Case("image-1.0", FAMILY, "image", aot_fields={**AOT, "retention_ratio": 1.0}),
    Case("image-0.1", FAMILY, "image", aot_fields={**AOT, "retention_ratio": 0.1}),
    Case("video-1.0", FAMILY, "video", aot_fields={**AOT, "retention_ratio": 1.0}),
    Case("video-exact-0.1", FAMILY, "video", "exact", aot_fields={**AOT, "retention_ratio": 0.1}),
    # Prompts are fitted by the class that generates; the other one takes exact prompts only.
    Case("video-full-0.1", FAMILY, "video", "full", aot_fields={**AOT, "retention_ratio": 0.1}, only_with_head=True),
]
