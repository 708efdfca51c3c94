"""Trainings side by side: one recipe with its norm in several places, seed for seed on the same data in the same order.

What is compared is a *variant*: where layer normalisation stands, and whether the residual connection is there. Two
variants of a seed differ in that alone; a test compares their recipes and their batches.

A comparison that ran can be written to one file and read back, so that a page has one to show before anything was started.

Legend: N points, L layers.
"""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lab.runs.laboratory import Laboratory
from lab.runs.problems import RunProblem
from lab.runs.store import UNFINISHED, Run, Series, new_id
from transformer.files import write_atomically
from transformer.recipe import Recipe

# Where the norm stands, and whether x is added; "alone" is without the residual connection.
VARIANTS: dict[str, tuple[str, bool]] = {
    "pre": ("pre", True),
    "post": ("post", True),
    "deepnorm": ("deepnorm", True),
    "none": ("none", True),
    "pre-alone": ("pre", False),
    "post-alone": ("post", False),
    "none-alone": ("none", False),
}
LAYER_SERIES = ("layer_gradients", "layer_streams", "layer_updates", "layer_weight_updates")
SCALAR_SERIES = ("train_loss", "dev_loss", "accuracy", "sequence_accuracy", "grad_norm", "learning_rate")

# How often the held-out examples and the layers are looked at in one training.
EVALUATIONS, LAYER_MEASUREMENTS = 15, 30

