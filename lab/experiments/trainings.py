"""Trainings inside an experiment: the events of a trainer become points of curves."""

import math
from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from lab.experiments.events import Event, Label, Measured, Progress
from lab.experiments.experiment import Quantity
from transformer.recipe import Recipe
from transformer.train import Evaluated, LayersMeasured, StepEnd, Trainer

TRAINING_QUANTITIES = (
    Quantity(name="train_loss", x="step", y="training loss (nats per token)"),
    Quantity(name="grad_norm", x="step", y="gradient norm", log_y=True),
    Quantity(name="dev_loss", x="step", y="loss on held-out pairs (nats per token)"),
    Quantity(name="accuracy", x="step", y="share of tokens predicted right"),
    Quantity(name="sequence_accuracy", x="step", y="share of whole sequences right"),
)
LAYER_QUANTITIES = (
    Quantity(name="layer_gradient", x="layer", y="gradient norm of the layer", log_y=True),
    Quantity(name="layer_stream", x="layer", y="size of the residual stream", log_y=True),
    Quantity(name="layer_update", x="layer", y="movement of the stream, relative", log_y=True),
)


class Work:
    """Counts units of work.

    Args:
        total: Units in all.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def did(self, units: int) -> Progress:
        """So many more units are done."""
        self.done += units
        return Progress(done=self.done, total=self.total)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a training ended.

    Attributes:
        loss: Loss on the held-out pairs; NaN if the training diverged.
        accuracy: Share of tokens predicted right; 0 if it diverged.
        sequence_accuracy: Share of whole sequences right; 0 if it diverged.
        diverged_at: Step whose loss was not finite, or None.
    """

    loss: float
    accuracy: float
    sequence_accuracy: float
    diverged_at: int | None = None


def train(
    trainer: Trainer, labels: Mapping[str, Label], work: Work, *, every: int, units: int = 1
) -> Generator[Event, None, Ending]:
    """Train to the end, or until the loss is not finite any more.

    Args:
        trainer: Trainer at step 0.
        labels: Labels of the points.
        work: Counts the steps; a training that diverges has done all of its own.
        every: Steps between two points of the training loss.
        units: Units of work of a step.

    Returns:
        How it ended, by its last evaluation.
    """
    total = trainer.config.steps
    ending = Ending(loss=math.nan, accuracy=0.0, sequence_accuracy=0.0)
    for event in trainer.events():
        if isinstance(event, StepEnd):
            astray = not math.isfinite(event.loss)
            if event.step % every == 0 or event.step in (1, total) or astray:
                yield Measured(quantity="train_loss", labels=labels, x=event.step, y=event.loss)
                yield Measured(quantity="grad_norm", labels=labels, x=event.step, y=event.grad_norm)
            if astray:
                yield work.did(units * (total - event.step + 1))
                return Ending(loss=math.nan, accuracy=0.0, sequence_accuracy=0.0, diverged_at=event.step)
            yield work.did(units)
        elif isinstance(event, Evaluated):
            ending = Ending(
                loss=event.loss, accuracy=event.accuracy, sequence_accuracy=event.sequence_accuracy
            )
            for quantity, value in (
                ("dev_loss", event.loss),
                ("accuracy", event.accuracy),
                ("sequence_accuracy", event.sequence_accuracy),
            ):
                yield Measured(quantity=quantity, labels=labels, x=event.step, y=value)
        elif isinstance(event, LayersMeasured):
            for quantity, values in (
                ("layer_gradient", event.gradients),
                ("layer_stream", event.streams),
                ("layer_update", event.updates),
            ):
                for layer, value in enumerate(values):
                    yield Measured(quantity=quantity, labels={**labels, "step": event.step}, x=layer, y=value)
    return ending


def toy_recipe(*, model: Mapping[str, Any], training: Mapping[str, Any]) -> Recipe:
    """A training on the toy task `translation`, small enough that many fit in a minute.

    Args:
        model: Settings of the model beside the usual ones.
        training: Settings of the training beside the usual ones.

    Raises:
        ValueError: If a setting is not right.
    """
    return Recipe.from_dict(
        {
            "data": {"task": "translation", "task_train": 1200, "task_dev": 100},
            "source_vocabulary": {"level": "word"},
            "target_vocabulary": {"level": "word"},
            "model": {"num_heads": 2, "dropout": 0.0, "max_length": 64, **model},
            "training": {
                "batch_tokens": 300,
                "label_smoothing": 0.0,
                "clip_norm": 1.0,
                "probe_count": 0,
                **training,
            },
        }
    )


def guessing_loss(trainer: Trainer) -> float:
    """Loss of guessing each token of the held-out targets by how often it occurs in the training's, in nats."""
    counts = Counter(token for target in trainer.train_data.targets for token in target[1:].tolist())
    total = sum(counts.values())
    tokens = [token for target in trainer.dev_data.targets for token in target[1:].tolist()]
    # A token that was never seen is guessed as if it had been seen once.
    return -sum(math.log(max(counts[token], 1) / total) for token in tokens) / len(tokens)
