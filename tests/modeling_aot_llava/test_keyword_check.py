"""Keywords that nothing reads: mistyped settings are refused by name, what transformers may hand on passes."""

import pytest

from aot_llava_cli.mini import MINI_CHECKPOINT, MINI_CLIP
from modeling_aot_llava import AOTLlavaOnevisionProcessor
from modeling_aot_llava.processing_aot_llava import SETTINGS


@pytest.fixture(scope="module")
def processor():
    return AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT)


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("retention_ration", "retention_ratio"),
        ("retention_rate", "retention_ratio"),
        ("ratio", "retention_ratio"),
        ("num_frame", "num_frames"),
        ("max_frames", "num_frames"),
        ("num_clip", "num_clips"),
        ("newline_position", "mm_newline_position"),
        ("add_time_instructions", "add_time_instruction"),
    ],
)
def test_a_mistyped_setting_of_the_processor_is_refused_as_the_model_does(mistyped, meant):
    with pytest.raises(TypeError, match=f"unexpected keyword '{mistyped}': did you mean `{meant}`"):
        AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT, **{mistyped: 0.1})


@pytest.mark.parametrize(
    "keywords",
    [
        {"padding_side": "left"},
        {"trust_remote_code": True, "code_revision": "main"},
        {"num_anchors": 126, "keep_ratio": 0.1, "clip_segmentation": "dynamic"},  # the model's, handed to both
        {"of_a_later_transformers": 1},
        {"_from_pipeline": "any-to-any"},
        {"do_sample_frames": False, "min_pixels": 1},
    ],
)
def test_what_is_no_mistyped_setting_passes(keywords):
    assert AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT, **keywords).retention_ratio == 0.1


def test_every_setting_passes():
    values = AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT).to_dict()
    AOTLlavaOnevisionProcessor.from_pretrained(MINI_CHECKPOINT, **{name: values[name] for name in SETTINGS})


@pytest.mark.parametrize(
    "keywords", [{"retention_ration": 0.2}, {"videos_kwargs": {"retention_ration": 0.2}}, {"num_frame": 2}]
)
def test_a_mistyped_setting_of_a_call_is_refused_before_the_video_is_read(processor, keywords):
    with pytest.raises(TypeError, match="did you mean"):
        processor(text="<video>", videos=["missing.mp4"], **keywords)
    content = [{"type": "video", "path": str(MINI_CLIP)}]
    with pytest.raises(TypeError, match="did you mean"):
        processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, processor_kwargs=keywords
        )
