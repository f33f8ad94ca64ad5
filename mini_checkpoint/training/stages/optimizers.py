"""Which parameters learn how fast: AdamW for all, or Muon for the matrices within the layers and AdamW for the rest.

On the language model here, Muon lowered the losses in fewer steps, in one short trial.
"""

import torch
from torch import nn

from mini_checkpoint.training.recipe import Schedule

MATRICES_OF = ("layers.", "projector.")


def require_muon() -> None:
    """Refuses a torch that does not have it.

    Raises:
        ImportError: then.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ImportError(
            f"torch {torch.__version__} has no Muon, which trains the language model: pip install -U 'torch>=2.9'"
        )


class Optimizers:
    """The optimisers of a module's parameters that want gradients, as one."""

    def __init__(self, module: nn.Module, schedule: Schedule):
        named = [(name, each) for name, each in module.named_parameters() if each.requires_grad]
        by_muon = (
            [] if schedule.matrix_learning_rate is None else [name for name, each in named if _is_inner(name, each)]
        )
        rest = [each for name, each in named if name not in by_muon]
        self.parameters = [each for _, each in named]
        # Matrices decay; biases, norms and vectors do not.
        groups = [
            {"params": [each for each in rest if each.ndim > 1], "weight_decay": schedule.weight_decay},
            {"params": [each for each in rest if each.ndim <= 1], "weight_decay": 0.0},
        ]
        self.all = [torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))]
        self.peak_rates = [schedule.peak_learning_rate]
        if by_muon:
            # The decay of a step is rate times this; so it is the same as AdamW's.
            decay = schedule.weight_decay * schedule.peak_learning_rate / schedule.matrix_learning_rate
            matrices = [each for name, each in named if name in by_muon]
            self.all.append(torch.optim.Muon(matrices, lr=0.0, momentum=0.95, weight_decay=decay))
            self.peak_rates.append(schedule.matrix_learning_rate)

    def set_rates(self, share: float) -> None:
        """Sets every learning rate to a share of its peak."""
        for optimizer, peak in zip(self.all, self.peak_rates):
            for group in optimizer.param_groups:
                group["lr"] = peak * share

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Changes the parameters."""
        for optimizer in self.all:
            optimizer.step()

    def state_dict(self) -> list[dict]:
        """What `load_state_dict` takes."""
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict]) -> None:
        """Goes on from there."""
        for optimizer, state in zip(self.all, states):
            optimizer.load_state_dict(state)


def _is_inner(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and any(part in name for part in MATRICES_OF)
