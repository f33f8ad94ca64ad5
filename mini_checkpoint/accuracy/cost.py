"""FLOPs of reading a clip under a setting, by the paper's Eq. 17: video tokens alone, layer by layer."""

from aot_llava_baselines.cost import method_flops
from modeling_aot_llava.cost_model import prefill_flops

from .settings import BASELINES, Setting
from .survey import method_of


def reading_flops(setting: Setting, num_tokens: int, text_config) -> int:
    """FLOPs of a language model of this config, when its first layer reads `num_tokens` of a video."""
    sizes = {
        "num_layers": text_config.num_hidden_layers,
        "hidden_size": text_config.hidden_size,
        "intermediate_size": text_config.intermediate_size,
    }
    if setting.reduction in BASELINES:
        return method_flops(method_of(setting), num_tokens, **sizes)
    return prefill_flops(num_tokens, **sizes)
