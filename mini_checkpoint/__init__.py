"""The mini checkpoint that `aot_llava_cli` brings: its questions, its training, and how accuracy is measured on it."""
