"""The methods of the paper's Table 1 (and HoliTom), each as its authors' program computes it, in one harness.

```python
from aot_llava_baselines import BASELINES, BaselineGenerator, build_baseline

method = build_baseline("fastvid", retention_ratio=0.1)          # every other setting by its name, too
generator = BaselineGenerator(model, method)                     # the stock model; or AOT's with all tokens
output = generator.generate(**inputs_with_all_tokens, max_new_tokens=20)
```

A method's settings are the fields of its class, `dataclasses.fields(BASELINES[name])`.
"""

from dataclasses import fields
from difflib import get_close_matches

from .dycoke import DyCoke
from .fastv import FastV
from .fastvid import FastVID
from .generation import BaselineGenerator, check_defined_for
from .holitom import HoliTom
from .interface import Baseline
from .pdrop import PDrop
from .pooling_head import PoolingHead
from .prunevid import PruneVid
from .visionzip import VisionZip

BASELINES: dict[str, type[Baseline]] = {
    method.name: method for method in (FastV, PDrop, DyCoke, VisionZip, PruneVid, FastVID, HoliTom)
}


def build_baseline(name: str, **settings) -> Baseline:
    """A method by its name; what is not set has the value of the tables.

    Raises:
        ValueError: if there is no such method or setting, or a value is not allowed.
    """
    if name not in BASELINES:
        raise ValueError(f"There is no method {name!r}; the methods are {', '.join(BASELINES)}.")
    method = BASELINES[name]
    known = [field.name for field in fields(method)]
    for setting in settings:
        if setting not in known:
            (nearest, *_) = [*get_close_matches(setting, known, n=1, cutoff=0), known[0]]
            raise ValueError(
                f"{name} has no setting {setting!r}; did you mean {nearest!r}? Its settings are {', '.join(known)}."
            )
    return method(**settings)


__all__ = ["BASELINES", "Baseline", "BaselineGenerator", "PoolingHead", "build_baseline", "check_defined_for"]
