"""How many kernels each method puts on a GPU before the language model, and how often the host waits for one.

Counted on the CPU, for what most methods do depends on the video: an operation that makes or changes a tensor counts
as one kernel, views count nothing. The host would wait where it reads values, where a shape depends on values, and
where what it made up goes to the GPU.
"""

from collections import Counter
from functools import partial
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import DynamicCache, Qwen2Config, Qwen2Model, SiglipVisionConfig, SiglipVisionModel

from aot_llava_baselines import BASELINES, build_baseline
from aot_llava_baselines.interface import EncodedVideo, PromptSpan, ReducedVideo, Segment
from aot_llava_baselines.layer_loop import LayerLoop
from aot_llava_baselines.vision_layers import VisionLayers

NUM_FRAMES, NUM_PLACES = 32, 196
SHAPES_BY_VALUES = {"aten::nonzero", "aten::masked_select", "aten::unique_dim", "aten::_unique2"}
FROM_THE_HOST = "aten::lift_fresh"
# Kernels and waits of 32 frames at 10 %, DyCoke at 25 %.
COUNTED = {
    "visionzip": (36, 4),
    "vidcom2": (70, 1),
    "stc_pruner": (190, 0),
    "dycoke": (354, 0),
    "fastvid": (360, 26),
    "holitom": (438, 16),
    "prunevid": (698, 49),
    "flashvid": (1165, 70),
    # What is left of the frames; the tower's run is counted below.
    "earlytom": (52, 0),
    "stc_cacher": (190, 0),
    # Nothing but the newline is added before the model.
    **dict.fromkeys(("fastv", "pdrop", "framefusion"), (6, 0)),
}
TORCH_VERSION = "2.14"  # another one may make other operations of the same calls


class Counted(TorchDispatchMode):
    """Counts kernels and waits while it is active."""

    def __init__(self):
        super().__init__()
        self.kernels, self.waits = Counter(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name
        result = function(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        picks_by_mask = name.startswith("aten::index") and any(t.dtype == torch.bool for t in given[1:])
        reads = name == "aten::_local_scalar_dense"
        self.waits[name] += reads or picks_by_mask or name in SHAPES_BY_VALUES or name == FROM_THE_HOST
        returns = [value.alias_info for value in function._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in returns)
        self.kernels[name] += not (is_view or reads or name.startswith(("aten::empty", "aten::new_empty")))
        return result

    def counts(self):
        return self.kernels.total(), self.waits.total()


@pytest.fixture(scope="module")
def video():
    """Three scenes."""
    generator = torch.Generator().manual_seed(0)
    scenes = torch.randn(3, NUM_PLACES, 16, generator=generator) + 1
    tokens = scenes[torch.arange(NUM_FRAMES) * 3 // NUM_FRAMES]
    tokens = tokens + 0.2 * torch.randn(tokens.shape, generator=generator)
    attention = torch.rand(NUM_FRAMES, NUM_PLACES, generator=generator)
    runs = [(frame, min(frame + 3, NUM_FRAMES - 1)) for frame in range(0, NUM_FRAMES, 4)]
    return EncodedVideo(tokens, attention, tokens, tokens.mean(1), attention, tokens[0, 0], runs=runs)


def count(function, given):
    read = Tensor.tolist
    with Counted() as counted, torch.no_grad():

        def tolist(tensor):
            counted.waits["tolist"] += 1
            return read(tensor)

        with patch.object(Tensor, "tolist", tolist):
            function(given)
    return counted.counts()


def test_every_method_is_counted():
    assert set(COUNTED) == set(BASELINES)


@pytest.mark.skipif(not torch.__version__.startswith(TORCH_VERSION), reason=f"counted with torch {TORCH_VERSION}")
@pytest.mark.parametrize("name", COUNTED)
def test_launches_and_waits(name, video):
    ratio = {"dycoke": 0.25}.get(name, 0.10)
    assert count(build_baseline(name, retention_ratio=ratio).reduce, video) == COUNTED[name]


@pytest.mark.skipif(not torch.__version__.startswith(TORCH_VERSION), reason=f"counted with torch {TORCH_VERSION}")
@pytest.mark.parametrize(
    ("name", "settings", "waits"),
    [
        # Which frames are references, once: three tensors.
        ("stc_cacher", {}, 3),
        # How alike frames are, at two layers and once more for the runs; and for the states of both layers, attention
        # and keys each two places and their weights.
        ("earlytom", {"similarity_threshold": 0.5, "merging_layers": (0, 1)}, 3 + 4 * 3),
    ],
)
def test_waits_of_a_tower_of_two_layers(name, settings, waits):
    config = SiglipVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        image_size=4,
        patch_size=1,
        vision_use_head=False,
    )
    tower = VisionLayers(SiglipVisionModel(config).eval(), -1)
    hidden = torch.randn(8, 16, 32)
    _, counted = count(partial(build_baseline(name, **settings).run_layers, tower), hidden)
    assert counted == waits


@pytest.fixture(scope="module")
def language_model():
    config = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=5
    )
    return Qwen2Model(config).eval()


@pytest.mark.skipif(not torch.__version__.startswith(TORCH_VERSION), reason=f"counted with torch {TORCH_VERSION}")
@pytest.mark.parametrize(
    ("name", "settings", "added"),
    [
        ("fastv", {"layer": 2}, (33, 4)),
        ("pdrop", {"layers": (1, 2, 3)}, (160, 12)),
        ("prunevid", {"alpha": 0.4, "layer": 2}, (43, 0)),
        ("flashvid", {"layer": 2}, (33, 4)),
        ("holitom", {"inner_ratio": 0.5, "layer": 2}, (64, 8)),
        ("earlytom", {"layer": 2}, (64, 8)),
        ("framefusion", {"retention_ratio": 0.5}, (88, 3)),
    ],
)
def test_what_is_added_inside_the_model(name, settings, added, language_model):
    """Kernels and waits beside the layers' own, when the prompt is read."""
    prompt = torch.randn(1, 80, 32, generator=torch.Generator().manual_seed(0))
    video = ReducedVideo(prompt[0, 5:69], segments=[Segment(4, 8, 14)], tokens_per_frame=16)
    decoder = build_baseline(name, **settings).wrap(language_model, PromptSpan(5, 64), video)

    def read(loop):
        return count(lambda cache: loop.prefill(prompt, torch.arange(80)[None], cache), DynamicCache())

    (kernels, waits), (of_layers, of_layers_waits) = read(decoder), read(LayerLoop(language_model))
    assert (kernels - of_layers, waits - of_layers_waits) == added
