"""A training that writes itself into its folder while it runs, and goes on from there when it was stopped.

`recorded_events` passes a trainer's events on and keeps the folder up to date beside them: a line of
``metrics.jsonl`` for each event, and every few seconds the weights, the snapshots and last the training state,
each written atomically, the ones before kept. Killed at any moment, or with its newest file damaged, the folder holds
a state from which the training goes on and ends with the same weights, bit for bit.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from transformer.checkpoint import (
    METRICS,
    PREVIOUS,
    TRAINING_STATE,
    WEIGHTS,
    Snapshots,
    has_training_state,
    load_training_state,
    save_config,
    save_description,
    save_training_state,
    save_weights,
    write_atomically,
)
from transformer.recipe import Prepared
from transformer.train import Event, Finished, LayersMeasured, ProbesRecorded

SHIPPED_STEP_LINES = 1000
# A training saves itself so often, but no more often than saving takes this share of its time.
SAVE_SECONDS = 5.0
SAVE_SHARE = 0.01


def recorded_events(
    prepared: Prepared, folder: Path, *, resume: bool = False, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Event]:
    """Train, keep `folder` up to date, and pass the events on.

    Args:
        prepared: Training at step 0.
        folder: Made if need be.
        resume: Whether to go on from the training state in `folder`.
        should_stop: Asked after each step; if it says yes the state is written and the events end without
            `Finished`.

    Raises:
        ValueError: At once, if `folder` holds a training and `resume` is false, or holds none that fits and it is
            true.
    """
    trainer = prepared.trainer
    snapshots = Snapshots(prepared.probes)
    if resume:
        if not has_training_state(folder):
            raise ValueError(f"{folder} holds no training to resume: {TRAINING_STATE} is missing.")
        state, before = load_training_state(folder)
        _check_same_training(folder, json.loads(before), json.loads(origin(prepared)))
        trainer.restore(state)
        if prepared.probes:
            snapshots = _snapshots_so_far(folder, snapshots)
        _write_lines(folder, [line for line in read_metrics(folder) if line["step"] <= trainer.step])
    else:
        for name in (TRAINING_STATE, WEIGHTS):
            if (folder / name).exists():
                raise ValueError(
                    f"{folder} already holds a training ({name}); resume it, or name another folder."
                )
        folder.mkdir(parents=True, exist_ok=True)
        _write_lines(folder, [])
    return _record(prepared, folder, snapshots, should_stop)


def _record(
    prepared: Prepared, folder: Path, snapshots: Snapshots, should_stop: Callable[[], bool]
) -> Iterator[Event]:
    trainer = prepared.trainer
    made_from = origin(prepared)

    def save(*, first: bool) -> None:
        recipe = prepared.recipe.to_dict()
        save_weights(folder, trainer.averaged)
        if first:
            save_description(
                folder,
                model=trainer.model,
                source_vocabulary=prepared.source_vocabulary,
                target_vocabulary=prepared.target_vocabulary,
                recipe=recipe,
                step=trainer.step,
            )
        else:
            save_config(folder, model=trainer.model, recipe=recipe, step=trainer.step)
        if prepared.probes:
            snapshots.save(folder)
        # Last: whoever finds a state finds everything up to its step.
        save_training_state(folder, trainer.state(), made_from)

    # The first step is saved at once: from then on there is something to go on from.
    first, due = True, -math.inf
    with (folder / METRICS).open("a", encoding="utf-8") as metrics:
        for event in trainer.events():
            metrics.write(json.dumps(event_record(event)) + "\n")
            metrics.flush()
            if isinstance(event, ProbesRecorded):
                snapshots.add(event.step, event.weights)
            # Between a step and its evaluation nothing is saved: the evaluation would be lost when resumed.
            done = not isinstance(event, Finished) and trainer.ends_step(event)
            began = time.monotonic()
            if done and event.step and (began >= due or event.step == trainer.config.steps):
                save(first=first)
                first, ended = False, time.monotonic()
                due = ended + max(SAVE_SECONDS, (ended - began) / SAVE_SHARE)
            yield event
            if done and should_stop():
                save(first=first)
                return


def event_record(event: Event) -> dict[str, Any]:
    """An event as a line of ``metrics.jsonl``: its fields and, under ``event``, its type's name.

    The recorded attention is left out: it is in the snapshots. What was measured of each layer is rounded to five
    digits, for hundreds of layers make a long line.
    """
    fields: dict[str, Any] = {"step": event.step} if isinstance(event, ProbesRecorded) else asdict(event)
    if isinstance(event, LayersMeasured):
        for name in ("gradients", "streams", "updates", "weight_updates"):
            fields[name] = [float(f"{value:.5g}") for value in fields[name]]
    return {
        "event": type(event).__name__,
        **{name: value for name, value in fields.items() if value is not None},
    }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; half a line, left by a crash, is passed over.

    Raises:
        ValueError: If the file cannot be read.
    """
    path = folder / METRICS
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def make_shippable(prepared: Prepared, folder: Path) -> None:
    """Make a finished training small: float16 weights, about 1,000 lines of steps, no training state."""
    save_weights(folder, prepared.trainer.averaged, dtype=torch.float16)
    every = max(1, round(prepared.trainer.config.steps / SHIPPED_STEP_LINES))
    _write_lines(
        folder,
        [line for line in read_metrics(folder) if line["event"] != "StepEnd" or line["step"] % every == 0],
    )
    for leftover in (TRAINING_STATE, *(path.name for path in folder.glob(f"{PREVIOUS}*"))):
        (folder / leftover).unlink(missing_ok=True)


def _write_lines(folder: Path, records: list[dict[str, Any]]) -> None:
    write_atomically(folder / METRICS, "".join(json.dumps(record) + "\n" for record in records).encode())


def origin(prepared: Prepared) -> str:
    """What a training is made from, as JSON: its recipe, and a checksum of the vocabularies that its data gave."""
    digest = hashlib.sha256()
    for vocabulary in (prepared.source_vocabulary, prepared.target_vocabulary):
        tokens = [vocabulary.token(index) for index in range(len(vocabulary))]
        digest.update(json.dumps(tokens).encode())
    return json.dumps({"recipe": prepared.recipe.to_dict(), "vocabularies": digest.hexdigest()})


def _check_same_training(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    if before["recipe"] != now["recipe"]:
        raise ValueError(
            f"The training in {folder} was started with another recipe: "
            f"{_difference(before['recipe'], now['recipe'])}."
        )
    if before["vocabularies"] != now["vocabularies"]:
        raise ValueError(
            f"The data changed since the training in {folder} was started: they give other vocabularies."
        )


def _snapshots_so_far(folder: Path, none: Snapshots) -> Snapshots:
    # Pictures of the past are no reason to lose the training itself.
    try:
        return Snapshots.load(folder)
    except ValueError:
        return none


def _difference(before: Any, now: dict[str, Any]) -> str:
    for section, values in now.items():
        old = before.get(section) if isinstance(before, dict) else None
        if old == values:
            continue
        if isinstance(values, dict) and isinstance(old, dict):
            for key in {**values, **old}:
                if old.get(key) != values.get(key):
                    return f"{section}.{key} was {old.get(key)!r} and is {values.get(key)!r}"
        return f"{section} differs"
    return "a section is missing"
