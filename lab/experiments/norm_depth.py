"""How deep a model can be and still learn, for each place of the norm, and with "Add" or "Norm" taken away."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

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
from lab.experiments.trainings import (
    LAYER_QUANTITIES,
    TRAINING_QUANTITIES,
    Ending,
    Work,
    guessing_loss,
    toy_recipe,
    train,
)
from transformer.config import require_integer
from transformer.recipe import Recipe, prepare

VARIANTS: dict[str, dict[str, Any]] = {
    "post": {"norm": "post"},
    "pre": {"norm": "pre"},
    "deepnorm": {"norm": "deepnorm"},
    "no_norm": {"norm": "none"},
    "no_residual": {"norm": "pre", "residual": False},
}
# A training whose loss is below this share of the loss of guessing has learned.
LEARNED = 0.5
EVALUATIONS = 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to train.

    Attributes:
        variants: ``post``, ``pre``, ``deepnorm``; ``no_norm`` and ``no_residual`` are pre-norm with a part taken away.
        depths: Numbers of layers, half of them in the encoder and half in the decoder.
        steps: Steps of each training.
        learning_rate: Highest learning rate; it falls to 0.
        warm_up: Steps of warm-up.
        d_model: Width of the model.
        seeds: How many trainings of each.
    """

    variants: tuple[str, ...] = tuple(VARIANTS)
    depths: tuple[int, ...] = (4, 20)
    steps: int = 80
    learning_rate: float = 5e-3
    warm_up: int = 25
    d_model: int = 32
    seeds: int = 2

    def __post_init__(self) -> None:
        require_choices("variants", self.variants, tuple(VARIANTS))
        require_integers("depths", self.depths, low=2, high=1000)
        odd = [depth for depth in self.depths if depth % 2]
        if odd:
            raise ValueError(
                f"depths has {odd[0]}; half of the layers are in the encoder, so each must be an even number."
            )
        require_integer("steps", self.steps, low=EVALUATIONS, high=10**6)
        require_numbers("learning_rate", (self.learning_rate,), low=1e-7, high=1.0)
        require_integer("warm_up", self.warm_up, low=0, high=10**6)
        require_integer("d_model", self.d_model, low=8, high=1024)
        if self.d_model % 4:
            raise ValueError(f"d_model is {self.d_model}; it must be a multiple of 4, for there are 2 heads.")
        require_integer("seeds", self.seeds, low=1, high=100)


def run(options: Options) -> Iterator[Event]:
    """Train shallow and deep models alike, warm-up given, and see which of them learn.

    Claim: With warm-up, a shallow post-norm model learns and a deep one does not; pre-norm and DeepNorm learn at both
    depths.

    Source: Xiong et al. 2020 and Wang et al. 2022, DeepNet, figures 1 and 5.

    Verdict: A training has learned if its loss on held-out pairs in the end is below half the loss of guessing by how
    often each token occurs. The claim holds if pre-norm and DeepNorm have learned at every depth in all seeds, and
    post-norm at the smallest depth in all seeds and at the greatest in none. It does not hold if at the greatest depth
    post-norm has learned in all seeds, or pre-norm or DeepNorm in none. Otherwise, or if one of the three was not
    trained, or at one depth only, it is not decided.
    """
    seeds = seeds_of(options.seeds)
    arms = [(variant, depth) for depth in options.depths for variant in options.variants]
    # A layer is worth a unit: deep models take longer.
    work = Work(sum(depth for _, depth in arms) * options.steps * len(seeds))
    yield work.did(0)
    endings: dict[tuple[str, int], list[Ending]] = {arm: [] for arm in arms}
    movements: dict[tuple[str, int], list[float]] = {arm: [] for arm in arms}
    guessing = 0.0
    for seed in seeds:
        for variant, depth in arms:
            trainer = prepare(arm_recipe(options, variant, depth, seed)).trainer
            guessing = guessing_loss(trainer)
            labels: dict[str, Label] = {"variant": variant, "layers": depth, "seed": seed}
            training = train(trainer, labels, work, every=5, units=depth)
            ending, movement = yield from watch_movement(training, options.steps)
            endings[variant, depth].append(ending)
            movements[variant, depth].append(movement)
            yield Measured(
                quantity="final_loss", labels={"variant": variant, "seed": seed}, x=depth, y=ending.loss
            )
    numbers: dict[str, float] = {"guessing_loss": guessing}
    for (variant, depth), found in endings.items():
        name = f"{variant}_{depth}"
        numbers |= {
            f"{name}_loss": float(np.mean([ending.loss for ending in found])),
            f"{name}_learned": sum(learned(ending.loss, guessing) for ending in found),
            f"{name}_diverged_trainings": sum(ending.diverged_at is not None for ending in found),
            f"{name}_movement": float(np.mean(movements[variant, depth])),
        }
    shares = {
        arm: sum(learned(ending.loss, guessing) for ending in found) / len(seeds)
        for arm, found in endings.items()
    }
    yield Concluded(verdict=verdict_of(shares, options.depths), numbers=numbers, seeds=seeds)


def arm_recipe(options: Options, variant: str, depth: int, seed: int) -> Recipe:
    """The training of one variant at one depth."""
    return toy_recipe(
        model={
            **VARIANTS[variant],
            "encoder_layers": depth // 2,
            "decoder_layers": depth // 2,
            "d_model": options.d_model,
            "d_ff": 2 * options.d_model,
        },
        training={
            "seed": seed,
            "steps": options.steps,
            "schedule": "linear",
            "peak": options.learning_rate,
            "warmup_steps": options.warm_up,
            "evaluate_every": max(1, options.steps // EVALUATIONS),
            "layers_every": options.steps,
        },
    )


def watch_movement(
    training: Generator[Event, None, Ending], steps: int
) -> Generator[Event, None, tuple[Ending, float]]:
    """Pass a training's events on; returns how it ended and how far a layer moved the stream in the last step.

    This is the mean over the layers, NaN if the training did not come so far.
    """
    movements: list[float] = []
    while True:
        try:
            event = next(training)
        except StopIteration as stopped:
            return stopped.value, float(np.mean(movements)) if movements else float("nan")
        if isinstance(event, Measured) and event.quantity == "layer_update" and event.labels["step"] == steps:
            movements.append(event.y)
        yield event


def learned(loss: float, guessing: float) -> bool:
    """Whether a training with this loss in the end has learned."""
    return loss < LEARNED * guessing


def verdict_of(shares: Mapping[tuple[str, int], float], depths: tuple[int, ...]) -> Verdict:
    """What the rule says, given the share of seeds in which each variant has learned at each depth."""
    claimed = ("post", "pre", "deepnorm")
    if len(depths) < 2 or any((variant, depths[-1]) not in shares for variant in claimed):
        return "not decided"
    post_as_claimed = shares["post", depths[0]] == 1 and shares["post", depths[-1]] == 0
    if post_as_claimed and all(
        shares[variant, depth] == 1 for variant in ("pre", "deepnorm") for depth in depths
    ):
        return "holds"
    deepest = {variant: shares[variant, depths[-1]] for variant in claimed}
    if deepest["post"] == 1 or deepest["pre"] == 0 or deepest["deepnorm"] == 0:
        return "does not hold"
    return "not decided"


EXPERIMENT = Experiment(
    name="norm-depth",
    options=Options,
    run=run,
    quantities=(
        *TRAINING_QUANTITIES,
        *LAYER_QUANTITIES,
        Quantity(
            name="final_loss",
            x="layers",
            y="loss on held-out pairs in the end (nats per token)",
            log_x=True,
        ),
    ),
)
