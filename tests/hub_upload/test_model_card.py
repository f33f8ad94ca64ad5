"""The model card: metadata that the Hub understands, the operating point, and code that can be run."""

import ast
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from hub_server import HubServer, use_in_this_process
from huggingface_hub import ModelCard

from hub_upload.base import Base
from hub_upload.model_card import loading_lines, model_card, readable_flops, usage_code
from hub_upload.operating_point import OperatingPoint
from hub_upload.variants import bundled_variants, read_variant
from modeling_aot_llava.vllm_serving import TRANSFORMERS_FROM, VLLM_BEFORE, VLLM_FROM

ROOT = Path(__file__).parents[2]
BASE_MODEL = "llava-hf/llava-onevision-qwen2-7b-ov-hf"
REVISION = "0d50680527681998e456c7b78950205bedd8a068"
CARD_FIELDS = {"license": "apache-2.0", "language": ["en", "zh"]}
BASE = Base(BASE_MODEL, REVISION, (), (), {}, {}, CARD_FIELDS)
SEVEN_B = {"num_layers": 28, "hidden_size": 3584, "intermediate_size": 18944}
ONE_NEWLINE = {"newlines_before": 1, "newlines_after": 1, "has_fixed_token_count": True}
POINT = OperatingPoint(num_frames=32, tokens_before=6272, tokens_after=627, **ONE_NEWLINE, **SEVEN_B)


@pytest.fixture
def variant():
    return read_variant(bundled_variants()["llava-onevision-7b-10-uniform"])


@pytest.fixture
def render(variant):
    """Renders the card of the 10 % variant and reads it back: `render(point=..., base=..., revision="x")`."""

    def render_card(base=BASE, point=POINT, repo_id="me/variant", **options):
        return ModelCard(model_card(base, variant, point, repo_id, **options))

    return render_card


def code_blocks(text, language):
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


# Metadata


def test_the_metadata_says_what_the_hub_wants_to_know(render):
    assert render().data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "video-text-to-text",
        "base_model": BASE_MODEL,
        "license": "apache-2.0",
        "language": ["en", "zh"],
        "tags": ["aot", "video", "token-reduction", "optimal-transport", "llava_onevision", "arxiv:2603.01400"],
    }


def test_the_licence_is_the_bases_whatever_it_is(render):
    special = {"license": "other", "license_name": "tongyi-qianwen", "license_link": "LICENSE"}
    metadata = render(replace(BASE, card_fields=special)).data.to_dict()
    assert {name: metadata[name] for name in special} == special
    assert "language" not in metadata


def test_a_base_without_a_card_leaves_the_licence_open(render):
    assert "license" not in render(replace(BASE, card_fields={})).data.to_dict()


@pytest.mark.skipif(huggingface_hub.__version__ < "2", reason="huggingface_hub 1 validates at huggingface.co alone")
def test_the_hub_accepts_the_card(render, monkeypatch, recwarn):
    with HubServer() as server:
        use_in_this_process(server, monkeypatch)
        render().validate()
        assert [request.path for request in server.requests] == ["/api/validate-yaml"]
    assert not [warning for warning in recwarn if "metadata" in str(warning.message)]