FORMAT = 1
# Points of a series, and digits of a number, that a picture needs.
MOST_POINTS, DIGITS = 1000, 4


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One training of a comparison, before it is started."""

    variant: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """One training of a comparison, and what was measured of it so far.

    Attributes:
        variant: One of `VARIANTS`.
        seed: Its seed.
        spec: Its recipe as plain values.
        state: State of its run.
        step: Steps done.
        steps: Steps in all.
        seconds: Seconds of work.
        error: What ended it, if anything did; see `lab.runs.problems`.
        layers: Names of the layers, the columns of series (N, L).
        series: What was measured, by the names of `SCALAR_SERIES` and `LAYER_SERIES`.
    """

    variant: str
    seed: int
    spec: Mapping[str, Any]
    state: str
    step: int
    steps: int
    seconds: float
    error: Mapping[str, Any] | None
    layers: tuple[str, ...]
    series: Mapping[str, Series]

    @property
    def diverged_at(self) -> int | None:
        """The step whose loss was no number, if the training ended so."""
        return self.error["step"] if self.error is not None and self.error["code"] == "diverged" else None


def arms(recipe: Recipe, variants: Sequence[str], seeds: int) -> list[Arm]:
    """The trainings of a comparison in the order in which they start: seed by seed, so that the first pictures compare.

    Args:
        recipe: What all of them share, and the first seed.
        variants: Names from `VARIANTS`.
        seeds: How many seeds each variant is trained with.

    Raises:
        ValueError: If a variant is unknown.
    """
    for name in variants:
        if name not in VARIANTS:
            raise ValueError(f"{name!r} is not a variant; allowed are {', '.join(VARIANTS)}.")
    return [
        Arm(variant=name, seed=seed, recipe=varied(recipe, name, seed))
        for seed in range(recipe.training.seed, recipe.training.seed + seeds)
        for name in variants
    ]


def shaped(recipe: Recipe, *, layers: int, width: int, steps: int) -> Recipe:
    """A recipe with so many layers in each stack, so wide, and with measurements all along so many steps.

    The feed-forward networks are twice as wide as the stream; the heads stay as many as they are.
    """
    model = {"encoder_layers": layers, "decoder_layers": layers, "d_model": width, "d_ff": 2 * width}
    return replace(
        recipe,
        model={**recipe.model, **model},
        training=replace(
            recipe.training,
            steps=steps,
            evaluate_every=max(1, steps // EVALUATIONS),
            layers_every=max(1, steps // LAYER_MEASUREMENTS),
            probe_count=0,
        ),
        probes=(),
    )


def varied(recipe: Recipe, variant: str, seed: int) -> Recipe:
    """The recipe of one training of a comparison."""
    norm, residual = VARIANTS[variant]
    return replace(
        recipe,
        model={**recipe.model, "norm": norm, "residual": residual},
        training=replace(recipe.training, seed=seed),
    )


def variant_of(spec: Mapping[str, Any]) -> str:
    """The variant that a training is of."""
    model = spec["model"]
    found = model.get("norm", "post"), model.get("residual", True)
    return next(name for name, variant in VARIANTS.items() if variant == found)


def start_comparison(lab: Laboratory, planned: Sequence[Arm], *, owner: str, names: Mapping[str, str]) -> str:
    """Put the trainings of a comparison into the queue, all or none.

    Args:
        lab: Where they run.
        planned: The trainings.
        owner: Whose they are.
        names: What to call the runs of each variant.

    Returns:
        The ID that they share.

    Raises:
        RunProblem: If it is more than is allowed.
    """
    waiting = sum(run.owner == owner for run in lab.store.runs(states=UNFINISHED))
    limit = lab.settings.most_queued
    if waiting + len(planned) > limit:
        sentence = (
            f"{waiting} runs wait or work already, and {len(planned)} more are over the limit of {limit}."
        )
        raise RunProblem("too_many_runs", sentence, limit=limit)
    group = new_id()
    for arm in planned:
        lab.start(arm.recipe, name=names[arm.variant], owner=owner, group=group)
    return group


def members(lab: Laboratory, group: str) -> list[Run]:
    """The trainings of a comparison that are there, in the order in which they were started."""
    return [run for run in reversed(lab.store.runs()) if group and run.group == group]


def trial_of(run: Run, measured: Mapping[tuple[str, str], Series]) -> Trial:
    """A run of a comparison with what was measured of it."""
    return Trial(
        variant=variant_of(run.spec),
        seed=run.spec["training"]["seed"],
        spec=run.spec,
        state=run.state,
        step=run.step,
        steps=run.steps,
        seconds=run.seconds,
        error=run.error,
        layers=tuple(run.facts.get("layers", ())),
        series={name: series for (run_id, name), series in measured.items() if run_id == run.id},
    )


def write_trials(path: Path, trials: Sequence[Trial], *, command: str) -> None:
    """Write a comparison that ran.

    Args:
        path: JSON file to write.
        trials: Its trainings.
        command: The command that repeats it.
    """
    head = {
        "format": FORMAT,
        "command": command,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    # One training a line: files that differ in one differ in a line.
    lines = ",\n".join(json.dumps(trial_record(trial), ensure_ascii=False) for trial in trials)
    text = json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "trials": [\n{lines}\n ]\n}}\n'
    write_atomically(path, text.encode())


def trial_record(trial: Trial) -> dict[str, Any]:
    """A training as JSON values."""
    return {
        **{
            name: getattr(trial, name)
            for name in ("variant", "seed", "spec", "state", "step", "steps", "error")
        },
        "seconds": round(trial.seconds, 1),
        "layers": list(trial.layers),
        "series": {
            name: {"steps": series.steps.tolist(), "values": storable(series.values.tolist())}
            for name, series in trial.series.items()
        },
    }


def storable(values: Any) -> Any:
    """Numbers with the digits that a picture needs; one that is not finite as the text that `float` reads."""
    if isinstance(values, list):
        return [storable(value) for value in values]
    return float(f"{values:.{DIGITS}g}") if math.isfinite(values) else str(values)


def read_trials(path: Path) -> tuple[str, list[Trial]]:
    """Read a comparison that was written: the command that repeats it, and its trainings.

    Raises:
        ValueError: If it is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, this program knows {FORMAT}")
        return content["command"], [trial_of_record(record) for record in content["trials"]]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The comparison {path} cannot be read: {error}.") from error


def trial_of_record(record: Mapping[str, Any]) -> Trial:
    """The training that `trial_record` made this of."""
    return Trial(**{**record, "layers": tuple(record["layers"]), "series": read_series(record["series"])})


def read_series(stored: Mapping[str, Any]) -> dict[str, Series]:
    """The series of a stored training; numpy reads the texts of numbers that are not finite."""
    return {
        name: Series(
            steps=np.array(each["steps"], dtype=np.int64), values=np.array(each["values"], dtype=np.float64)
        )
        for name, each in stored.items()
    }
