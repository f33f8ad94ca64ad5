"""The methods that work inside the language model, against the authors' own model classes with tiny random weights."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import DynamicCache, LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from aot_llava_baselines import build_baseline
from aot_llava_baselines.dycoke import DyCokeDecoder
from aot_llava_baselines.fastv import FastVDecoder
from aot_llava_baselines.framefusion import Fusion
from aot_llava_baselines.interface import PromptSpan, ReducedVideo, Segment
from aot_llava_baselines.merging_decoder import MergingDecoder, merge_by_halves
from aot_llava_baselines.pdrop import PDropDecoder
from aot_llava_baselines.prunevid import PruneVidDecoder
from modeling_aot_llava.cache_name import CACHE

FOLDER = Path(__file__).parents[1] / "golden" / "baselines"


class Golden:
    """A file's tensors and numbers, and its model."""

    def __init__(self, name, config_class=LlamaConfig, model_class=LlamaModel, key_heads=4, **options):
        with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.numbers = file.metadata()
        config = config_class(
            hidden_size=32,
            intermediate_size=48,
            num_attention_heads=4,
            num_key_value_heads=key_heads,
            num_hidden_layers=int(self.numbers["layers"]),
            vocab_size=3,
            rms_norm_eps=1e-6,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4},
            **options,
        )
        self.model = model_class(config).eval()
        weights = {k.removeprefix("weights."): v for k, v in self.tensors.items() if k.startswith("weights.")}
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert missing == ["embed_tokens.weight"]
        assert not unexpected
        self.span = PromptSpan(int(self.numbers["start"]), int(self.numbers["video"]))

    def __getitem__(self, name):
        return self.tensors[name]

    @torch.inference_mode()
    def run(self, decoder):
        """Reads the prompt and writes; returns (hidden, decoded, cache lengths after the prompt)."""
        cache = DynamicCache(config=self.model.config)
        prompt = self["inputs_embeds"][None]
        positions = torch.arange(prompt.shape[1])[None]
        hidden = decoder(prompt, position_ids=positions, **{CACHE: cache}).last_hidden_state[0]
        lengths = [layer.get_seq_length() for layer in cache.layers]
        decoded = []
        for step, embeds in enumerate(self["decode_embeds"]):
            position = torch.tensor([[prompt.shape[1] + step]])
            output = decoder(embeds[None, None], position_ids=position, **{CACHE: cache})
            decoded.append(output.last_hidden_state[0, 0])
        return hidden, torch.stack(decoded), lengths

    def assert_agrees(self, decoder, prefix=""):
        """That it keeps, remembers and computes what the file says, whose names have a prefix where it has several."""
        hidden, decoded, lengths = self.run(decoder)
        assert torch.equal(decoder.kept, self[f"{prefix}kept"])
        assert lengths == self[f"{prefix}cache_lengths"].tolist()
        assert_states(hidden, self[f"{prefix}hidden"])
        assert_states(decoded, self[f"{prefix}decode"])


