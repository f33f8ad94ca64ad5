"""Small models that share one set of weights, their processors, and videos for them."""

import os

# Nothing here needs the network, and nothing may reach for it.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings
from random_checkpoint import random_model, random_processor
from small_model import AOT, SIDE, SMALL
from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor

from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

# How long one example takes says nothing on a machine that does other work too.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

# On tensors as small as these a second thread costs more than it brings.
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--damaged-files", type=int, default=600, help="How many damaged video files are read.")
    parser.addoption("--damage-seed", type=int, default=0, help="Which: the seed of their damages.")


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
    """Makes a left-padded batch: `prompt("<video>What?", seeds=[0], retention_ratio=0.5)`.

    With `retention_ratio=1.0` it is what the stock processor makes, which does not say that all tokens are asked for.
    """

    def make(*texts, seeds=(0,), num_frames=4, **options):
        videos = [make_video(num_frames, seed) for seed in seeds] or None
        inputs = processor(text=list(texts), videos=videos, padding=True, return_tensors="pt", **options)
        inputs.pop("image_sizes_videos", None)
        return inputs

    return make


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
