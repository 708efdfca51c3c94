"""With and without warm-up: post-norm and pre-norm over a grid of learning rates."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from lab.experiments.events import Concluded, Event, Label, Measured, Verdict
from lab.experiments.experiment import (
    Experiment,
    Quantity,
    require_choices,
    require_integers,
    require_numbers,
    seeds_of,
)
from lab.experiments.trainings import TRAINING_QUANTITIES, Work, guessing_loss, toy_recipe, train
from transformer.config import require_integer
from transformer.recipe import prepare

# A training whose loss is below this share of the loss of guessing has learned.
LEARNED = 0.5
EVALUATIONS = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """The grid, and how each of its trainings goes.

    Attributes:
        norms: Which norms.
        learning_rates: Highest learning rates.
        warm_ups: Steps of warm-up; the first is 0.
        steps: Steps of each training.
        layers: Layers of the encoder, and of the decoder.
        d_model: Width of the model.
        seeds: How many trainings at each point of the grid.
    """

    norms: tuple[str, ...] = ("post", "pre")
    learning_rates: tuple[float, ...] = (1e-2,)
    warm_ups: tuple[int, ...] = (0, 50)
    steps: int = 110
    layers: int = 4
    d_model: int = 32
    seeds: int = 5

    def __post_init__(self) -> None:
        require_choices("norms", self.norms, ("post", "pre", "deepnorm"))
        if not {"post", "pre"} <= set(self.norms):
            raise ValueError(f"norms is {list(self.norms)!r}; post and pre must be among them.")
        require_numbers("learning_rates", self.learning_rates, low=1e-7, high=1.0)
        require_integers("warm_ups", self.warm_ups, low=0, high=10**6)
        if self.warm_ups[0] != 0 or len(self.warm_ups) < 2:
            raise ValueError(
                f"warm_ups is {list(self.warm_ups)!r}; it must begin with 0 and name at least one more, such as "
                "[0, 50]."
            )
        require_integer("steps", self.steps, low=EVALUATIONS, high=10**6)
        require_integer("layers", self.layers, low=1, high=500)
        require_integer("d_model", self.d_model, low=8, high=1024)
        if self.d_model % 4:
            raise ValueError(f"d_model is {self.d_model}; it must be a multiple of 4, for there are 2 heads.")
        require_integer("seeds", self.seeds, low=1, high=100)


Key = tuple[str, float, int]


def run(options: Options) -> Iterator[Event]:
    """Train at each point of a grid of norm, learning rate and warm-up, over seeds.

    Claim: Post-norm needs warm-up to learn at a learning rate at which pre-norm learns without it.

    Source: Xiong et al. 2020, section 3.2, and Nguyen and Salazar 2019, section 4.

    Verdict: A training fails if its loss on held-out pairs in the end is not below that of guessing by how often each
    token occurs, or not finite; it has learned if the loss is below half of that. A seed shows the claim at a learning
    rate if post-norm without warm-up does not learn there, post-norm with the longest warm-up learns, and pre-norm
    without warm-up learns. The claim holds if all seeds show it at one learning rate of the grid, does not hold if at no
    learning rate more than half of them do, and is not decided otherwise.
    """
    seeds = seeds_of(options.seeds)
    grid = [
        (norm, rate, warm_up)
        for rate in options.learning_rates
        for warm_up in options.warm_ups
        for norm in options.norms
    ]
    work = Work(options.steps * len(grid) * len(seeds))
    yield work.did(0)
    losses: dict[Key, list[float]] = {key: [] for key in grid}
    guessing = math.nan
    for seed in seeds:
        for norm, rate, warm_up in grid:
            recipe = toy_recipe(
                model={
                    "norm": norm,
                    "encoder_layers": options.layers,
                    "decoder_layers": options.layers,
                    "d_model": options.d_model,
                    "d_ff": 2 * options.d_model,
                },
                training={
                    "seed": seed,
                    "steps": options.steps,
                    "schedule": "constant",
                    "peak": rate,
                    "warmup_steps": warm_up,
                    "evaluate_every": max(1, options.steps // EVALUATIONS),
                },
            )
            trainer = prepare(recipe).trainer
            guessing = guessing_loss(trainer)
            labels: dict[str, Label] = {"norm": norm, "learning_rate": rate, "warm_up": warm_up, "seed": seed}
            ending = yield from train(trainer, labels, work, every=5)
            losses[norm, rate, warm_up].append(ending.loss)
            yield Measured(
                quantity="final_loss",
                labels={"norm": norm, "learning_rate": rate, "seed": seed},
                x=warm_up,
                y=ending.loss,
            )
    yield conclude(losses, guessing, options)


def conclude(losses: Mapping[Key, list[float]], guessing: float, options: Options) -> Concluded:
    """What follows from the losses in the end, seed by seed, and the loss of guessing."""
    longest = options.warm_ups[-1]
    shown = {rate: seeds_as_claimed(losses, rate, longest, guessing) for rate in options.learning_rates}
    best = max(shown, key=lambda rate: (shown[rate], -rate))
    arms = {
        "post_without": losses["post", best, 0],
        "post_with": losses["post", best, longest],
        "pre_without": losses["pre", best, 0],
        "pre_with": losses["pre", best, longest],
    }
    numbers: dict[str, float] = {
        "seeds_as_claimed": shown[best],
        "learning_rate": best,
        "warm_up": longest,
        "guessing_loss": guessing,
    }
    for name, found in arms.items():
        numbers |= {
            f"{name}_warm_up_loss": float(np.mean(found)),
            f"{name}_warm_up_failed": sum(failed(loss, guessing) for loss in found),
            f"{name}_warm_up_learned": sum(learned(loss, guessing) for loss in found),
        }
    verdict = verdict_of(list(shown.values()), options.seeds)
    return Concluded(verdict=verdict, numbers=numbers, seeds=seeds_of(options.seeds))


def failed(loss: float, guessing: float) -> bool:
    """Whether a training with this loss in the end is no better than guessing; NaN is not."""
    return not loss < guessing


def learned(loss: float, guessing: float) -> bool:
    """Whether a training with this loss in the end has learned; NaN is none."""
    return loss < LEARNED * guessing


def seeds_as_claimed(losses: Mapping[Key, list[float]], rate: float, warm_up: int, guessing: float) -> int:
    """How many seeds show the claim at this learning rate."""
    return sum(
        not learned(post_without, guessing)
        and learned(post_with, guessing)
        and learned(pre_without, guessing)
        for post_without, post_with, pre_without in zip(
            losses["post", rate, 0], losses["post", rate, warm_up], losses["pre", rate, 0], strict=True
        )
    )


def verdict_of(shown: list[int], seeds: int) -> Verdict:
    """What the rule says, given how many seeds show the claim at each learning rate."""
    if max(shown) == seeds:
        return "holds"
    return "does not hold" if 2 * max(shown) <= seeds else "not decided"


EXPERIMENT = Experiment(
    name="norm-warm-up",
    options=Options,
    run=run,
    quantities=(
        *TRAINING_QUANTITIES,
        Quantity(
            name="final_loss", x="steps of warm-up", y="loss on held-out pairs in the end (nats per token)"
        ),
    ),
)
