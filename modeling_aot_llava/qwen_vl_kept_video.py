"""Runs in each call with Qwen-VL videos: what is left of one, whether it has just been encoded or was before."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class KeptVideo:
    """What is left of a video of F frames with P tokens each.

    Attributes:
        tokens: (B, D).
        deepstack: for each layer of DeepStack (B, D); none where the model has no DeepStack.
        is_kept: (F, P) bool: the places of the tokens, in their order.
    """

    tokens: Tensor
    deepstack: tuple[Tensor, ...]
    is_kept: Tensor
