"""The models of the Qwen-VL family, stock and ours, at a size that runs in milliseconds."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen2Tokenizer

import modeling_aot_llava

MARKS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>"]
PADS = ["<|image_pad|>", "<|video_pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'video' %}"
    "<|vision_start|><|video_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PATCH = 4
CELL = 2 * PATCH  # the side of a merged token in pixels


@dataclass(frozen=True)
class Host:
    """One of the family.

    Attributes:
        name: as in the names of its classes.
        vision: fields of its vision config that not all have.
        aot: AOT fields of a small model.
        text: fields of its text config that not all have.
        processor: as in the name of its processor, where that is another's.
    """

    name: str
    vision: dict[str, Any]
    aot: dict[str, Any]
    text: dict[str, Any] = field(default_factory=dict)
    processor: str | None = None

    @property
    def has_span_a_frame(self):
        return self.ours("Model").has_span_a_frame

    def stock(self, kind):
        return getattr(transformers, self._called(kind))

    def ours(self, kind):
        return getattr(modeling_aot_llava, f"AOT{self._called(kind)}")

    def _called(self, kind):
        is_anothers = kind == "Processor" and self.processor is not None
        return f"{self.processor if is_anothers else self.name}{kind}"


_TOWER = {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 32}
_DEEPSTACK = {**_TOWER, "num_position_embeddings": 36, "deepstack_visual_indexes": [0, 2]}
HOSTS = {
    "qwen2_vl": Host(
        "Qwen2VL",
        {"embed_dim": 16, "mlp_ratio": 2, "hidden_size": 32},
        {"local_attention_layer": 1, "global_attention_layer": -2},
    ),
    "qwen2_5_vl": Host(
        "Qwen2_5_VL",
        {**_TOWER, "window_size": 2 * CELL, "fullatt_block_indexes": [1, 3], "tokens_per_second": 4},
        {"local_attention_layer": 1, "global_attention_layer": 3},
    ),
    "qwen3_vl": Host("Qwen3VL", _DEEPSTACK, {"local_attention_layer": 1, "global_attention_layer": -2}),
    "qwen3_vl_moe": Host(
        "Qwen3VLMoe",
        _DEEPSTACK,
        {"local_attention_layer": 1, "global_attention_layer": -2},
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
        "Qwen3VL",
    ),
}


def tokenizer():
    """Qwen2's without merges: a token is a byte or one of the special tokens."""
    tokens = [*sorted(ByteLevel.alphabet()), *MARKS, *PADS]
    return Qwen2Tokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=[*MARKS, *PADS],
        padding_side="left",
    )


def config_of(host, is_ours=True, **fields):
    """A config of 4 vision layers and 2 of the language model."""
    ids = tokenizer()
    number = ids.convert_tokens_to_ids
    values = {
        "vision_config": {
            "depth": 4,
            "num_heads": 2,
            "patch_size": PATCH,
            "initializer_range": 0.3,
            **host.vision,
        },
        "text_config": {
            "vocab_size": len(ids),
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 4096,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
            "initializer_range": 0.3,
            "pad_token_id": number("<|endoftext|>"),
            **host.text,
        },
        "image_token_id": number("<|image_pad|>"),
        "video_token_id": number("<|video_pad|>"),
        "vision_start_token_id": number("<|vision_start|>"),
        "vision_end_token_id": number("<|vision_end|>"),
        "tie_word_embeddings": False,
    }
    own = {"local_window_size": 2, "num_clips": 2, "retention_ratio": 0.25, **host.aot} if is_ours else {}
    return (host.ours if is_ours else host.stock)("Config")(**{**values, **own, **fields})


def stock_model(host, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = host.stock("ForConditionalGeneration")(config_of(host, is_ours=False))
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    return model.eval()


def our_model(host, stock, **fields):
    """Ours with the weights of a stock model."""
    model = host.ours("ForConditionalGeneration")(config_of(host, **fields))
    model.load_state_dict(stock.state_dict())
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    return model.eval()


def processor_of(host, is_ours=True, **settings):
    """A processor of small pictures; a video keeps its size."""
    if is_ours:
        settings = {"retention_ratio": 0.25, "num_clips": 2, **settings}
    return (host.ours if is_ours else host.stock)("Processor")(
        image_processor=_part(host, "ImageProcessor"),
        video_processor=_part(host, "VideoProcessor"),
        tokenizer=tokenizer(),
        chat_template=CHAT_TEMPLATE,
        **settings,
    )


def _part(host, kind):
    size = {"shortest_edge": CELL * CELL, "longest_edge": 10**7}
    fields = {"patch_size": PATCH, "merge_size": 2, "temporal_patch_size": 2, "size": size}
    if kind == "ImageProcessor":
        return transformers.Qwen2VLImageProcessor(**fields)
    if host.has_span_a_frame:
        return transformers.Qwen3VLVideoProcessor(**fields, do_sample_frames=False)
    return transformers.Qwen2VLVideoProcessor(**fields, do_sample_frames=False)


def video_of(num_frames, height, width, seed=0):
    """(frames, height, width, 3): a picture that changes slowly, with some noise; height and width in tokens."""
    random = np.random.default_rng(seed)
    shape = (height * CELL, width * CELL, 3)
    first, second = random.integers(0, 256, (2, *shape))
    steps = np.linspace(0, 1, max(num_frames, 2))[:num_frames, None, None, None]
    noise = random.integers(-20, 20, (num_frames, *shape))
    return np.clip(first * (1 - steps) + second * steps + noise, 0, 255).astype(np.uint8)


def image_of(height, width, seed=0):
    return video_of(1, height, width, seed)[0]


QUESTION = "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"


def inputs_of(processor, videos, text=QUESTION, fps=2.0, **options):
    """The inputs of some videos, each in a row of its own unless the text says otherwise."""
    texts = [text] * len(videos) if isinstance(text, str) else text
    metadata = [
        {"fps": fps, "total_num_frames": len(video), "frames_indices": list(range(len(video)))} for video in videos
    ]
    return processor(
        text=texts, videos=list(videos), video_metadata=metadata, padding=True, return_tensors="pt", **options
    )
