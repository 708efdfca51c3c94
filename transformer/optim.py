"""Learning-rate schedules and the optimiser (section 5.3).

The paper's schedule ("Noam"): d_model^-0.5 x min(step^-0.5, step x warmup^-1.5).
"""

import math
from typing import Literal

import torch

from transformer.flat import FlatParameters

ScheduleKind = Literal["noam", "inverse_sqrt", "cosine", "linear", "constant"]


def learning_rate(
    kind: ScheduleKind, step: int, *, peak: float, warmup_steps: int, total_steps: int, d_model: int
) -> float:
    """Learning rate of a step.

    Args:
        kind: ``noam``: the paper's, multiplied by `peak` (1 in the paper), which is then no learning rate but a factor.
            The others rise linearly to `peak` within `warmup_steps`, then: ``inverse_sqrt`` falls with 1/sqrt(step),
            ``cosine`` and ``linear`` fall to zero at `total_steps`, ``constant`` stays.
        step: Number of the step, from 1.
        peak: Highest learning rate, or Noam's factor.
        warmup_steps: Steps of warm-up; 0 for none.
        total_steps: Steps of the whole training.
        d_model: Width of the model, for ``noam``.
    """
    if kind == "noam":
        return peak * d_model**-0.5 * min(step**-0.5, step * max(warmup_steps, 1) ** -1.5)
    if step < warmup_steps:
        return peak * step / warmup_steps
    if kind == "inverse_sqrt":
        return peak * math.sqrt(max(warmup_steps, 1) / step)
    progress = min(1.0, (step - warmup_steps) / max(total_steps - warmup_steps, 1))
    if kind == "cosine":
        return peak * 0.5 * (1.0 + math.cos(math.pi * progress))
    if kind == "linear":
        return peak * (1.0 - progress)
    return peak


def build_optimizer(
    weights: FlatParameters, *, betas: tuple[float, float], epsilon: float, weight_decay: float
) -> torch.optim.AdamW:
    """Adam with decoupled weight decay on matrices only; the learning rate is set anew at each step."""
    groups = [
        {"params": [weights.matrices], "weight_decay": weight_decay},
        {"params": [weights.others], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=epsilon, fused=True)
