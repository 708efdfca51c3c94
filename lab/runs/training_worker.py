"""The work of a training run: the trainer's events, written into the run's folder and told to the store."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from lab.runs.problems import RunProblem
from lab.runs.recorder import Recorder
from lab.runs.series import points_of
from lab.runs.settings import Settings
from lab.runs.store import Run, Samples, Store
from transformer.checkpoint import PREVIOUS, TRAINING_STATE, WEIGHTS, has_training_state
from transformer.data.pairs import Pair
from transformer.decode import greedy
from transformer.recipe import Prepared, Recipe, prepare
from transformer.train import Evaluated, Event, Finished, StepEnd
from transformer.training_folder import recorded_events
from transformer.vocabulary import EOS, PAD

SAMPLE_COUNT = 6
# Longer samples are no use on a page.
SAMPLE_LENGTH = 60
# Of a worker's time at most this share goes into writing samples.
SAMPLE_SHARE = 0.01


def train(
    settings: Settings, store: Store, run: Run, recorder: Recorder, should_stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Train, from the run's last checkpoint on if it has one; returns None if it was stopped.

    Raises:
        RunProblem: If the loss is no number any more.
        ValueError: If the data or the recipe are not right.
    """
    folder = settings.folder(run.id)
    prepared = prepare(Recipe.from_dict(run.spec), folder / "data")
    store.set_columns(run.id, run.attempt, facts=facts_of(prepared))
    events = resumed(prepared, store, run, folder, should_stop)
    recorder.begin_at(prepared.trainer.step)
    samples = Sampler(prepared)
    for event in events:
        recorder.add(event.step, points_of(event))
        if isinstance(event, StepEnd) and not math.isfinite(event.loss):
            sentence = f"The loss was no number any more after step {event.step}: the training diverged."
            raise RunProblem("diverged", sentence, step=event.step)
        if isinstance(event, Evaluated) and (written := samples.write(event.step)):
            recorder.show(written)
        if isinstance(event, Finished):
            return {}
    return None


def resumed(
    prepared: Prepared, store: Store, run: Run, folder: Path, should_stop: Callable[[], bool]
) -> Iterator[Event]:
    """The events from the last whole checkpoint on, or from the start if there is none."""
    if has_training_state(folder):
        try:
            events = recorded_events(prepared, folder, resume=True, should_stop=should_stop)
            store.keep_until(run.id, run.attempt, prepared.trainer.step)
            store.write_log(run.id, "resumed", step=prepared.trainer.step)
            return events
        except ValueError as error:
            store.write_log(run.id, "damaged", reason=str(error))
    for path in (folder / TRAINING_STATE, folder / WEIGHTS, *folder.glob(f"{PREVIOUS}*")):
        path.unlink(missing_ok=True)
    store.keep_until(run.id, run.attempt, -1)
    store.set_columns(run.id, run.attempt, step=0)
    return recorded_events(prepared, folder, should_stop=should_stop)


def facts_of(prepared: Prepared) -> dict[str, Any]:
    """What is known of a training once its data is read."""
    trainer = prepared.trainer
    config = trainer.model.config
    return {
        "parameters": trainer.model.num_parameters(),
        "source_size": config.source_size,
        "target_size": config.target_size,
        "train_pairs": len(trainer.train_data),
        "dev_pairs": len(trainer.dev_data),
        "dropped": trainer.train_data.dropped + trainer.dev_data.dropped,
        "layers": [
            *(f"encoder.{index}" for index in range(config.encoder_layers)),
            *(f"decoder.{index}" for index in range(config.decoder_layers)),
        ],
        "torch": torch.__version__,
    }


class Sampler:
    """Writes targets of a few development pairs, greedily, whenever that takes little of the time.

    Args:
        prepared: The training.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        limit = min(SAMPLE_LENGTH, prepared.trainer.model.config.max_length - 1)
        self._pairs = chosen_pairs(prepared, limit)
        vocabulary = prepared.source_vocabulary
        ids = [
            torch.tensor([*ids, EOS]) for ids in vocabulary.encode_ids([pair.source for pair in self._pairs])
        ]
        self._sources = (
            torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD) if ids else None
        )
        targets = prepared.target_vocabulary.encode_ids([pair.target for pair in self._pairs])
        # A model that has not learned to stop yet would write without end.
        self._most = min(limit, 2 * max(map(len, targets), default=0) + 2)
        self._next = 0.0

    def write(self, step: int) -> Samples | None:
        """What the model writes after `step`, or None if it was asked only a moment ago."""
        began = time.monotonic()
        last = step == self._prepared.trainer.config.steps
        if self._sources is None or (began < self._next and not last):
            return None
        with torch.inference_mode():
            model = self._prepared.trainer.averaged.eval()
            hypotheses = greedy(model, self._sources, max_length=self._most)
        ended = time.monotonic()
        self._next = ended + (ended - began) / SAMPLE_SHARE
        return Samples(
            step=step,
            rows=tuple(
                (pair.source, pair.target, self._prepared.target_vocabulary.decode(hypothesis.tokens))
                for pair, hypothesis in zip(self._pairs, hypotheses, strict=True)
            ),
        )


def chosen_pairs(prepared: Prepared, limit: int) -> list[Pair]:
    """A few of the development pairs with different sources, spread over the set."""
    different = list({pair.source: pair for pair in prepared.dev}.values())
    return [pair for pair in spread(different, SAMPLE_COUNT) if fits(prepared, pair, limit)]


def spread(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """At most `count` of the pairs, evenly spaced."""
    if len(pairs) <= count:
        return list(pairs)
    return [pairs[index * len(pairs) // count] for index in range(count)]


def fits(prepared: Prepared, pair: Pair, limit: int) -> bool:
    """Whether a pair is short enough to be shown."""
    source = prepared.source_vocabulary.encode_ids([pair.source])[0]
    target = prepared.target_vocabulary.encode_ids([pair.target])[0]
    return 0 < len(source) < limit and len(target) < limit
