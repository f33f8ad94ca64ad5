"""Trains the mini LLaVA-OneVision on the synthetic video questions: `python -m benchmarks.train_mini`.

In the order of a run: `model/` is what learns, `data/` draws what it learns from, `training/` teaches it, `export/`
writes the checkpoint. `recipe.py` holds every number, `run.py` the way from one to the next.
"""
