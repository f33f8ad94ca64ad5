"""What a language model costs on a prompt, by the paper's cost model (Sec. 4.2, Eq. 17 and 18)."""


def prefill_flops(num_tokens: int, *, num_layers: int, hidden_size: int, intermediate_size: int) -> int:
    """Counts the FLOPs of reading n tokens (Eq. 17).

    T (4 n d^2 + 2 n^2 d + 2 n d m)
    """
    n, d, m = num_tokens, hidden_size, intermediate_size
    return num_layers * (4 * n * d**2 + 2 * n**2 * d + 2 * n * d * m)


def decode_flops(
    num_tokens: int,
    num_generated: int,
    *,
    num_layers: int,
    hidden_size: int,
    intermediate_size: int,
) -> int:
    """Counts the FLOPs of writing R tokens after n (Eq. 18).

    T R ((4 d^2 + 2 d m) + 2 (d n + d (R + 1) / 2))
    """
    n, d, m, generated = num_tokens, hidden_size, intermediate_size, num_generated
    return num_layers * generated * (4 * d**2 + 2 * d * m + 2 * d * n + d * (generated + 1))
