"""vLLM's engine in this process, asked a case."""

from contextlib import contextmanager

import numpy as np
from cases import TOLERANCE, Answer, Case, frames_of, image_of
from PIL import Image

# Fewer batched tokens than most prompts have, so that these are read in chunks.
SETTINGS = {
    "trust_remote_code": True,
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 8192,
    "max_num_batched_tokens": 1024,
    "gpu_memory_utilization": 0.3,
    "limit_mm_per_prompt": {"image": 2, "video": 3},
}


@contextmanager
def engine(folder, **settings):
    """An `LLM` that is gone when the block is left."""
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    llm = LLM(str(folder), **{**SETTINGS, **settings})
    try:
        yield llm
    finally:
        del llm
        cleanup_dist_env_and_memory()


def ask_engine(llm, *cases: Case) -> list:
    """vLLM's outputs for the cases, in one batch."""
    from vllm import SamplingParams

    sampling = [SamplingParams(temperature=0, max_tokens=case.max_tokens, logprobs=0) for case in cases]
    return llm.generate([_request(case) for case in cases], sampling, use_tqdm=False)


def assert_same(output, expected: Answer) -> None:
    """vLLM's output is what transformers answers, token by token, with the same log-probabilities."""
    completion = output.outputs[0]
    logprobs = [position[token].logprob for token, position in zip(completion.token_ids, completion.logprobs)]
    assert tuple(output.prompt_token_ids) == expected.prompt
    assert tuple(completion.token_ids) == expected.tokens
    np.testing.assert_allclose(logprobs, expected.logprobs, rtol=0, atol=TOLERANCE)


def _request(case: Case) -> dict:
    media = {
        "video": [frames_of(*clip) for clip in case.clips],
        "image": [Image.fromarray(image_of(seed)) for seed in case.images],
    }
    request = {"prompt": case.prompt, "multi_modal_data": {name: items for name, items in media.items() if items}}
    return {**request, "mm_processor_kwargs": {"retention_ratio": case.ratio}} if case.ratio else request
