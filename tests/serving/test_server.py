"""`vllm serve FOLDER --trust-remote-code`, asked with the OpenAI client. The server knows no code but the folder's."""

import base64
import functools
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cases import FRAMES_OF_FILES, RATIO_OF_SERVER, SEEDS, TOLERANCE, question_about

SECONDS_TO_START = 400
# The ratio of a request, which has that of the server or one of its own, and tokens of a video, newline included.
RATIOS = {None: 471, 0.1: 315, 0.2: 628}


@pytest.fixture(scope="module")
def server(folder, clips, answers, tmp_path_factory):
    """Base address of a server on the mini checkpoint."""
    elsewhere = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(folder), "--trust-remote-code"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "aot"]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "8192", "--gpu-memory-utilization", "0.3"]
    command += ["--mm-processor-kwargs", f'{{"retention_ratio": {RATIO_OF_SERVER}}}', "--trust-request-mm-kwargs"]
    command += ["--media-io-kwargs", f'{{"video": {{"num_frames": {FRAMES_OF_FILES}}}}}']
    command += ["--allowed-local-media-path", str(clips)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_MODULES_CACHE": str(elsewhere / "modules"), "HF_HUB_OFFLINE": "1"}
    log = elsewhere / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=elsewhere, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _wait_for(address, process, log):
    import httpx

    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.fail(f"The server ended:\n{log.read_text()[-4000:]}")
        try:
            if httpx.get(address).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    pytest.fail(f"The server did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def ask(server):
    """`ask(address of a clip, seed, ratio=None, **options)` as a client does."""
    from openai import OpenAI

    client = OpenAI(base_url=server, api_key="none", timeout=300, max_retries=0)

    def ask(url, seed, ratio=None, settings=None, **options):
        content = [
            {"type": "video_url", "video_url": {"url": url}},
            {"type": "text", "text": question_about(seed)},
        ]
        settings = settings or ({"retention_ratio": ratio} if ratio is not None else {})
        extra = {"mm_processor_kwargs": settings} if settings else {}
        return client.chat.completions.create(
            model="aot",
            messages=[{"role": "user", "content": content}],
            temperature=0,
            max_tokens=6,
            extra_body=extra,
            **options,
        )

    return ask


def as_base64(path):
    return "data:video/mp4;base64," + base64.b64encode(path.read_bytes()).decode()


@pytest.fixture
def assert_as_transformers(answers_about_files):
    def assert_as_transformers(reply, seed, ratio=None):
        expected = answers_about_files[seed, ratio or RATIO_OF_SERVER]
        logprobs = [token.logprob for token in reply.choices[0].logprobs.content]
        assert reply.usage.prompt_tokens == len(expected.prompt)
        assert reply.choices[0].message.content == expected.text
        np.testing.assert_allclose(logprobs, expected.logprobs, rtol=0, atol=TOLERANCE)

    return assert_as_transformers


@pytest.mark.parametrize("ratio", RATIOS)
def test_base64(ask, clips, answers_about_files, assert_as_transformers, ratio):
    assert_as_transformers(ask(as_base64(clips / "0.mp4"), 0, ratio, logprobs=True), 0, ratio)
    prompt = answers_about_files[0, ratio or RATIO_OF_SERVER].prompt
    assert max(prompt.count(token) for token in set(prompt)) == RATIOS[ratio]


def test_file(ask, clips, assert_as_transformers):
    assert_as_transformers(ask(f"file://{clips / '1.mp4'}", 1, logprobs=True), 1)


def test_http(ask, clips, assert_as_transformers):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(clips))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        reply = ask(f"http://127.0.0.1:{web.server_port}/2.mp4", 2, logprobs=True)
        web.shutdown()
    assert_as_transformers(reply, 2)


def test_streaming(ask, clips, answers_about_files):
    chunks = list(ask(as_base64(clips / "1.mp4"), 1, 0.2, stream=True))
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert len(pieces) > 1
    assert "".join(pieces) == answers_about_files[1, 0.2].text


def test_several_clients_at_once(ask, clips, assert_as_transformers):
    requests = [(seed, ratio) for ratio in RATIOS for seed in SEEDS]

    def ask_about(request):
        return ask(as_base64(clips / f"{request[0]}.mp4"), *request, logprobs=True)

    with ThreadPoolExecutor(len(requests)) as clients:
        for request, reply in zip(requests, clients.map(ask_about, requests)):
            assert_as_transformers(reply, *request)


@pytest.mark.parametrize("ratio", [0, -1, "x"])
def test_a_bad_ratio_is_the_clients_error_and_the_server_lives_on(ask, clips, assert_as_transformers, ratio):
    from openai import BadRequestError

    with pytest.raises(BadRequestError, match="retention_ratio") as error:
        ask(as_base64(clips / "0.mp4"), 0, ratio)
    message = error.value.body["message"]
    assert len(message) < 200, message
    assert str(ratio) in message
    assert_as_transformers(ask(as_base64(clips / "0.mp4"), 0, logprobs=True), 0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"retention_ration": 0.2}, "'retention_ration': did you mean `retention_ratio`?"),
        ({"videos_kwargs": {"retention_rate": 0.2}}, "'retention_rate': did you mean `retention_ratio`?"),
        ({"retention_ratio": 0.2, "sharpness": 3}, "'sharpness': leave it out"),
        ({"videos_kwargs": {"sharpness": 3}}, "'sharpness': leave it out"),
    ],
)
def test_an_unknown_key_is_refused_by_name(ask, clips, settings, said):
    from openai import BadRequestError

    with pytest.raises(BadRequestError) as error:
        ask(as_base64(clips / "0.mp4"), 0, settings=settings)
    message = error.value.body["message"]
    assert f"unexpected keyword {said}" in message
    assert len(message) < 200, message
