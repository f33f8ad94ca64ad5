"""Trains the mini LLaVA-OneVision on the synthetic video questions: `python -m benchmarks.train_mini`."""
