"""The experiments, in the order of the chapters they belong to."""

from typing import Any

from lab.experiments import norm_final_quality
from lab.experiments.experiment import Experiment

EXPERIMENTS: dict[str, Experiment[Any]] = {
    experiment.name: experiment for experiment in (norm_final_quality.EXPERIMENT,)
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
