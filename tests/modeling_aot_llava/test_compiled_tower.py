"""A vision tower that is compiled, in any way: the attention is read all the same, and no graph breaks."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from accelerate import dispatch_model
from reference import relative_error
from torch.utils.flop_counter import FlopCounterMode
from transformers import SiglipVisionConfig, SiglipVisionModel

from modeling_aot_llava.attention_capture import run_and_read_attention
from modeling_aot_llava.served_vision_tower import ServedVisionTower


class Graphs(list):
    """The graphs that were compiled. A break in one is an error."""

    @property
    def options(self):
        return {"backend": self._compile, "fullgraph": True}

    def _compile(self, graph, inputs):
        self.append(graph)
        return graph.forward


@pytest.fixture
def graphs():
    torch.compiler.reset()
    yield Graphs()
    torch.compiler.reset()


def wrap_layers(model, graphs):
    layers = model.model.vision_tower.encoder.layers
    for place, layer in enumerate(layers):
        layers[place] = torch.compile(layer, **graphs.options)


def compile_layers(model, graphs):
    for layer in model.model.vision_tower.encoder.layers:
        layer.compile(**graphs.options)


def compile_attention(model, graphs):
    for layer in model.model.vision_tower.encoder.layers:
        layer.self_attn = torch.compile(layer.self_attn, **graphs.options)


def wrap_tower(model, graphs):
    model.model.vision_tower = torch.compile(model.model.vision_tower, **graphs.options)


def replace_forward(model, graphs):
    tower = model.model.vision_tower
    tower.forward = torch.compile(tower.forward, **graphs.options)


# Each way, and how many graphs it may make: layers share two, one for those whose attention or states are read.
COMPILED = {
    "tower": (lambda model, graphs: model.model.vision_tower.compile(**graphs.options), 1),
    "wrapped tower": (wrap_tower, 1),
    "forward": (replace_forward, 1),
    "layers": (compile_layers, 3),
    "wrapped layers": (wrap_layers, 3),
    "attention": (compile_attention, 3),
}


def compress(model, pixels):
    with torch.no_grad():
        return model.model.compress_videos(pixels)


@pytest.mark.parametrize("compiled", COMPILED)
def test_a_compiled_tower_gives_the_same_tokens_in_one_graph(build_model, prompt, graphs, compiled):
    pixels = prompt("<video>What?", "<video>Where?", seeds=(0, 1)).pixel_values_videos
    # Of another model: a run that is not compiled leaves hooks of transformers, at which torch 2.11 breaks a graph.
    model, expected = build_model(), compress(build_model(), pixels)
    compile_it, most_graphs = COMPILED[compiled]
    compile_it(model, graphs)
    counts = []
    for _ in range(2):
        for video, other in zip(compress(model, pixels), expected):
            assert torch.equal(video.anchors.all, other.anchors.all)
            assert relative_error(video.tokens, other.tokens.double()) < 1e-5
        counts.append(len(graphs))
    assert 1 <= counts[0] == counts[1] <= most_graphs


def test_images_and_videos_share_a_compiled_tower(build_model, prompt, make_image, processor, graphs):
    model = build_model()
    inputs = processor(text="<image>", images=make_image(), return_tensors="pt")
    pixels = prompt("<video>What?").pixel_values_videos

    def features():
        with torch.no_grad():
            images = model.model.get_image_features(inputs["pixel_values"], inputs["image_sizes"]).pooler_output
            return [*images, *model.model.get_video_features(pixels).pooler_output]

    expected = features()
    model.model.vision_tower.compile(**graphs.options)
    for value, other in zip(features(), expected):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6)


def test_the_answer_has_no_more_hidden_states_than_without(build_model, prompt, graphs):
    pixels = prompt("<video>What?").pixel_values_videos
    model = build_model()

    def given():
        with torch.no_grad():
            states = model.model.get_video_features(pixels).hidden_states
        return [state is not None for state in states]

    expected = given()
    model.model.vision_tower.compile(**graphs.options)
    assert given() == expected


def test_both_ways_give_the_same_bits_where_nothing_is_compiled(build_model, prompt):
    """A `forward` of one's own may be anything; here it is the tower's."""
    tower = build_model().model.vision_tower
    pixels = prompt("<video>What?").pixel_values_videos[0]
    with torch.no_grad():
        _, by_hooks = run_and_read_attention(tower, pixels, (0, 1, -2, -1), output_hidden_states=True)
        tower.forward = tower.forward
        _, by_states = run_and_read_attention(tower, pixels, (0, 1, -2, -1), output_hidden_states=True)
    assert by_hooks.keys() == by_states.keys() == {0, 1, -2, -1}
    for layer, received in by_hooks.items():
        assert torch.equal(received, by_states[layer])


def test_a_tower_that_hides_that_it_is_compiled_is_run_again(build_model, prompt, graphs, monkeypatch):
    """As where the class was changed: no hook runs, and that is seen."""
    model = build_model()
    pixels = prompt("<video>What?").pixel_values_videos
    expected = compress(model, pixels)
    kind = type(model.model.vision_tower)
    monkeypatch.setattr(kind, "forward", torch.compile(kind.forward, **graphs.options))
    for video, other in zip(compress(model, pixels), expected):
        assert torch.equal(video.anchors.all, other.anchors.all)


def test_weights_that_accelerate_places_for_a_call_are_left_to_it(build_model, prompt, tmp_path):
    """Outside of its call the encoder has none."""
    pixels = prompt("<video>What?").pixel_values_videos
    model = build_model()
    expected = compress(model, pixels)
    device_map = {"embeddings": "cpu", "encoder": "disk", "post_layernorm": "cpu"}
    dispatch_model(model.model.vision_tower, device_map, main_device="cpu", offload_dir=tmp_path, force_hooks=True)
    assert model.model.vision_tower.encoder.layers[0].layer_norm1.weight.is_meta
    for video, other in zip(compress(model, pixels), expected):
        assert torch.equal(video.tokens, other.tokens)


def test_gradients_of_the_tower_are_those_of_the_eager_one(build_model, prompt, graphs):
    pixels = prompt("<video>What?").pixel_values_videos
    model = build_model()

    def gradient():
        model.zero_grad()
        model.model.compress_videos(pixels)[0].tokens.square().sum().backward()
        return model.model.vision_tower.encoder.layers[0].mlp.fc1.weight.grad.clone()

    expected = gradient()
    model.model.vision_tower.compile(**graphs.options)
    assert relative_error(gradient(), expected.double()) < 1e-4


@pytest.mark.parametrize("asked", [True, [-1], [0, 3, -1]], ids=str)
def test_any_number_of_layers_shares_a_few_graphs(asked, graphs):
    """The real towers have 24 to 26 layers, and torch compiles one function 8 times at most."""
    torch.manual_seed(0)
    tower = SiglipVisionModel(
        SiglipVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=26,
            num_attention_heads=2,
            image_size=56,
            patch_size=14,
            vision_use_head=False,
        )
    ).eval()
    frames = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        eager = copy.deepcopy(tower)
        states = eager(frames, output_hidden_states=True).hidden_states
        _, expected = run_and_read_attention(eager, frames, (5, -2))
        for layer in tower.encoder.layers:
            layer.compile(**graphs.options)
        outputs, received = run_and_read_attention(tower, frames, (5, -2), output_hidden_states=asked)
    assert 1 < len(graphs) <= 3
    for layer in (5, -2):
        assert torch.equal(received[layer], expected[layer])
    wanted = range(27) if asked is True else [range(27)[index] for index in asked]
    for index, state in enumerate(outputs.hidden_states):
        assert state is None if index not in wanted else torch.equal(state, states[index])


def test_nothing_is_kept_after_the_run(build_model, prompt, graphs):
    model = build_model()
    model.model.vision_tower.compile(**graphs.options)
    compress(model, prompt("<video>What?").pixel_values_videos)
    kept = [vars(module)["_aot_kept"] for module in model.modules() if "_aot_kept" in vars(module)]
    assert kept
    assert not any(kept)


def test_the_hooks_that_stay_are_neither_saved_nor_in_the_way_of_a_copy(build_model, prompt, graphs):
    pixels = prompt("<video>What?").pixel_values_videos
    model = build_model()
    names = model.state_dict().keys()
    replace_forward(model, graphs)
    expected = compress(model, pixels)[0].tokens
    assert model.state_dict().keys() == names
    del model.model.vision_tower.forward
    assert torch.equal(compress(copy.deepcopy(model), pixels)[0].tokens, expected)


def test_threads_take_turns_at_a_compiled_tower(build_model, prompt, graphs):
    model = build_model()
    videos = [prompt("<video>What?", seeds=(seed,)).pixel_values_videos for seed in range(4)]
    model.model.vision_tower.compile(**graphs.options)
    expected = [compress(model, video)[0].tokens for video in videos]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            for video, tokens in zip(threads.map(lambda video: compress(model, video), videos), expected):
                assert torch.equal(video[0].tokens, tokens)


def test_a_tower_that_ran_compiled_before_is_run_without(build_model, prompt, graphs):
    model = build_model()
    pixels = prompt("<video>What?").pixel_values_videos
    expected = compress(model, pixels)
    model.model.vision_tower.compile(**graphs.options)
    with torch.no_grad():
        model.model.vision_tower(pixels[0], output_hidden_states=[-1], return_dict=True)
    for video, other in zip(compress(model, pixels), expected):
        assert torch.equal(video.tokens, other.tokens)


def test_a_tower_that_shows_nothing_is_an_error_of_one_sentence(build_model, prompt):
    model = build_model()
    pixels = prompt("<video>What?").pixel_values_videos
    outputs = model.model.vision_tower(pixels[0], output_hidden_states=True)
    model.model.vision_tower.forward = lambda *_, **__: outputs
    with pytest.raises(RuntimeError, match=r"lets nobody read its attention.*vision_tower\.compile"):
        compress(model, pixels)


@pytest.mark.parametrize("watched", [(0, -2), (3, 3)], ids=str)
def test_the_tower_that_vllm_compiles_gives_the_stock_ones_states_and_attention(watched, graphs):
    """Whatever its first call is, which vLLM compiles for all: here one as of images."""
    config = SiglipVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=6, num_attention_heads=2)
    config.update({"image_size": 56, "patch_size": 14, "vision_use_head": False})
    torch.manual_seed(0)
    stock = SiglipVisionModel(copy.deepcopy(config)).eval()
    served = ServedVisionTower(config, watched=watched).eval()
    served.load_state_dict(stock.state_dict())
    frames = torch.randn(3, 3, 56, 56)
    with torch.no_grad():
        states = stock(frames, output_hidden_states=True).hidden_states
        _, expected = run_and_read_attention(stock, frames, watched)
        served.compile(**graphs.options)
        served(frames, output_hidden_states=[-1])
        outputs, received = run_and_read_attention(served, frames, watched, output_hidden_states=[-1])
    assert len(graphs) == 1
    assert outputs.attentions is None
    for state, other in zip(outputs.hidden_states, states, strict=True):
        assert torch.equal(state, other)
    assert received.keys() == set(watched)
    for layer, other in expected.items():
        assert torch.equal(received[layer], other)


@pytest.mark.parametrize("kind", ["eager", "compiled", "served"])
def test_attention_received_is_little_beside_the_tower(kind):
    """Of the tower of LLaVA-OneVision-7B, on the meta device: shapes alone."""
    config = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=26,
        num_attention_heads=16,
        image_size=384,
        patch_size=14,
        vision_use_head=False,
    )
    with torch.device("meta"), torch.no_grad():
        tower, frames = SiglipVisionModel(config), torch.empty(1, 3, 384, 384)
        with FlopCounterMode(display=False) as alone:
            tower(frames)
        if kind == "compiled":
            tower.forward = tower.forward
        elif kind == "served":
            tower = ServedVisionTower(config, watched=(5, -2))
        with FlopCounterMode(display=False) as watched:
            run_and_read_attention(tower, frames, (5, -2), output_hidden_states=[-1])
    share = watched.get_total_flops() / alone.get_total_flops() - 1
    assert 0.003 < share < 0.005


def inputs_of(prompt, processor, make_video, case):
    texts, frames = ["<video>What?", "<video>Where?"], {"different lengths": (6, 4)}.get(case, (6, 6))
    if case == "a stock prompt":  # which does not say that all tokens are asked for
        return prompt(*texts, seeds=(0, 1), num_frames=6, retention_ratio=1.0)
    videos = [make_video(count, seed) for seed, count in enumerate(frames)]
    ratio = 1.0 if case == "all tokens" else 0.5
    return processor(text=texts, videos=videos, padding=True, return_tensors="pt", retention_ratio=ratio)


@pytest.mark.parametrize("case", ["an exact prompt", "a stock prompt", "all tokens", "different lengths"])
def test_a_compiled_model_compiles_its_tower_too(build_model, prompt, processor, make_video, any_graphs, case):
    """And its language model; the prompt is fitted between the two."""
    inputs = inputs_of(prompt, processor, make_video, case)
    model = build_model(retention_ratio=0.25, frames_at_once=3)
    with torch.no_grad():
        expected = model(**inputs).logits
        compiled = torch.compile(model, backend=any_graphs)
        counts = []
        for _ in range(2):
            torch.testing.assert_close(compiled(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
            counts.append(len(any_graphs))
    # A part of three frames, and one of a single frame where the other video has four.
    assert len(any_graphs.of_tower) == (2 if case == "different lengths" else 1)
    assert any(len(graph.graph.nodes) > 100 for graph in any_graphs if graph not in any_graphs.of_tower)
    assert counts[0] == counts[1]


def test_gradients_of_a_compiled_model_are_those_of_the_eager_one(build_model, prompt, any_graphs):
    inputs = prompt("<video>What?", retention_ratio=0.25)
    model = build_model(retention_ratio=0.25)

    def gradient(call):
        model.zero_grad()
        call(**inputs, labels=inputs["input_ids"]).loss.backward()
        return model.model.vision_tower.encoder.layers[0].mlp.fc1.weight.grad.clone()

    expected = gradient(model)
    assert relative_error(gradient(torch.compile(model, backend=any_graphs)), expected.double()) < 1e-4
    assert any_graphs.of_tower


def test_a_compiled_model_says_what_is_wrong_before_its_tower_runs(build_model, prompt, any_graphs):
    inputs = prompt("<video>What?", retention_ratio=1.0)
    inputs["pixel_values_videos"] = inputs["pixel_values_videos"][:, :1]
    with pytest.raises(ValueError, match="placeholders"):
        torch.compile(build_model(), backend=any_graphs)(**inputs)
    assert not any_graphs.of_tower


def test_a_tower_that_was_traced_by_itself_runs_without_being_compiled(build_model, prompt, any_graphs):
    """Its graph has no hooks, so no attention can be read there."""
    inputs = prompt("<video>What?", retention_ratio=0.25)
    model = build_model(retention_ratio=0.25)
    with torch.no_grad():
        expected = model(**inputs).logits
        model.model.vision_tower.compile(backend=any_graphs)
        model.model.vision_tower(inputs["pixel_values_videos"][0], output_hidden_states=[-1], return_dict=True)
        compiled = torch.compile(model, backend=any_graphs)
        torch.testing.assert_close(compiled(**inputs).logits, expected, rtol=1e-5, atol=1e-5)
