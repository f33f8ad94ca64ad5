"""What vLLM cannot serve is refused in one sentence when the model is built."""

import pytest
import transformers
from engines import engine
from qwen_vl_hosts import HOSTS, our_model, processor_of, stock_model

from modeling_aot_llava import AOTLlavaOnevisionConfig, vllm_serving


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hf_overrides": {"recipe": "released"}}, "`recipe` is 'released'.*depends on the video"),
        ({"hf_overrides": {"temporal_threshold": 0.3}}, "`temporal_threshold` is 0.3.*depends on the video"),
    ],
)
def test_an_engine_is_refused(folder, answers, settings, message):
    with pytest.raises(ValueError, match=message), engine(folder, **settings):
        pass


@pytest.mark.parametrize("host", HOSTS)
def test_a_qwen_vl_model_is_refused(host, vllm, tmp_path):
    """Its positions would have to be known before a frame is encoded."""
    our_model(HOSTS[host], stock_model(HOSTS[host])).save_pretrained(tmp_path)
    processor_of(HOSTS[host]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="cannot be served by vLLM"), engine(tmp_path, max_model_len=4096):
        pass


@pytest.mark.parametrize("media", [{}, {"video": {"num_frames": 16}}])
def test_a_server_that_reads_other_frames_than_the_folder_says_warns_at_its_start(folder, answers, media, caplog):
    with engine(folder, media_io_kwargs=media):
        pass
    said = [record.getMessage() for record in caplog.records if "--media-io-kwargs" in record.getMessage()]
    assert bool(said) == (not media)
    for message in said:
        assert "reads 32 frames" in message
        assert "says 16" in message


def test_an_unknown_setting_of_a_server_is_refused_by_name(folder, answers):
    settings = {"mm_processor_kwargs": {"retention_ration": 0.2}}
    with (
        pytest.raises(TypeError, match="'retention_ration': did you mean `retention_ratio`"),
        engine(folder, **settings),
    ):
        pass


@pytest.mark.parametrize("version", [(0, 31, 4), (0, 34, 0), (1, 0, 0)])
def test_another_vllm_is_refused(vllm, monkeypatch, version):
    monkeypatch.setattr(vllm, "__version_tuple__", version)
    monkeypatch.setattr(vllm, "__version__", ".".join(map(str, version)))
    with pytest.raises(ImportError, match=rf"vLLM is {version[0]}\.{version[1]}.*from 0.32 and before 0.34"):
        vllm_serving.check_can_be_served(AOTLlavaOnevisionConfig())


@pytest.mark.parametrize("version", ["5.19.1", "5.21.0", "6.0.0"])
def test_another_transformers_is_refused(monkeypatch, version):
    monkeypatch.setattr(transformers, "__version__", version)
    with pytest.raises(ImportError, match=rf"transformers is {version}, .*from 5\.20 and before 5\.21"):
        vllm_serving.check_can_be_served(AOTLlavaOnevisionConfig())
