"""What releases of transformers do otherwise on the Qwen-VL family, and up to which that is known: all of it is here.

Positions of four rows in `generate`, `rope_deltas` kept on the model, and names inside the towers' attention are no
promises of transformers. Were they changed, AOT could go on and be wrong; and what `save_pretrained` wrote cannot be
mended. So a release that nobody has looked at is refused.
"""

from typing import Any

import transformers

FIRST_UNKNOWN = "5.25"


def check_release() -> None:
    """Raises `ImportError` where transformers is a newer one than those that the tests have passed on."""
    found = transformers.__version__
    if _numbers(found) >= _numbers(FIRST_UNKNOWN):
        raise ImportError(
            f"AOT on Qwen-VL is known to be right with transformers below {FIRST_UNKNOWN}, but {found} is installed: "
            f"run `pip install 'transformers<{FIRST_UNKNOWN}'`."
        )


def num_vision_layers(vision_config: Any) -> int:
    """Layers of the tower; `num_hidden_layers` is another name of them, but not in 5.20."""
    return vision_config.depth


def processor_defaults(stock: type) -> dict[str, Any]:
    """A stock processor's defaults for its parts, which a class of keywords must repeat until 5.23; then none."""
    return getattr(stock.valid_processor_kwargs, "_defaults", {})


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))
