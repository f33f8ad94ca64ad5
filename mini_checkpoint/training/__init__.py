"""Trains the mini LLaVA-OneVision on the synthetic video questions: `python -m mini_checkpoint.training`.

In the order of a run: `model/` is what learns, `data/` draws what it learns from, `stages/` teaches it, `export/`
writes the checkpoint. `recipe.py` holds every number, `run.py` the way from one to the next.
"""
