"""Publishes AOT variants of a checkpoint on the Hub, without loading the model and without moving its weights.

AOT adds no parameters, so a variant differs from its base by a config, a processor config and a few Python files:
these are made here, and the rest is copied on the Hub where it allows that, and streamed from disk where not. The
command is `python -m hub_upload`, which is `aot-llava push`. It never imports torch: the check that a variant loads
runs in a process of its own.
"""
