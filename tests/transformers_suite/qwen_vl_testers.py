"""What transformers' mixins ask for: small configs and inputs of the Qwen-VL family, for the stock classes and for
ours."""

from functools import partial
from typing import Any

import torch
from qwen_vl_hosts import HOSTS, Host, config_of
from transformers.testing_utils import torch_device

from modeling_aot_llava.token_budget import plan_token_budget

from .cases import Case, Family

# Seven prompts: a smaller batch some tests fill up with random rows, which would have no placeholders.
BATCH, NUM_WORDS, FIRST_WORD, LAST_WORD = 7, 7, 10, 200
# A video of 4 frames, and an image: 4 x 4 patches are 4 tokens.
VIDEO, IMAGE, TOKENS_OF_FRAME = (4, 4, 4), (1, 4, 4), 4
RATIO = 0.25
# They run the same rooms as the others: on compressed videos alone, since a case takes some ten seconds.
COMPRESSED_ALONE = ("qwen2_vl", "qwen3_vl_moe")
# Low numbers: some tests take away the last words of the vocabulary.
TOKENS = {"image_token_id": 1, "video_token_id": 2, "vision_start_token_id": 3, "vision_end_token_id": 4}


class ModelTester:
    """The `model_tester` of a case; its attributes are those that the mixin reads."""

    batch_size = BATCH
    is_training = True
    num_hidden_layers = 3
    hidden_size = 32
    num_attention_heads = 4
    image_size = 16

    def __init__(self, case: Case, host: Host):
        self.case, self.host = case, host
        self.has_span_a_frame = host.ours("Model").has_span_a_frame
        self.seq_length = len(self._columns(case.prompt))
        # Outputs are over the prompt as it is run, with the placeholders that are kept.
        self.encoder_seq_length = len(self._columns("exact"))

    def _columns(self, prompt: str) -> list[int]:
        """The ids of a row, 0 for a word."""
        config = self.get_config()
        start, end = config.vision_start_token_id, config.vision_end_token_id
        if self.case.sees == "image":
            spans, token = [TOKENS_OF_FRAME], config.image_token_id
        else:
            spans, token = self._spans(prompt, config), config.video_token_id
        placeholders = [column for span in spans for column in (start, *[token] * span, end)]
        return [0, *placeholders, *[0] * (NUM_WORDS - 1)]

    def _spans(self, prompt: str, config: Any) -> tuple[int, ...]:
        kept = (TOKENS_OF_FRAME,) * VIDEO[0]
        if prompt == "exact" and self.case.aot_fields is not None and config.retention_ratio < 1:
            kept = plan_token_budget(config, VIDEO[0], None, config.grid_of(VIDEO)).kept_per_frame
        return kept if self.has_span_a_frame else (sum(kept),)

    def get_config(self):
        return config_of(self.host, self.case.aot_fields is not None, **TOKENS, **(self.case.aot_fields or {}))

    def prepare_config_and_inputs_for_common(self) -> tuple[Any, dict[str, torch.Tensor]]:
        config = self.get_config()
        columns = torch.tensor(self._columns(self.case.prompt)).expand(BATCH, -1)
        words = torch.randint(FIRST_WORD, LAST_WORD, columns.shape)
        is_image = self.case.sees == "image"
        grid = IMAGE if is_image else VIDEO
        values = 3 * config.vision_config.temporal_patch_size * config.vision_config.patch_size**2
        token = config.image_token_id if is_image else config.video_token_id
        inputs = {
            "pixel_values" if is_image else "pixel_values_videos": torch.rand(
                BATCH * grid[0] * grid[1] * grid[2], values
            ),
            "image_grid_thw" if is_image else "video_grid_thw": torch.tensor([grid] * BATCH),
            "input_ids": torch.where(columns == 0, words, columns),
            "attention_mask": torch.ones_like(words),
            "mm_token_type_ids": (columns == token).int() * (1 if is_image else 2),
        }
        return config, {name: value.to(torch_device) for name, value in inputs.items()}


def _family(host: Host) -> Family:
    kinds = ("Model", "ForConditionalGeneration")
    return Family(
        host.ours("Config").model_type,
        tuple(map(host.stock, kinds)),
        tuple(map(host.ours, kinds)),
        partial(ModelTester, host=host),
    )


CASES = [
    Case(f"{name}-{what}", family, sees, prompt, {"retention_ratio": ratio})
    for name, family in ((name, _family(host)) for name, host in HOSTS.items())
    for what, sees, prompt, ratio in (
        ("image", "image", "full", RATIO),
        ("video-1.0", "video", "full", 1.0),
        ("video-exact", "video", "exact", RATIO),
        ("video-full", "video", "full", RATIO),
    )
    if what in ("video-exact", "video-full") or name not in COMPRESSED_ALONE
]
