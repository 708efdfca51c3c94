"""The experiments, in the order of the chapters they belong to."""

from typing import Any

from lab.experiments import norm_depth, norm_final_quality, norm_gradients_at_init, norm_warm_up
from lab.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment[Any]] = {
    experiment.name: experiment
    for experiment in (
        norm_gradients_at_init.EXPERIMENT,
        norm_warm_up.EXPERIMENT,
        norm_depth.EXPERIMENT,
        norm_final_quality.EXPERIMENT,
    )
}


def find_experiment(name: str) -> Experiment[Any]:
    """The experiment of this name.

    Raises:
        ValueError: If there is none.
    """
    try:
        return EXPERIMENTS[name]
    except KeyError:
        raise ValueError(f"{name!r} is not an experiment; there are {', '.join(EXPERIMENTS)}.") from None
