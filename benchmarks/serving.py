"""How many requests vLLM runs at once from the same memory, by retention ratio: `python -m benchmarks.serving`.

Runs where vLLM does (`tests/serving/make_environment`), on a CPU too: what is counted are requests and blocks, not
seconds. The mini checkpoint is asked about one clip many times; nothing is taken from a prefix cache.
"""

import argparse
import os
import tempfile

NUM_FRAMES = 32
POOL_TOKENS = 32_768
BLOCK_SIZE = 32
NEW_TOKENS = 16
NUM_REQUESTS = 64


def main() -> None:
    """Prints a table: tokens of a request, its blocks, and the most requests that ran at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.25, 0.2, 0.15, 0.1])
    ratios = parser.parse_args().ratios

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with tempfile.TemporaryDirectory() as folder:
        _save_mini(folder)
        llm = _make_engine(folder)
        print(f"{POOL_TOKENS} tokens of KV cache, {NUM_FRAMES} frames a video, {NEW_TOKENS} new tokens a request")
        print("ratio  tokens a prompt  blocks a request  requests at once")
        for ratio in ratios:
            num_tokens, peak = _count_requests_at_once(llm, ratio)
            blocks = -(-(num_tokens + NEW_TOKENS) // BLOCK_SIZE)
            print(f"{ratio:5.2f}  {num_tokens:15}  {blocks:16}  {peak:16}")


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


def _count_requests_at_once(llm, ratio: float) -> tuple[int, int]:
    from vllm import SamplingParams

    from benchmarks.video_questions import make_scene, render_clip

    request = {
        "prompt": "<|im_start|>user <video>\nWhich way does it move?<|im_end|><|im_start|>assistant\n",
        "multi_modal_data": {"video": [render_clip(make_scene(0, "held_out"), NUM_FRAMES)]},
        "mm_processor_kwargs": {"retention_ratio": ratio},
    }
    sampling = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    for number in range(NUM_REQUESTS):
        llm.llm_engine.add_request(f"{ratio} {number}", request, sampling)
    num_tokens = peak = 0
    while llm.llm_engine.has_unfinished_requests():
        for output in llm.llm_engine.step():
            num_tokens = len(output.prompt_token_ids)
        running = next(metric for metric in llm.get_metrics() if metric.name == "vllm:num_requests_running")
        peak = max(peak, int(running.value))
    return num_tokens, peak


if __name__ == "__main__":
    main()