def assert_states(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dropped", [50, 80, 90])
def test_fastv(dropped, attention):
    golden = Golden("fastv-a", key_heads=2, attn_implementation=attention)
    kept = round(golden.span.num_tokens * (1 - dropped / 100))
    decoder = FastVDecoder(golden.model, golden.span, int(golden.numbers["K"]), kept)
    golden.assert_agrees(decoder, f"r{dropped}_")


def test_flashvid():
    golden = Golden("flashvid-llm-a", Qwen2Config, Qwen2Model, key_heads=2)
    layer, ratio = int(golden.numbers["pruning_layer"]), float(golden.numbers["llm_retention_ratio"])
    method = build_baseline("flashvid", layer=layer, inner_ratio=ratio)
    decoder = method.wrap(golden.model, golden.span, ReducedVideo(golden["inputs_embeds"]))
    golden.assert_agrees(decoder)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_stage_of_holitom_and_earlytom(attention):
    golden = Golden("earlytom-llm-a", Qwen2Config, Qwen2Model, key_heads=2, attn_implementation=attention)
    layer, dropped = int(golden.numbers["k"]), float(golden.numbers["r"])
    method = build_baseline("holitom", layer=layer, inner_ratio=1 - dropped)
    # The file's video has its newline among its tokens.
    decoder = method.wrap(golden.model, PromptSpan(golden.span.start, golden.span.num_tokens - 1), None)
    golden.assert_agrees(decoder)


def test_dropped_tokens_are_merged_one_after_another():
    golden = Golden("earlytom-llm-a", Qwen2Config, Qwen2Model, key_heads=2)
    rows = golden["inputs_embeds"]
    kept, dropped = rows[::3].clone(), rows[1::2]
    target = torch.nn.functional.cosine_similarity(dropped[:, None], kept[None], dim=-1).argmax(1)
    merged = merge_by_halves(kept, dropped)
    for row, place in zip(dropped, target):
        kept[place] = (kept[place] + row) / 2
    torch.testing.assert_close(merged, kept)


def test_with_a_causal_mask_the_layers_before_are_the_stock_models():
    golden = Golden("earlytom-llm-a", Qwen2Config, Qwen2Model, key_heads=2)
    prompt = golden["inputs_embeds"][None]
    layer = int(golden.numbers["k"])
    with torch.inference_mode():
        states = golden.model(inputs_embeds=prompt, output_hidden_states=True).hidden_states
    seen = {}

    class Watched(MergingDecoder):
        def _merge_dropped(self, hidden):
            seen["before k"] = hidden
            return super()._merge_dropped(hidden)

    for mask in ("released", "causal"):
        golden.run(Watched(golden.model, golden.span, layer, golden.span.num_tokens // 2, mask))
        same = torch.allclose(seen["before k"], states[layer][0], atol=1e-5)
        assert same == (mask == "causal")


@pytest.mark.parametrize("name", ["framefusion-a", "framefusion-c"])
def test_framefusion(name):
    """Its module, call by call; what lies between the calls says the file."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        data, numbers = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    start, places = int(numbers["start"]), int(numbers["patches"])
    settings = (float(numbers[key]) for key in ("cost", "similarity_lower_bound", "ratio_lower_bound"))
    fusion = Fusion(28, *settings)
    hidden, video = data["hidden_0"], torch.arange(places * int(numbers["frames"]))
    for call in range(1, int(numbers["calls"]) + 1):
        assert not fusion.is_over
        if call > 1:
            hidden = hidden + 0.3 * torch.tanh(hidden @ data["layer_weight"])
        span = slice(start, start + len(video))
        scores = data["attention"].mean(0)[span] if fusion.prunes else None
        tokens, rows = fusion.step(hidden[span], video % places, scores)
        hidden, video = torch.cat([hidden[:start], tokens, hidden[span.stop :]]), video[rows]
        before, after = torch.arange(start), data["positions_1"][-int(numbers["end"]) :]
        assert torch.equal(torch.cat([before, start + video, after]), data[f"positions_{call}"])
        torch.testing.assert_close(hidden, data[f"hidden_{call}"], rtol=0, atol=2e-5)
    assert fusion.is_over


class TanhLayer(torch.nn.Module):
    """What lies between the calls of FrameFusion's files, as a layer: its first half adds, its second half nothing."""

    def __init__(self, weight):
        super().__init__()
        self.input_layernorm = self.post_attention_layernorm = torch.nn.Identity()
        self.self_attn = lambda hidden_states, **_: (0.3 * torch.tanh(hidden_states @ weight), None)
        self.mlp = torch.zeros_like


@pytest.mark.parametrize("name", ["framefusion-a", "framefusion-c"])
def test_framefusion_among_28_layers(name):
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        data, numbers = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    places, frames = int(numbers["patches"]), int(numbers["frames"])
    settings = {"retention_ratio": float(numbers["cost"]), "similarity_threshold": 0.6, "least_share": 0.1}
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList(TanhLayer(data["layer_weight"]) for _ in range(28))
    model.config, model.rotary_emb = Qwen2Config(), lambda *_: None
    span = PromptSpan(int(numbers["start"]), places * frames)
    video = ReducedVideo(data["hidden_0"], tokens_per_frame=places)
    decoder = build_baseline("framefusion", **settings).wrap(model, span, video)
    decoder.attention_of_last = lambda *_: data["attention"].mean(0)
    states, fuse = [], decoder._fuse
    decoder._fuse = lambda *given: states.append(fuse(*given)[0]) or states[-1].unsqueeze(0)
    decoder.prefill(data["hidden_0"][None], torch.arange(len(data["hidden_0"]))[None], None)
    assert torch.equal(decoder.kept, data[f"positions_{numbers['calls']}"])
    assert len(states) == int(numbers["calls"])
    for call, state in enumerate(states, 1):
        torch.testing.assert_close(state, data[f"hidden_{call}"], rtol=0, atol=2e-5)


def test_pdrop():
    golden = Golden("pdrop-a")
    counts = [int(golden.span.num_tokens * ratio) for ratio in (0.5, 0.25, 0.125)]
    decoder = PDropDecoder(golden.model, golden.span, (2, 4, 6), counts)
    hidden, decoded, lengths = golden.run(decoder)
    for stage, kept in enumerate(decoder.kept):
        assert torch.equal(kept, golden[f"kept_{stage}"])
    assert lengths == golden["cache_lengths"].tolist()
    assert_states(hidden, golden["hidden"])
    assert_states(decoded, golden["decode"])


def test_prunevid():
    golden = Golden("prunevid-llm-a")
    segments = [
        Segment(frames, static, dynamic // frames)
        for frames, static, dynamic in zip(
            *(golden[f"{name}_sizes"].tolist() for name in ("window", "static", "dynamic"))
        )
    ]
    assert sum(s.num_static + s.num_frames * s.num_dynamic for s in segments) == golden.span.num_tokens
    layer, alpha = int(golden.numbers["selected_layer"]), float(golden.numbers["alpha"])
    decoder = PruneVidDecoder(golden.model, golden.span, layer, segments, alpha)
    golden.assert_agrees(decoder)


def test_dycoke():
    golden = Golden("dycoke-decode-a", Qwen2Config, Qwen2Model, key_heads=2)
    shown = []

    class Watched(DyCokeDecoder):
        def _rows_to_read(self, attention):
            rows = super()._rows_to_read(attention)
            shown.append(torch.arange(len(attention)) if rows is None else rows)
            return rows

    decoder = Watched(golden.model, golden.span, int(golden.numbers["l"]), float(golden.numbers["p"]))
    hidden, decoded, _ = golden.run(decoder)
    torch.testing.assert_close(torch.tensor(decoder.similarities), golden["similarity"], rtol=0, atol=1e-5)
    for step, rows in enumerate(shown):
        assert torch.equal(rows, golden[f"kept_{step}"]), step
    assert_states(hidden, golden["hidden"])
    assert_states(decoded, golden["decode"])
