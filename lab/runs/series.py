"""Which field of which event of a training becomes which series of its run."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from lab.runs.store import Series

SERIES = {
    "StepEnd": {
        "loss": "train_loss",
        "learning_rate": "learning_rate",
        "grad_norm": "grad_norm",
        "tokens_per_second": "tokens_per_second",
    },
    "Evaluated": {"loss": "dev_loss", "accuracy": "accuracy", "sequence_accuracy": "sequence_accuracy"},
    "LayersMeasured": {
        "gradients": "layer_gradients",
        "streams": "layer_streams",
        "updates": "layer_updates",
        "weight_updates": "layer_weight_updates",
    },
}


def points_of(event: Any) -> dict[str, Any]:
    """The values that an event adds to the series, by name; those of layers are tuples."""
    names = SERIES.get(type(event).__name__, {})
    return {
        names[each.name]: getattr(event, each.name)
        for each in dataclasses.fields(event)
        if each.name in names
    }


def series_of(records: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    """The series of a training from the lines of its ``metrics.jsonl``; what is not as it should be is passed over."""
    collected: dict[str, tuple[list[int], list[Any]]] = {}
    for record in records:
        for field, name in SERIES.get(str(record.get("event")), {}).items():
            value = record.get(field)
            if is_measured(value):
                steps, values = collected.setdefault(name, ([], []))
                steps.append(record["step"])
                values.append(value)
    result = {}
    for name, (steps, values) in collected.items():
        widths = {len(value) if isinstance(value, list) else 0 for value in values}
        if len(widths) == 1:
            result[name] = Series(
                steps=np.array(steps, dtype=np.int64), values=np.array(values, dtype=np.float64)
            )
    return result


def is_measured(value: Any) -> bool:
    """Whether a JSON value is a number, or the numbers of some layers."""
    if isinstance(value, list):
        return bool(value) and all(is_measured(each) and not isinstance(each, list) for each in value)
    return isinstance(value, (int, float)) and not isinstance(value, bool)
