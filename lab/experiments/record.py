"""An experiment that ran, in one file: what came out, what was measured, and how to do it again.

The results in ``assets/results`` are such files. They hold curves, which `events_of_record` gives back as events, without
the order in time and without progress.
"""

import json
import platform
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from lab.experiments.events import Event, Label, Measured, number_of, storable
from transformer.files import write_atomically

FORMAT = 1
DIGITS = 5


def command_line(name: str, options: Mapping[str, Any]) -> str:
    """The command that runs an experiment with these options."""
    settings = [f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in options.items()]
    return " ".join(["python -m lab experiment", name, *settings])


def write_record(
    path: Path,
    *,
    outcome: Mapping[str, Any],
    options: Mapping[str, Any],
    changed: Mapping[str, Any],
    events: Iterable[Event],
) -> None:
    """Write a record.

    Args:
        path: JSON file to write.
        outcome: What `lab.experiments.experiment.report` made.
        options: All options.
        changed: Those that are not at their default, for the command.
        events: What was measured; other events are left out.
    """
    head = {
        "format": FORMAT,
        "command": command_line(str(outcome["name"]), changed),
        "options": dict(options),
        "outcome": dict(outcome),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "machine": {"processor": processor(), "threads": torch.get_num_threads()},
    }
    # One curve a line, so that a difference between two files can be read.
    curves = ",\n".join(f"  {json.dumps(curve, ensure_ascii=False)}" for curve in curves_of(events))
    text = json.dumps(head, ensure_ascii=False, indent=1)[:-2] + f',\n "curves": [\n{curves}\n ]\n}}\n'
    write_atomically(path, text.encode())


def curves_of(events: Iterable[Event]) -> list[dict[str, Any]]:
    """What was measured, the points of a curve together; numbers keep the five digits that a picture needs."""
    curves: dict[tuple[str, tuple[tuple[str, Label], ...]], dict[str, Any]] = {}
    for event in events:
        if not isinstance(event, Measured):
            continue
        empty = {"quantity": event.quantity, "labels": dict(event.labels), "x": [], "y": []}
        curve = curves.setdefault((event.quantity, tuple(event.labels.items())), empty)
        curve["x"].append(storable(event.x))
        curve["y"].append(storable(float(f"{event.y:.{DIGITS}g}")))
    return list(curves.values())


def processor() -> str:
    """What the processor is called, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def read_record(path: Path) -> dict[str, Any]:
    """Read a record; `events_of_record` gives its events.

    Raises:
        ValueError: If it is missing or not a record.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} is not the record of an experiment of format {FORMAT}.")
    return record


def events_of_record(record: Mapping[str, Any]) -> list[Event]:
    """What was measured, curve by curve.

    Raises:
        ValueError: If the record is damaged.
    """
    try:
        return [
            Measured(quantity=curve["quantity"], labels=curve["labels"], x=number_of(x), y=number_of(y))
            for curve in record["curves"]
            for x, y in zip(curve["x"], curve["y"], strict=True)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The curves of the record cannot be read: {error}.") from error
