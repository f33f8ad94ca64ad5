"""Requests of vLLM with a fixed KV cache, by retention ratio: how many run at once, how many are answered a second.

Runs where vLLM does (docs/serving.md), on a CPU too. The mini checkpoint is asked about clips that all differ; nothing
is taken from a cache. Seconds are of this machine: compare the ratios of one run with each other, no others.
"""

import argparse
import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.options import OneLineParser, count, list_of, ratio
from hub_upload.whole_file import write_whole

RATIOS = (1.0, 0.25, 0.2, 0.15, 0.1)
NUM_FRAMES = 32
POOL_TOKENS = 32_768
BLOCK_SIZE = 32
NEW_TOKENS = 16
SIDE = 216  # of the mini checkpoint's pictures
COLUMNS = "ratio  tokens  blocks  sent at once  most at once  preempted  requests/s  times ratio 1"


def main(arguments: list[str] | None = None) -> None:
    """Prints a table: tokens and blocks of a request, and how it went with so many requests sent at once."""
    options = _parse_options(arguments)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        _save_mini(folder)
        llm = _make_engine(folder, max(options.at_once))
        print(f"{POOL_TOKENS} tokens of KV cache, {NUM_FRAMES} frames a video, {NEW_TOKENS} new tokens a request")
        print(COLUMNS)
        for number, at_once in enumerate(options.at_once):
            uncompressed = None
            for retention_ratio in options.ratios:
                _answer(llm, retention_ratio, first_clip=0, num_requests=1)  # warms up
                # Clips that no earlier requests were about: the engine would have them encoded.
                first_clip = 1 + number * max(options.at_once)
                row = _answer(llm, retention_ratio, first_clip, at_once)
                uncompressed = row["requests_per_second"] if retention_ratio == 1 else uncompressed
                row["speedup"] = row["requests_per_second"] / uncompressed if uncompressed else None
                rows.append(row)
                print(_as_line(row), flush=True)
    if options.json is not None:
        text = json.dumps({"pool_tokens": POOL_TOKENS, "frames": NUM_FRAMES, "rows": rows}, indent=1) + "\n"
        write_whole(options.json, lambda file: file.write_text(text))


def _parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--ratios",
        type=ratio,
        nargs="+",
        default=RATIOS,
        metavar="R",
        help=f"retention ratios, above 0 up to 1 (default: {' '.join(map(str, RATIOS))})",
    )
    add("--at-once", type=list_of(count), default=[64], metavar="N,...", help="requests sent at once (default: 64)")
    add("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("vllm") is None:
        parser.error("vLLM is not installed: docs/serving.md says how to make an environment for it")
    return options


def _save_mini(folder: str) -> None:
    from aot_llava_cli.mini import MINI_CHECKPOINT
    from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

    for part in (AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor):
        part.from_pretrained(MINI_CHECKPOINT).save_pretrained(folder)


def _make_engine(folder: str, num_requests: int):
    from vllm import LLM

    return LLM(
        folder,
        trust_remote_code=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=8192,
        max_num_batched_tokens=8192,
        max_num_seqs=num_requests,
        block_size=BLOCK_SIZE,
        num_gpu_blocks_override=POOL_TOKENS // BLOCK_SIZE,
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        gpu_memory_utilization=0.3,
        disable_log_stats=False,
    )


def _answer(llm, retention_ratio: float, first_clip: int, num_requests: int) -> dict[str, Any]:
    """Sends the requests, each about a clip of its own, and steps the engine until all are answered."""
    from vllm import SamplingParams

    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    requests = [_request(first_clip + number, retention_ratio) for number in range(num_requests)]
    preempted, started = _metric(llm, "vllm:num_preemptions"), time.perf_counter()
    for number, request in enumerate(requests):
        llm.llm_engine.add_request(f"{retention_ratio} {first_clip + number} of {num_requests}", request, sampling)
    peak, finished = 0, []
    while len(finished) < num_requests:
        finished += [output for output in llm.llm_engine.step() if output.finished]
        peak = max(peak, _metric(llm, "vllm:num_requests_running"))
    elapsed = time.perf_counter() - started
    num_tokens = len(finished[0].prompt_token_ids)
    return {
        "retention_ratio": retention_ratio,
        "prompt_tokens": num_tokens,
        "blocks": -(-(num_tokens + NEW_TOKENS) // BLOCK_SIZE),
        "sent_at_once": num_requests,
        "most_at_once": peak,
        "preempted": _metric(llm, "vllm:num_preemptions") - preempted,
        "requests_per_second": num_requests / elapsed,
    }


def _request(clip: int, retention_ratio: float) -> dict[str, Any]:
    import numpy as np

    frames = np.random.default_rng(clip).integers(256, size=(NUM_FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    return {
        "prompt": "<|im_start|>user <video>\nWhich way does it move?<|im_end|><|im_start|>assistant\n",
        "multi_modal_data": {"video": [frames]},
        "mm_processor_kwargs": {"retention_ratio": retention_ratio},
    }


def _metric(llm, name: str) -> int:
    return int(sum(metric.value for metric in llm.get_metrics() if metric.name == name))


def _as_line(row: dict[str, Any]) -> str:
    speedup = "" if row["speedup"] is None else f"{row['speedup']:.2f}"
    return (
        f"{row['retention_ratio']:5.2f}  {row['prompt_tokens']:6}  {row['blocks']:6}  {row['sent_at_once']:12}  "
        f"{row['most_at_once']:12}  {row['preempted']:9}  {row['requests_per_second']:10.2f}  {speedup:>13}"
    )


if __name__ == "__main__":
    main()