def test_the_card_survives_a_file(render, tmp_path):
    card = render()
    card.save(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert str(ModelCard.load(tmp_path / "README.md")) == text
    assert yaml.safe_load(text.split("---")[1]) == card.data.to_dict()
    assert "{{" not in text
    assert "\n\n\n" not in text
    assert text.endswith("```\n")


# Text


def test_the_operating_point_is_that_of_the_paper(render):
    text = render().text
    assert "hands the language model\n10 % of the tokens of a video" in text
    assert "| frames of a video | 32 | 32 |" in text
    assert "| video tokens in the prompt | 6,272 | 627 |" in text
    assert "| 40.8 TFLOPs | 3.4 TFLOPs (8.3 %) |" in text
    assert '`retention_ratio=0.1`, uniform clips (`num_clips=8`), `recipe="paper"`' in text


def test_anchors_that_follow_from_the_ratio_are_no_setting(variant):
    without = replace(variant, fields={**variant.fields, "num_anchors": None})
    text = ModelCard(model_card(BASE, without, POINT, "me/variant")).text
    assert '`retention_ratio=0.1`, uniform clips (`num_clips=8`), `recipe="paper"`' in text
    assert "None" not in text


def test_many_newline_tokens_are_told_and_cost_what_they_cost(render):
    """LLaVA-Video's: 11,648 tokens, 88.3 T, become 1,914, 10.8 T (docs/llava-video.md)."""
    assert "newline" not in render().text
    video = {"num_frames": 64, "tokens_before": 10816, "tokens_after": 1082}
    text = render(point=replace(POINT, **video, newlines_before=832, newlines_after=832)).text
    assert "| video tokens in the prompt | 10,816 | 1,082 |\n| newline tokens beside them | 832 | 832 |\n" in text
    assert "| 88.3 TFLOPs | 10.8 TFLOPs (12.2 %) |" in text
    assert "the paper leaves newline tokens" in text


def test_where_the_token_count_depends_on_the_video_the_card_says_so(render):
    assert "depends on the video" not in render().text
    text = render(point=replace(POINT, has_fixed_token_count=False)).text
    assert "| video tokens in the prompt | 6,272 | about 627 |" in text
    assert "the number of tokens depends on the video" in text


def test_the_bases_commit_is_recorded(render):
    assert f"[`{REVISION[:7]}`](https://huggingface.co/{BASE_MODEL}/tree/{REVISION})" in render().text


def test_a_local_base_does_not_claim_to_be_the_published_one(render):
    card = render(replace(BASE, location="./mine", revision=None))
    assert card.data.base_model == BASE_MODEL
    assert "those of a local checkpoint" in card.text
    assert "byte for byte" not in card.text
    assert "./mine" not in str(card)


def test_the_card_of_the_main_branch_lists_the_others(render):
    assert "`revision`:" not in render().text
    twenty = replace(POINT, tokens_after=1254)
    varying = replace(POINT, has_fixed_token_count=False)
    text = render(branches={"ten": POINT, "twenty": twenty, "varying": varying}).text
    assert "| `ten` | 627 | 3.4 TFLOPs |\n| `twenty` | 1,254 | 6.9 TFLOPs |\n" in text
    assert "| `varying` | about 627 | 3.4 TFLOPs |\n" in text


def test_the_paper_is_cited_as_in_the_readme(render):
    (entry,) = code_blocks(render().text, "bibtex")
    assert "2603.01400" in entry
    assert [entry] == code_blocks((ROOT / "README.md").read_text(encoding="utf-8"), "bibtex")


def test_what_is_to_be_installed_is_what_the_code_was_tried_with(render):
    (bound,) = re.findall(r'"(transformers\S+)",', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    install, *_ = code_blocks(render().text, "bash")
    assert bound in shlex.split(install)
    assert f'`pip install "{bound}" ' in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_releases_that_serve_it_are_those_that_its_code_takes(render):
    releases = [f"0.{minor}" for minor in range(VLLM_FROM[1], VLLM_BEFORE[1])]
    beside = ".".join(map(str, TRANSFORMERS_FROM))
    assert f"{' or '.join(releases)} and transformers {beside}:" in render().text


# Code; tests/hub_upload/test_hub_upload.py runs it


def test_the_code_loads_this_repository(render):
    (code,) = code_blocks(render().text, "python")
    ast.parse(code)
    assert 'model_id = "me/variant"' in code
    assert code.count("trust_remote_code=True") == 2
    assert "revision" not in code


def test_the_code_of_another_branch_names_it(render):
    (code,) = code_blocks(render(revision="twenty").text, "python")
    ast.parse(code)
    assert 'model_id = "me/variant"\nrevision = "twenty"\n' in code
    assert code.count("model_id, revision=revision, trust_remote_code=True") == 2


def test_the_server_reads_this_branch_and_as_many_frames(render):
    *_, command = code_blocks(render(revision="twenty", point=replace(POINT, num_frames=64)).text, "bash")
    words = shlex.split(command.replace("\\\n", " "))
    assert words[:3] == ["vllm", "serve", "me/variant"]
    options = dict(zip(words[3:], words[4:]))
    assert "--trust-remote-code" in words
    assert options["--revision"] == "twenty"
    assert json.loads(options["--media-io-kwargs"]) == {"video": {"num_frames": 64}}


def test_what_cannot_be_served_says_so(render):
    text = render(point=replace(POINT, has_fixed_token_count=False)).text
    assert "vllm serve" not in text
    assert "vLLM cannot serve it" in text


def test_lines_fit_on_the_page():
    long = usage_code("somebody-with-a-long-name/llava-onevision-7b-aot-variants", "llava-onevision-7b-10-uniform")
    ast.parse(long)
    assert max(map(len, long.splitlines())) <= 119


def test_three_lines_load_model_and_processor():
    lines = loading_lines("me/variant", "twenty")
    assert len(lines) == 3
    ast.parse("\n".join(lines))


@pytest.mark.parametrize(
    ("flops", "text"), [(40.8e12, "40.8 TFLOPs"), (2.5e9, "2.5 GFLOPs"), (1.4e6, "1.4 MFLOPs"), (12, "12 FLOPs")]
)
def test_flops_are_readable(flops, text):
    assert readable_flops(flops) == text
