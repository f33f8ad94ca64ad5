"""How many requests vLLM runs at once from the same memory, by retention ratio.

Runs where vLLM does (`tests/serving/make_environment`), on a CPU too: what is counted are requests and blocks, not
seconds. The mini checkpoint is asked about one clip many times; nothing is taken from a prefix cache.
"""

import importlib.util
import os
import tempfile

from benchmarks.options import OneLineParser, ratio

RATIOS = (1.0, 0.25, 0.2, 0.15, 0.1)
NUM_FRAMES = 32
POOL_TOKENS = 32_768
BLOCK_SIZE = 32
NEW_TOKENS = 16
NUM_REQUESTS = 64


def main(arguments: list[str] | None = None) -> None:
    """Prints a table: tokens of a request, its blocks, and the most requests that ran at once."""
    parser = OneLineParser(prog="python -m benchmarks.serving", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--ratios",
        type=ratio,
        nargs="+",
        default=RATIOS,
        metavar="R",
        help=f"retention ratios, above 0 up to 1 (default: {' '.join(map(str, RATIOS))})",
    )
    ratios = parser.parse_args(arguments).ratios
    if importlib.util.find_spec("vllm") is None:
        parser.error("vLLM is not installed: make its environment with tests/serving/make_environment FOLDER")

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    with tempfile.TemporaryDirectory() as folder:
        _save_mini(folder)
        llm = _make_engine(folder)
        print(f"{POOL_TOKENS} tokens of KV cache, {NUM_FRAMES} frames a video, {NEW_TOKENS} new tokens a request")
        print("ratio  tokens a prompt  blocks a request  requests at once")
        for retention_ratio in ratios:
            num_tokens, peak = _count_requests_at_once(llm, retention_ratio)
            blocks = -(-(num_tokens + NEW_TOKENS) // BLOCK_SIZE)
            print(f"{retention_ratio:5.2f}  {num_tokens:15}  {blocks:16}  {peak:16}", flush=True)


def _save_mini(folder: str) -> None:
    from aot_llava_cli.mini import MINI_CHECKPOINT
    from modeling_aot_llava import AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor

    for part in (AOTLlavaOnevisionForConditionalGeneration, AOTLlavaOnevisionProcessor):
        part.from_pretrained(MINI_CHECKPOINT).save_pretrained(folder)


def _make_engine(folder: str):
    from vllm import LLM

    return LLM(
        folder,
        trust_remote_code=True,
        dtype="float32",
        enforce_eager=True,
        max_model_len=8192,
        max_num_batched_tokens=8192,
        max_num_seqs=NUM_REQUESTS,
        block_size=BLOCK_SIZE,
        num_gpu_blocks_override=POOL_TOKENS // BLOCK_SIZE,
        enable_prefix_caching=False,
        gpu_memory_utilization=0.3,
        disable_log_stats=False,
    )


def _count_requests_at_once(llm, retention_ratio: float) -> tuple[int, int]:
    from vllm import SamplingParams

    from mini_checkpoint.questions import make_scene, render_clip

    request = {
        "prompt": "<|im_start|>user <video>\nWhich way does it move?<|im_end|><|im_start|>assistant\n",
        "multi_modal_data": {"video": [render_clip(make_scene(0, "held_out"), NUM_FRAMES)]},
        "mm_processor_kwargs": {"retention_ratio": retention_ratio},
    }
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    requests = [f"{retention_ratio} {number}" for number in range(NUM_REQUESTS)]
    for name in requests:
        llm.llm_engine.add_request(name, request, sampling)
    peak, outputs = 0, []
    # Requests come in as long as there is memory; once the first leaves, there is none.
    while not any(output.finished for output in outputs):
        outputs = llm.llm_engine.step()
        running = next(metric for metric in llm.get_metrics() if metric.name == "vllm:num_requests_running")
        peak = max(peak, int(running.value))
    llm.llm_engine.abort_request(requests)
    return len(outputs[0].prompt_token_ids), peak


if __name__ == "__main__":
    main()
