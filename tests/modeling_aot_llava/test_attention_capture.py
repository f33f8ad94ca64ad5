"""The attention that patches receive, read beside a fast kernel, against the eager kernel's own weights."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from modeling_aot_llava import token_anchors
from modeling_aot_llava.attention_capture import capture_attention_received

LAYERS = (0, 2, -2)
TOLERANCE = {"rtol": 1e-5, "atol": 1e-7}


@pytest.fixture(scope="module")
def frames():
    return torch.randn(5, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def attention_weights(build_stock, frames):
    """What the stock vision tower's eager kernel returns: (F, heads, N, N) of each layer."""
    stock = build_stock()
    stock.set_attn_implementation("eager")
    with torch.no_grad():
        return stock.model.vision_tower(frames, output_attentions=True).attentions


@pytest.fixture
def tower(build_model):
    """A vision tower of the test's own, which it may change."""
    return build_model().model.vision_tower


def run(tower, frames, layers=LAYERS):
    with torch.no_grad(), capture_attention_received(tower, layers) as received:
        tower(frames)
    return received


def hooks(tower):
    return [hook for module in tower.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def assert_is_eager_attention(received, attention_weights, layers=LAYERS, **tolerance):
    assert set(received) == set(layers)
    for layer in layers:
        expected = attention_weights[layer].mean(dim=(1, 2))
        assert received[layer].dtype == torch.float32
        torch.testing.assert_close(received[layer], expected, **(tolerance or TOLERANCE))


def test_layers_and_patches_of_the_small_tower_differ(attention_weights):
    """Else the tests below would pass on the wrong layer or with a constant."""
    received = torch.stack([weights.mean(dim=(1, 2)) for weights in attention_weights])
    assert (received.diff(dim=0).abs().amax(dim=-1) > 1e-3).all()
    assert (received.std(dim=-1) > 1e-3).all()


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_equals_the_eager_attention_with_every_kernel(tower, frames, attention_weights, kernel):
    tower.set_attn_implementation(kernel)
    assert_is_eager_attention(run(tower, frames), attention_weights)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_equals_the_eager_attention_beside_flex_attention(tower, frames, attention_weights):
    tower.set_attn_implementation("flex_attention")
    with torch.compiler.set_stance("force_eager"):  # the same kernel, without a minute of compiling
        received = run(tower, frames[:2])
    assert_is_eager_attention(received, [weights[:2] for weights in attention_weights])


def test_needs_no_weights_from_the_kernel(tower, frames, attention_weights, monkeypatch):
    layers_run = []

    def flash(module, *args, **kwargs):
        layers_run.append(module)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, *args, **kwargs)[0], None

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "weightless", flash)
    monkeypatch.setattr(tower.config, "_attn_implementation", "weightless")
    assert_is_eager_attention(run(tower, frames), attention_weights)
    assert len(layers_run) == len(attention_weights)


def test_one_layer_may_be_named_twice(tower, frames, attention_weights):
    last = len(attention_weights) - 1
    received = run(tower, frames, (last, -1))
    assert_is_eager_attention(received, attention_weights, (last, -1))


def test_half_precision_is_accumulated_in_float32(build_model, build_stock, frames):
    stock, tower = build_stock().bfloat16(), build_model().bfloat16().model.vision_tower
    stock.set_attn_implementation("eager")
    with torch.no_grad():
        weights = stock.model.vision_tower(frames.bfloat16(), output_attentions=True).attentions
    weights = [layer.float() for layer in weights]
    assert_is_eager_attention(run(tower, frames.bfloat16()), weights, rtol=0.01, atol=1e-4)


