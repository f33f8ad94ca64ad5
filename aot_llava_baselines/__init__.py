"""The methods of the paper's Table 1 and other strong ones, each as its authors' program computes it, in one harness.

```python
from aot_llava_baselines import BASELINES, BaselineGenerator, build_baseline

method = build_baseline("fastvid", retention_ratio=0.1)          # every other setting by its name, too
generator = BaselineGenerator(model, method)                     # the stock model; or AOT's with all tokens
output = generator.generate(**inputs_with_all_tokens, max_new_tokens=20)
```

A method's settings are the fields of its class, `dataclasses.fields(BASELINES[name])`.
"""

from .generation import BaselineGenerator, check_defined_for
from .interface import Baseline
from .pooling_head import PoolingHead
from .registry import BASELINES, build_baseline

__all__ = ["BASELINES", "Baseline", "BaselineGenerator", "PoolingHead", "build_baseline", "check_defined_for"]
