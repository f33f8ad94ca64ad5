"""What this transformers calls the key-value cache, which 5.24 renamed: for code that hands one on by name.

Not published: the model itself finds caches by their type.
"""

import inspect

from transformers.masking_utils import create_causal_mask

# The argument's name, and that of an output's field.
CACHE = "cache" if "cache" in inspect.signature(create_causal_mask).parameters else "past_key_values"
