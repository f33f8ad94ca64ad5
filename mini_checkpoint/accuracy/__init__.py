"""Accuracy of the mini checkpoint against the share of video tokens it reads: `python -m mini_checkpoint.accuracy`."""
