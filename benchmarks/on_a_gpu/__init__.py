"""All that is to be measured on a day with a card, in one run: `python -m benchmarks.on_a_gpu`."""
