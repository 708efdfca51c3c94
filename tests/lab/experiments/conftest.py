"""Options so small that every experiment takes a second or two, and what comes out with the usual ones, once."""

import time

import pytest
import torch

from lab.experiments.catalogue import find_experiment

SMALL = {
    "norm-gradients-at-init": {
        "depths": [1, 2], "full_depths": [1, 2], "d_model": 8, "sequences": 2, "seeds": 2,
    },
    "norm-warm-up": {"steps": 10, "layers": 1, "d_model": 8, "seeds": 2, "warm_ups": [0, 5]},
    "norm-depth": {"depths": [2, 4], "steps": 10, "warm_up": 5, "d_model": 8, "seeds": 2},
    "norm-final-quality": {"steps": 10, "seeds": 2},
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=SMALL)
def small(request):
    """Name of an experiment and its small options."""
    return request.param, SMALL[request.param]


@pytest.fixture(scope="session")
def default_run():
    """What an experiment says with its defaults: events, and the seconds of work before each; every one runs once."""
    found = {}

    def run(name):
        if name not in found:
            torch.set_num_threads(1)
            experiment = find_experiment(name)
            events, gaps, last = [], [], time.process_time()
            for event in experiment.run(experiment.options()):
                events.append(event)
                gaps.append(time.process_time() - last)
                last = time.process_time()
            found[name] = events, gaps
        return found[name]

    return run
