"""Small models that share one set of weights, their processors, and videos for them."""

import os

# Nothing here needs the network, and nothing may reach for it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
import transformers
from hypothesis import settings
from random_checkpoint import random_model, random_processor
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor
from modeling_aot_llava.spatiotemporal_pruning import compress_video_features

# How long one example takes says nothing on a machine that does other work too.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# On tensors as small as these a second thread costs more than it brings.
torch.set_num_threads(1)

TRANSFORMERS = tuple(int(number) for number in transformers.__version__.split(".")[:2])

# 7 x 7 patches a frame, pooled to 4 x 4; 4 frames in 2 clips keep 16 of 64 tokens.
SIDE = 56
SMALL = {"vision_config": {"image_size": SIDE, "patch_size": 8}}
AOT = {"local_window_size": 3, "local_attention_layer": 2, "retention_ratio": 0.25}

# Configs whose token count depends on the video.
VARYING = {
    "temporal_threshold": {"temporal_threshold": 0.3},
    "released": {"recipe": "released", "num_anchors": 16, "keep_ratio": 0.3},
    "released, no token of some videos": {"recipe": "released", "num_anchors": 12, "keep_ratio": 0.3},
    "released, more tokens than placeholders": {"recipe": "released", "num_anchors": 40, "keep_ratio": 0.9},
}


@pytest.fixture(scope="session")
def build_model():
    """Builds an AOT model on the small grid, `build_model(retention_ratio=0.5, ...)`; always the same weights."""
    return lambda **fields: random_model(AOTLlavaOnevisionForConditionalGeneration, **SMALL, **{**AOT, **fields})


@pytest.fixture(scope="session")
def build_stock(build_model):
    """Builds the stock model with those weights."""

    def build(**fields):
        stock = random_model(LlavaOnevisionForConditionalGeneration, **SMALL, **fields)
        stock.load_state_dict(build_model(**fields).state_dict())
        return stock

    return build


@pytest.fixture(scope="session")
def shared_model(build_model):
    return build_model()


@pytest.fixture
def model(shared_model):
    """The AOT model that all tests share; change its config with `configure` and nothing else of it."""
    return shared_model


@pytest.fixture
def configure(model, monkeypatch):
    """Sets config fields of the shared model for one test: `configure(retention_ratio=1)`."""

    def set_fields(**fields):
        for name, value in fields.items():
            monkeypatch.setattr(model.config, name, value)

    return set_fields


@pytest.fixture(scope="session")
def stock(build_stock):
    """The stock model with the shared model's weights; read only."""
    return build_stock()


@pytest.fixture(scope="session")
def processor(shared_model):
    return random_processor(AOTLlavaOnevisionProcessor, shared_model.config)


@pytest.fixture(scope="session")
def stock_processor(stock):
    return random_processor(LlavaOnevisionProcessor, stock.config)


@pytest.fixture(scope="session")
def make_video():
    """Makes the frames of a video with one cut and some movement: `make_video(num_frames=4, seed=0)`."""

    def make(num_frames=4, seed=0):
        random = np.random.default_rng(seed)
        scenes = random.integers(0, 256, (2, SIDE, SIDE, 3))
        frames = []
        for frame in range(num_frames):
            scene = scenes[frame * 2 // num_frames].copy()
            changed = 8 * (frame * (seed + 1) % 5)
            scene[:changed] = random.integers(0, 256, (changed, SIDE, 3))
            frames.append(scene.astype(np.uint8))
        return frames

    return make


@pytest.fixture(scope="session")
def make_image():
    """Makes an image that is not square: `make_image(seed=0)`."""
    return lambda seed=0: np.random.default_rng(1000 + seed).integers(0, 256, (40, 90, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def prompt(processor, make_video):
    """Makes a left-padded batch: `prompt("<video>What?", seeds=[0], retention_ratio=1.0)`."""

    def make(*texts, seeds=(0,), num_frames=4, **options):
        videos = [make_video(num_frames, seed) for seed in seeds] or None
        return processor(text=list(texts), videos=videos, padding=True, return_tensors="pt", **options)

    return make


@pytest.fixture(scope="session")
def video_tokens_by_hand(build_stock):
    """Computes each video's tokens (B, D), no newline, from the pieces of a stock model with eager attention."""
    eager = build_stock()
    eager.set_attn_implementation("eager")

    def compute(pixel_values_videos, config, counts=None, layers=None, stock=eager):
        tower = stock.model.vision_tower
        tokens = []
        for video, frames in enumerate(pixel_values_videos):
            outputs = tower(frames, output_attentions=True, output_hidden_states=True)
            layers = [config.vision_feature_layer] if layers is None else layers
            hidden = torch.cat([outputs.hidden_states[layer] for layer in layers], dim=-1)
            local, global_ = (
                outputs.attentions[layer].float().mean(dim=(1, 2))
                for layer in (config.local_attention_layer, config.global_attention_layer)
            )
            tokens.append(
                compress_video_features(
                    stock.model.multi_modal_projector(hidden),
                    local,
                    global_,
                    config,
                    frame_features=hidden.mean(dim=1),
                    num_video_tokens=None if counts is None else counts[video],
                ).tokens
            )
        return tokens

    return compute


@pytest.fixture(scope="session")
def embeds_by_hand(stock, video_tokens_by_hand):
    """Builds the embeddings of a prompt whose placeholders are exact: one row, videos only."""

    def build(inputs, config, counts=None):
        embeds = stock.get_input_embeddings()(inputs["input_ids"]).clone()
        rows = [
            row
            for tokens in video_tokens_by_hand(inputs["pixel_values_videos"], config, counts)
            for row in (*tokens, stock.model.image_newline)
        ]
        embeds[inputs["input_ids"] == config.video_token_index] = torch.stack(rows)
        return embeds.detach()

    return build


@pytest.fixture
def vision_tower_calls(model):
    """How often the shared model's vision tower has run: a list that grows."""
    calls = []
    handle = model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    yield calls
    handle.remove()


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
