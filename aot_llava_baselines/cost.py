"""What a method costs by the paper's cost model (Eq. 17), from the video tokens that each layer reads."""

from modeling_aot_llava.cost_model import prefill_flops

from .interface import Baseline


def method_flops(
    method: Baseline, num_tokens: int, *, num_layers: int, hidden_size: int, intermediate_size: int
) -> int:
    """FLOPs of reading a video of which the first layer reads `num_tokens`; text is not counted, as in the paper."""
    return sum(
        prefill_flops(of_layer, num_layers=1, hidden_size=hidden_size, intermediate_size=intermediate_size)
        for of_layer in method.tokens_per_layer(num_tokens, num_layers)
    )
