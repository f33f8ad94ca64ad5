"""A language model run layer by layer, for the methods that work inside it.

It takes the place of `language_model` in a LLaVA-OneVision model for one prompt and its answer, one row without
padding, so `generate` needs to know nothing of it. Layers may see different rows, and their caches have different
lengths: with one query at a time decoding needs no mask.
"""

import torch
from torch import Tensor, nn
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from modeling_aot_llava.cache_name import CACHE


class LayerLoop(nn.Module):
    """A decoder of Qwen2's or Llama's kind. Methods override `prefill`, `decode` or both."""

    def __init__(self, language_model: nn.Module):
        super().__init__()
        self.language_model = language_model
        self.config = language_model.config

    @property
    def num_layers(self) -> int:
        """T."""
        return len(self.language_model.layers)

    def forward(
        self, inputs_embeds: Tensor, position_ids: Tensor | None = None, attention_mask=None, use_cache=None, **kwargs
    ) -> BaseModelOutputWithPast:
        """As the language model's; the mask of one unpadded row says nothing.

        Raises:
            ValueError: if there are several rows, no cache, or several tokens after the prompt.
        """
        cache, num_tokens = kwargs.get(CACHE), inputs_embeds.shape[1]
        is_prompt = cache is not None and cache.get_seq_length() == 0
        if cache is None or len(inputs_embeds) > 1 or (num_tokens > 1 and not is_prompt):
            raise ValueError(
                f"This method takes one row, a cache, and after the prompt one token at a time, but got "
                f"{len(inputs_embeds)} rows of {num_tokens} tokens{'' if cache is not None else ' and no cache'}. Use "
                "greedy search or sampling, with use_cache=True."
            )
        if position_ids is None:
            position_ids = torch.arange(num_tokens, device=inputs_embeds.device).unsqueeze(0) + cache.get_seq_length()
        run = self.prefill if is_prompt else self.decode
        hidden = self.language_model.norm(run(inputs_embeds, position_ids, cache))
        return BaseModelOutputWithPast(last_hidden_state=hidden, **{CACHE: cache})

    def get_input_embeddings(self) -> nn.Module:
        """The language model's: a LLaVA-OneVision model asks for them."""
        return self.language_model.get_input_embeddings()

    def prefill(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads the prompt: (1, n, D) -> (1, rows of the last layer, D)."""
        return self.run_layers(range(self.num_layers), hidden, positions, cache)

    def decode(self, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Reads one token more: (1, 1, D) -> (1, 1, D)."""
        return self.run_layers(range(self.num_layers), hidden, positions, cache)

    def run_layers(self, indices: range, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Runs a few layers."""
        for index in indices:
            hidden = self.run_layer(index, hidden, positions, cache)
        return hidden

    def run_layer(self, index: int, hidden: Tensor, positions: Tensor, cache, *, causal: bool = True) -> Tensor:
        """Runs one layer on rows with these position ids; what it attends to is in the cache afterwards.

        Without `causal` each row attends to all.
        """
        mask = None
        if hidden.shape[1] > 1 and causal:
            mask = create_causal_mask(config=self.config, inputs_embeds=hidden, attention_mask=None, **{CACHE: None})
        return self.language_model.layers[index](
            hidden,
            attention_mask=mask,
            position_ids=positions,
            position_embeddings=self.language_model.rotary_emb(hidden, positions),
            use_cache=True,
            **({} if causal else {"is_causal": False}),
            **{CACHE: cache},
        )

    def run_attention(self, index: int, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Runs the first half of a layer, as `run_layer`."""
        layer = self.language_model.layers[index]
        mask = None
        if hidden.shape[1] > 1:
            mask = create_causal_mask(config=self.config, inputs_embeds=hidden, attention_mask=None, **{CACHE: None})
        attended, _ = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            attention_mask=mask,
            position_ids=positions,
            position_embeddings=self.language_model.rotary_emb(hidden, positions),
            **{CACHE: cache},
        )
        return hidden + attended

    def run_mlp(self, index: int, hidden: Tensor) -> Tensor:
        """Runs the second half of a layer."""
        layer = self.language_model.layers[index]
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    def attention_of_last(self, index: int, hidden: Tensor, positions: Tensor, cache) -> Tensor:
        """Attention of the last row to all that a layer which has just run has in its cache, mean over heads: (n,).

        Args:
            hidden, positions: what the layer was given.
        """
        queries = self.rotated(self.queries(index, hidden[:, -1:]), positions[:, -1:])
        return self.attention(index, queries, cache.layers[index].keys).mean(1)[0, 0]

    def rotated(self, projected: Tensor, positions: Tensor) -> Tensor:
        """Queries or keys, (1, heads, n, d), with the rotary embedding of these positions."""
        cosines, sines = (table.unsqueeze(1) for table in self.language_model.rotary_emb(projected, positions))
        first, second = projected.chunk(2, dim=-1)
        return projected * cosines + torch.cat([-second, first], dim=-1) * sines

    def queries(self, index: int, hidden: Tensor) -> Tensor:
        """A layer's queries before RoPE: (1, n, D) -> (1, heads, n, d)."""
        return self._project(index, "q_proj", hidden)

    def keys(self, index: int, hidden: Tensor) -> Tensor:
        """A layer's keys before RoPE: (1, n, D) -> (1, key heads, n, d)."""
        return self._project(index, "k_proj", hidden)

    def attention(self, index: int, queries: Tensor, keys: Tensor) -> Tensor:
        """softmax(q k / sqrt d) without a mask, in float32; keys are repeated for grouped heads: (1, heads, m, n)."""
        keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1)
        scores = queries @ keys.transpose(-2, -1) * self.language_model.layers[index].self_attn.scaling
        return scores.softmax(dim=-1, dtype=torch.float32)

    def _project(self, index: int, name: str, hidden: Tensor) -> Tensor:
        layer = self.language_model.layers[index]
        projected = getattr(layer.self_attn, name)(layer.input_layernorm(hidden))
        return projected.unflatten(-1, (-1, layer.self_attn.head_dim)).transpose(1, 2)


def cut_cache(cache, index: int, rows: Tensor) -> None:
    """Leaves only these rows in a layer's cache."""
    layer = cache.layers[index]
    layer.keys, layer.values = layer.keys[:, :, rows], layer.values[:, :, rows]
