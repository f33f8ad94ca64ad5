"""Original LLaVA-Video checkpoints load as they lie: weights, config, processor and prompt."""

import json
import logging
import re

import pytest
import torch
import transformers
from llava_next_checkpoint import FLAT_CONFIG, SMALL_TEXT, SMALL_TOWER, original_name, save_original
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.video_utils import VideoMetadata

from modeling_aot_llava import (
    AOTLlavaOnevisionConfig,
    AOTLlavaOnevisionForConditionalGeneration,
    AOTLlavaOnevisionProcessor,
)
from modeling_aot_llava.llava_video_checkpoint import KEY_RENAMINGS, config_of_original
from modeling_aot_llava.processing_aot_llava import SETTINGS

SYSTEM_TURN = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
QUESTION = [
    {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "What happens?"}]},
]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """An original checkpoint with a small tower, and the model whose weights it has."""
    folder = tmp_path_factory.mktemp("original")
    save_original(folder, **SMALL_TEXT)
    config = AOTLlavaOnevisionConfig.from_pretrained(folder, vision_config=SMALL_TOWER)
    model = AOTLlavaOnevisionForConditionalGeneration(config).eval()
    save_original(folder, model, **SMALL_TEXT)
    return folder, model


@pytest.fixture(scope="module")
def processor(original):
    return AOTLlavaOnevisionProcessor.from_pretrained(original[0])


def frames(num_frames, side=64):
    return torch.randint(0, 256, (num_frames, 3, side, side), dtype=torch.uint8)


def load(folder, **fields):
    model, info = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32, vision_config=SMALL_TOWER, **fields
    )
    assert {kind: sorted(keys) for kind, keys in info.items() if keys} == {}
    return model


def assert_same_weights(model, other):
    weights, expected = model.state_dict(), other.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in weights)


# --- Weights --------------------------------------------------------------------------------------


def test_the_weights_arrive_and_none_is_made_up(original, caplog, monkeypatch):
    transformers.logging.get_verbosity()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    caplog.set_level(logging.WARNING, "transformers")
    folder, model = original
    loaded = load(folder)
    assert_same_weights(loaded, model)
    assert caplog.messages == []


def test_what_is_saved_again_has_the_new_names(original, tmp_path):
    folder, model = original
    load(folder).save_pretrained(tmp_path)
    again = AOTLlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path)
    assert_same_weights(again, model)
    assert again.config.mm_newline_position == "grid"
    stock = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path)
    assert_same_weights(stock, model)


def test_all_names_of_the_real_size():
    """8.03 B parameters are what the shards of lmms-lab/LLaVA-Video-7B-Qwen2 hold (16.06 GB in bfloat16)."""
    layer = [
        *(f"self_attn.{name}_proj.{kind}" for name in "qkv" for kind in ("weight", "bias")),
        "self_attn.o_proj.weight",
        *(f"mlp.{name}_proj.weight" for name in ("gate", "up", "down")),
        "input_layernorm.weight",
        "post_attention_layernorm.weight",
    ]
    tower = "model.vision_tower.vision_tower.vision_model."
    of_tower_layer = ("layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2", *(f"self_attn.{n}_proj" for n in "qkv"))
    expected = {
        "model.embed_tokens.weight",
        "model.norm.weight",
        "lm_head.weight",
        "model.image_newline",
        *(f"model.layers.{number}.{name}" for number in range(28) for name in layer),
        *(f"model.mm_projector.{number}.{kind}" for number in (0, 2) for kind in ("weight", "bias")),
        f"{tower}embeddings.position_embedding.weight",
        *(
            f"{tower}{name}.{kind}"
            for name in ("embeddings.patch_embedding", "post_layernorm")
            for kind in ("weight", "bias")
        ),
        *(
            f"{tower}encoder.layers.{number}.{name}.{kind}"
            for number in range(26)
            for name in (*of_tower_layer, "self_attn.out_proj")
            for kind in ("weight", "bias")
        ),
    }
    config = AOTLlavaOnevisionConfig(**config_of_original(FLAT_CONFIG))
    with torch.device("meta"):
        model = AOTLlavaOnevisionForConditionalGeneration(config)
    assert {original_name(name) for name in model.state_dict()} == expected
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 2) == 8.03


