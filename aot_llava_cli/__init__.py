"""The command `aot-llava`, and the mini checkpoint that it runs on without a download.

It stands above the model package: nothing in `modeling_aot_llava` imports it.
"""
