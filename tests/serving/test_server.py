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
from cases import SEEDS, TOLERANCE, question_about

from benchmarks.video_questions import make_scene, save_clip
from modeling_aot_llava.video_reading import read_video

NUM_FRAMES = 16
RATIO_OF_SERVER = 0.15
SECONDS_TO_START = 400
# Tokens of 16 frames at each ratio, newline included.
NUM_TOKENS = {None: 471, 0.1: 315, 0.2: 628}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    for seed in SEEDS:
        save_clip(make_scene(seed, "held_out"), folder / f"{seed}.mp4")
    return folder


@pytest.fixture(scope="module")
def first_logprobs(loaded, clips, answers):
    """Of the answer's first token, from transformers: {(seed, ratio): (prompt's length, text, logprob)}."""
    model, processor = loaded
    model.config.retention_ratio = 0.1

    def answer(seed, ratio):
        frames, _ = read_video(str(clips / f"{seed}.mp4"), NUM_FRAMES)
        content = [{"type": "video"}, {"type": "text", "text": question_about(seed)}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=text, videos=[frames], return_tensors="pt", retention_ratio=ratio or RATIO_OF_SERVER)
        output = model.generate(
            **inputs, do_sample=False, max_new_tokens=6, output_logits=True, return_dict_in_generate=True
        )
        tokens = output.sequences[0, inputs.input_ids.shape[1] :]
        logprobs = [float(logits[0].log_softmax(-1)[token]) for logits, token in zip(output.logits, tokens)]
        answer = processor.tokenizer.decode(tokens, skip_special_tokens=True)
        return inputs.input_ids.shape[1], answer, logprobs[0]

    return functools.cache(answer)


@pytest.fixture(scope="module")
def server(folder, clips, first_logprobs, tmp_path_factory):
    """Base address of a server on the mini checkpoint."""
    for seed in SEEDS:  # transformers first, while nothing else runs
        for ratio in NUM_TOKENS:
            first_logprobs(seed, ratio)
    elsewhere = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(folder), "--trust-remote-code"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "aot"]
    command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "8192", "--gpu-memory-utilization", "0.3"]
    command += ["--mm-processor-kwargs", f'{{"retention_ratio": {RATIO_OF_SERVER}}}', "--trust-request-mm-kwargs"]
    command += ["--media-io-kwargs", f'{{"video": {{"num_frames": {NUM_FRAMES}}}}}']
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

    def ask(url, seed, ratio=None, **options):
        content = [
            {"type": "video_url", "video_url": {"url": url}},
            {"type": "text", "text": question_about(seed)},
        ]
        extra = {"mm_processor_kwargs": {"retention_ratio": ratio}} if ratio is not None else {}
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


def assert_as_transformers(reply, expected):
    num_tokens, answer, logprob = expected
    assert reply.usage.prompt_tokens == num_tokens
    assert reply.choices[0].message.content == answer
    np.testing.assert_allclose(reply.choices[0].logprobs.content[0].logprob, logprob, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("ratio", NUM_TOKENS)
def test_base64(ask, clips, first_logprobs, ratio):
    reply = ask(as_base64(clips / "0.mp4"), 0, ratio, logprobs=True)
    assert_as_transformers(reply, first_logprobs(0, ratio))
    text_tokens = first_logprobs(0, None)[0] - NUM_TOKENS[None]
    assert reply.usage.prompt_tokens == NUM_TOKENS[ratio] + text_tokens


def test_file(ask, clips, first_logprobs):
    assert_as_transformers(ask(f"file://{clips / '1.mp4'}", 1, logprobs=True), first_logprobs(1, None))


def test_http(ask, clips, first_logprobs):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(clips))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        reply = ask(f"http://127.0.0.1:{web.server_port}/2.mp4", 2, logprobs=True)
        web.shutdown()
    assert_as_transformers(reply, first_logprobs(2, None))


def test_streaming(ask, clips, first_logprobs):
    chunks = list(ask(as_base64(clips / "1.mp4"), 1, 0.2, stream=True))
    assert len(chunks) > 1
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == first_logprobs(1, 0.2)[1]


def test_several_clients_at_once(ask, clips, first_logprobs):
    requests = [(seed, ratio) for ratio in NUM_TOKENS for seed in SEEDS]
    with ThreadPoolExecutor(len(requests)) as clients:
        replies = clients.map(
            lambda request: ask(as_base64(clips / f"{request[0]}.mp4"), *request, logprobs=True), requests
        )
        for request, reply in zip(requests, replies):
            assert_as_transformers(reply, first_logprobs(*request))


def test_a_bad_ratio_is_the_clients_error_and_the_server_lives_on(ask, clips, first_logprobs):
    from openai import BadRequestError

    for ratio in (0, -1, "x"):
        with pytest.raises(BadRequestError):
            ask(as_base64(clips / "0.mp4"), 0, ratio)
    assert_as_transformers(ask(as_base64(clips / "0.mp4"), 0, logprobs=True), first_logprobs(0, None))
