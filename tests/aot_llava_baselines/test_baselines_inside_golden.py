"""The methods that work inside the language model, against the authors' own model classes with tiny random weights."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import DynamicCache, LlamaConfig, LlamaModel, Qwen2Config, Qwen2Model

from aot_llava_baselines.dycoke import DyCokeDecoder
from aot_llava_baselines.fastv import FastVDecoder
from aot_llava_baselines.interface import PromptSpan, Segment
from aot_llava_baselines.layer_loop import CACHE
from aot_llava_baselines.pdrop import PDropDecoder
from aot_llava_baselines.prunevid import PruneVidDecoder

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


def assert_states(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dropped", [50, 80, 90])
def test_fastv(dropped, attention):
    golden = Golden("fastv-a", key_heads=2, attn_implementation=attention)
    kept = round(golden.span.num_tokens * (1 - dropped / 100))
    decoder = FastVDecoder(golden.model, golden.span, int(golden.numbers["K"]), kept)
    hidden, decoded, lengths = golden.run(decoder)
    assert torch.equal(decoder.kept, golden[f"r{dropped}_kept"])
    assert lengths == golden[f"r{dropped}_cache_lengths"].tolist()
    assert_states(hidden, golden[f"r{dropped}_hidden"])
    assert_states(decoded, golden[f"r{dropped}_decode"])


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
    hidden, decoded, lengths = golden.run(decoder)
    assert torch.equal(decoder.kept, golden["kept"])
    assert lengths == golden["cache_lengths"].tolist()
    assert_states(hidden, golden["hidden"])
    assert_states(decoded, golden["decode"])


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