def test_no_renaming_touches_a_name_of_llava_onevision():
    with torch.device("meta"):
        model = AOTLlavaOnevisionForConditionalGeneration(AOTLlavaOnevisionConfig())
    for name in model.state_dict():
        old = name.replace("model.language_model.", "language_model.model.").replace(
            "model.vision_tower.", "vision_tower."
        )
        for source in KEY_RENAMINGS:
            assert not re.search(source, name)
            assert not re.search(source, old)


# --- Config ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["llava", "llava_qwen"])
def test_the_flat_config_is_read(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({**FLAT_CONFIG, "model_type": model_type}))
    config = AOTLlavaOnevisionConfig.from_pretrained(tmp_path)
    assert config.model_type == "aot_llava_onevision"
    text = config.text_config
    assert (text.model_type, text.hidden_size, text.num_hidden_layers, text.vocab_size) == ("qwen2", 3584, 28, 152064)
    assert (text.intermediate_size, text.num_attention_heads, text.num_key_value_heads) == (18944, 28, 4)
    assert (text.max_position_embeddings, text.rms_norm_eps) == (32768, 1e-6)
    assert text.rope_parameters["rope_theta"] == 1000000.0
    vision = config.vision_config
    assert (vision.model_type, vision.num_hidden_layers, vision.vision_use_head) == ("siglip_vision_model", 26, False)
    assert (config.patch_grid_size, vision.hidden_size, vision.intermediate_size) == (27, 1152, 4304)
    assert (config.vision_feature_layer, config.vision_feature_select_strategy) == (-1, "full")
    assert (config.image_token_id, config.video_token_id) == (151646, 151647)
    assert (config.mm_spatial_pool_mode, config.mm_newline_position) == ("bilinear", "grid")
    assert config.image_grid_pinpoints == FLAT_CONFIG["image_grid_pinpoints"]
    assert config.dtype == torch.bfloat16


