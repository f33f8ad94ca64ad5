"""How it learns: the loop, both phases, the losses and noises that help, and the checks on the way."""
