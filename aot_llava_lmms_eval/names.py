"""The models' names, by method."""

AOT = "aot"
# Those of `aot_llava_baselines`; written down, so that lmms-eval starts without importing them.
METHODS = (
    "fastv",
    "pdrop",
    "dycoke",
    "visionzip",
    "prunevid",
    "fastvid",
    "holitom",
    "vidcom2",
    "flashvid",
    "framefusion",
    "stc_pruner",
    "stc_cacher",
    "earlytom",
)
# AOT on the Qwen-VL family, experimental.
QWEN_VL = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")


def model_id(method: str) -> str:
    """What lmms-eval's --model calls it."""
    if method in QWEN_VL:
        return f"aot_{method}"
    return "aot_llava" if method == AOT else f"aot_llava_{method}"


def class_names(method: str) -> tuple[str, str]:
    """The classes in `models` for simple and for chat requests."""
    return f"{method}_simple", f"{method}_chat"