def test_fields_may_be_chosen_on_the_way(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FLAT_CONFIG))
    config = AOTLlavaOnevisionConfig.from_pretrained(tmp_path, mm_spatial_pool_mode="average", retention_ratio=0.2)
    assert (config.mm_spatial_pool_mode, config.pooled_grid_size, config.retention_ratio) == ("average", 13, 0.2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("add_faster_video", True),
        ("mm_vision_tower", "openai/clip-vit-large-patch14-336"),
        ("mm_projector_type", "linear"),
        ("mm_spatial_pool_stride", 4),
        ("architectures", ["LlavaLlamaForCausalLM"]),
        ("mm_newline_position", "column"),
        ("image_grid_pinpoints", "(1x1),...,(6x6)"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, field, value):
    (tmp_path / "config.json").write_text(json.dumps({**FLAT_CONFIG, field: value}))
    with pytest.raises(ValueError, match=f"`{field}` is "):
        AOTLlavaOnevisionConfig.from_pretrained(tmp_path)


# --- Processor ------------------------------------------------------------------------------------


def test_the_processor_of_an_original_checkpoint(processor):
    assert (processor.image_token_id, processor.video_token_id) == (151646, 151647)
    assert (processor.num_frames, processor.num_image_tokens, processor.add_time_instruction) == (64, 729, True)
    assert (processor.mm_spatial_pool_mode, processor.mm_newline_position) == ("bilinear", "grid")
    for part in (processor.image_processor, processor.video_processor):
        assert list(part.image_mean) == list(part.image_std) == [0.5, 0.5, 0.5]
        assert dict(part.size) == {"height": 384, "width": 384}
    grey = processor.video_processor(torch.full((1, 3, 64, 64), 255, dtype=torch.uint8), return_tensors="pt")
    torch.testing.assert_close(grey["pixel_values_videos"], torch.ones(1, 1, 3, 384, 384))


def test_a_saved_processor_loads_again(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = AOTLlavaOnevisionProcessor.from_pretrained(tmp_path)
    assert {name: getattr(again, name) for name in SETTINGS} == {name: getattr(processor, name) for name in SETTINGS}
    assert again.chat_template == processor.chat_template
    assert (again.image_token_id, again.video_token_id) == (151646, 151647)


def test_a_tokenizer_of_another_size_is_refused(tmp_path):
    save_original(tmp_path)
    tokenizer = transformers.Qwen2Tokenizer.from_pretrained(tmp_path)
    tokenizer.add_tokens(["<another>"], special_tokens=True)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\(151647, 151648\), but the model reads \(151646, 151647\)"):
        AOTLlavaOnevisionProcessor.from_pretrained(tmp_path)


def test_the_prompt_is_llava_nexts(processor):
    prompt = processor.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    user = "<|im_start|>user\n<video>\nWhat happens?<|im_end|>\n"
    assert prompt == f"{SYSTEM_TURN}{user}<|im_start|>assistant\n"
    answered = [*QUESTION, {"role": "assistant", "content": "A fall."}, {"role": "user", "content": "Why?"}]
    prompt = processor.apply_chat_template(answered, add_generation_prompt=True, tokenize=False)
    turns = "<|im_start|>assistant\nA fall.<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n"
    assert prompt == f"{SYSTEM_TURN}{user}{turns}<|im_start|>assistant\n"
    own = [{"role": "system", "content": "Be brief."}, *QUESTION]
    assert processor.apply_chat_template(own, tokenize=False) == f"<|im_start|>system\nBe brief.<|im_end|>\n{user}"


# --- Time instruction -----------------------------------------------------------------------------

METADATA = VideoMetadata(total_num_frames=100, fps=8.0, frames_indices=[0, 33, 66, 99])
SENTENCE = (
    "\nThe video lasts for 12.50 seconds, and 4 frames are uniformly sampled from it. These frames are located at "
    "0.00s,4.12s,8.25s,12.38s.Please answer the following questions related to this video."
)


@pytest.mark.parametrize("metadata", [METADATA, dict(METADATA)], ids=["object", "dict"])
def test_the_times_follow_the_video(processor, metadata):
    inputs = processor(text="<video>\nWhy?", videos=[frames(4)], video_metadata=[metadata], return_tensors="pt")
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    num_placeholders = 4 * (196 + 14) if processor.retention_ratio >= 1 else round(0.1 * 4 * 196) + 4 * 14
    assert text == "<video>" * num_placeholders + f"{SENTENCE}\nWhy?"
    assert "video_metadata" not in inputs


def test_without_the_times_the_paper_is_reproduced(processor):
    inputs = processor(text="<video>\nWhy?", videos=[frames(4)], add_time_instruction=False, return_tensors="pt")
    assert processor.tokenizer.decode(inputs["input_ids"][0]).endswith("<video>\nWhy?")


@pytest.mark.parametrize(
    "metadata", [{}, {"video_metadata": [{"total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}]}]
)
def test_frames_without_a_frame_rate_are_refused(processor, metadata):
    with pytest.raises(ValueError, match="`add_time_instruction` is True, but the frame rate"):
        processor(text="<video>\nWhy?", videos=[frames(4)], **metadata)


def test_each_video_has_its_own_times(processor):
    other = VideoMetadata(total_num_frames=50, fps=25.0, frames_indices=[0, 49])
    inputs = processor(
        text=["<video>\nWhy?", "<video>\nWho?"],
        videos=[frames(4), frames(2)],
        video_metadata=[METADATA, other],
        padding=True,
    )
    first, second = processor.batch_decode(inputs["input_ids"])
    assert SENTENCE in first
    assert (
        "lasts for 2.00 seconds, and 2 frames are uniformly sampled from it. These frames are located at 0.00s,1.96s."
        in second
    )


# --- From the file to the answer ------------------------------------------------------------------


@pytest.mark.parametrize("retention_ratio", [1.0, 0.1])
def test_it_answers(original, processor, retention_ratio):
    model = load(original[0], mm_spatial_pool_mode="average", retention_ratio=retention_ratio)
    processor = AOTLlavaOnevisionProcessor.from_pretrained(
        original[0], mm_spatial_pool_mode="average", retention_ratio=retention_ratio
    )
    text = processor.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False)
    inputs = processor(text=text, videos=[frames(4)], video_metadata=[METADATA], return_tensors="pt")
    num_tokens = {1.0: 4 * 169, 0.1: 68}[retention_ratio]
    assert int((inputs["input_ids"] == 151647).sum()) == num_tokens + 4 * 13
    with torch.no_grad():
        answer = model.generate(**inputs, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 2
    assert torch.equal(answer[:, :-2], inputs["input_ids"])
