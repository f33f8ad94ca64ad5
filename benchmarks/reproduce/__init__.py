"""The paper's tables for people who have the data: commands for lmms-eval, and its results beside the paper's.

`python -m benchmarks.reproduce`; see docs/reproduce.md.
"""