def test_chunks_of_frames_and_heads_change_nothing_and_bound_the_memory(tower, frames, attention_weights, monkeypatch):
    num_frames, heads, patches, _ = attention_weights[0].shape
    one_head, sizes, softmax = 4 * patches * patches, [], torch.softmax

    def watch(scores, *args, **kwargs):
        sizes.append(scores.numel() * 4)
        return softmax(scores, *args, **kwargs)

    monkeypatch.setattr(torch, "softmax", watch)
    assert num_frames > 3
    assert heads > 3
    one_frame = heads * one_head
    for limit in (1, one_head, 3 * one_head, one_frame - 1, one_frame, 3 * one_frame - 1, 100 * one_frame):
        monkeypatch.setitem(token_anchors.MAX_SCORE_BYTES, "cpu", limit)
        sizes.clear()
        assert_is_eager_attention(run(tower, frames), attention_weights)
        assert max(sizes) <= max(limit, one_head)
        assert sum(sizes) == len(LAYERS) * len(frames) * one_frame


def test_keeps_no_gradient_of_the_scores(tower, frames):
    with capture_attention_received(tower, LAYERS) as received:
        tower(frames)
    assert not any(scores.requires_grad for scores in received.values())


def test_leaves_no_hook_behind(tower, frames):
    before = hooks(tower)
    with capture_attention_received(tower, LAYERS):
        assert hooks(tower) != before
        tower(frames)
    assert hooks(tower) == before


def test_leaves_no_hook_behind_when_the_vision_tower_fails(tower, frames):
    before = hooks(tower)

    def fail():
        with capture_attention_received(tower, LAYERS):
            tower(frames[:, :1])

    with pytest.raises(RuntimeError, match="channels"):
        fail()
    assert hooks(tower) == before


def test_leaves_no_hook_behind_when_a_layer_does_not_exist(tower):
    def ask_for(*layers):
        with capture_attention_received(tower, layers):
            pass

    with pytest.raises(IndexError):
        ask_for(0, 1, 2, 99)
    assert not hooks(tower)


def test_threads_on_one_tower_read_their_own_frames(tower, frames):
    videos = [frames[:3], frames[3:], -frames, 2 * frames[1:]]
    alone = [run(tower, video) for video in videos]
    entered, left = threading.Barrier(len(videos), timeout=30), threading.Barrier(len(videos), timeout=30)

    def run_beside_others(video):
        with torch.no_grad(), capture_attention_received(tower, LAYERS) as received:
            entered.wait()  # now every thread's hooks are in place
            for _ in range(3):
                tower(video)
            left.wait()
        return received

    with ThreadPoolExecutor(len(videos)) as pool:
        together = list(pool.map(run_beside_others, videos))
    for expected, actual in zip(alone, together):
        for layer in LAYERS:
            torch.testing.assert_close(actual[layer], expected[layer], **TOLERANCE)
    assert not hooks(tower)


def test_a_thread_that_captures_nothing_disturbs_no_one(tower, frames):
    alone = run(tower, frames)
    with ThreadPoolExecutor(1) as pool, torch.no_grad(), capture_attention_received(tower, LAYERS) as received:
        tower(frames)
        pool.submit(tower, -frames).result()
    for layer in LAYERS:
        torch.testing.assert_close(received[layer], alone[layer], rtol=0, atol=0)


class FusedAttention(torch.nn.Module):
    """SigLIP's attention as vLLM rewrites it: one projection, whose output is split."""

    def __init__(self, attention):
        super().__init__()
        self.head_dim, self.scale, self.out_proj = attention.head_dim, attention.scale, attention.out_proj
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.qkv_proj = torch.nn.Linear(attention.embed_dim, 3 * attention.embed_dim)
        for name in ("weight", "bias"):
            parts = [getattr(projection, name) for projection in projections]
            setattr(self.qkv_proj, name, torch.nn.Parameter(torch.cat(parts)))

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        parts = self.qkv_proj(hidden_states).chunk(3, dim=-1)
        queries, keys, values = (part.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for part in parts)
        output = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, scale=self.scale)
        return self.out_proj(output.transpose(1, 2).flatten(2)), None


def test_reads_fused_projections(tower, frames, attention_weights):
    for layer in tower.encoder.layers:
        layer.self_attn = FusedAttention(layer.self_attn)
    assert_is_eager_attention(run(tower, frames), attention_weights)
    assert not hooks(tower)
