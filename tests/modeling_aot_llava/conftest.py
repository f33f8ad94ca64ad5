"""What the model has to come to, put together by hand from the pieces of the stock model."""

import pytest
import torch

from modeling_aot_llava.spatiotemporal_pruning import compress_video_features


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


class AnyGraphs(list):
    """The graphs that were compiled, between which there are breaks."""

    def __call__(self, graph, inputs):
        self.append(graph)
        return graph.forward

    @property
    def of_tower(self):
        return [graph for graph in self if any("conv2d" in str(node.target) for node in graph.graph.nodes)]


@pytest.fixture
def any_graphs():
    torch.compiler.reset()
    yield AnyGraphs()
    torch.compiler.reset()
