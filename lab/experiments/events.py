"""What an experiment says while it runs.

`Progress(done, total)` comes first and then at least every second, `Measured` whenever a number came out, and one
`Concluded` ends it. They are generic: whoever stores or draws them need not know the experiment.

A JSON line of each is ``{"event": "Measured", ...fields}``. JSON has no NaN and no infinity, so a number that is not
finite is written as the text ``nan``, ``inf`` or ``-inf``, which `float` reads.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Verdict = Literal["holds", "does not hold", "not decided"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
Label = str | int | float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """So much of the work is done.

    Attributes:
        done: Units of work done.
        total: Units of work in all; it stays the same.
    """

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number came out: one point of a curve.

    Attributes:
        quantity: What was measured; one of the experiment's `quantities`.
        labels: Which curve the point is on: ``norm``, ``seed``, ``layers``, ... Within one quantity all points have
            the same labels. ``seed`` is what a spread goes over.
        x: Where it was measured; the quantity says what this is.
        y: The number; NaN or infinite if the computation went astray, which is a result.
    """

    quantity: str
    labels: Mapping[str, Label]
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Concluded:
    """The experiment is over.

    Attributes:
        verdict: What its rule says about what was measured.
        numbers: Named figures that the verdict rests on, and some beside them.
        seeds: Seeds that were used.
    """

    verdict: Verdict
    numbers: Mapping[str, float | int]
    seeds: tuple[int, ...]


Event = Progress | Measured | Concluded
KINDS: dict[str, type] = {kind.__name__: kind for kind in (Progress, Measured, Concluded)}


def event_record(event: Event) -> dict[str, Any]:
    """An event as JSON values."""
    record: dict[str, Any] = {"event": type(event).__name__}
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, Mapping):
            value = {name: storable(each) for name, each in value.items()}
        record[field.name] = list(value) if isinstance(value, tuple) else storable(value)
    return record


def storable(value: Any) -> Any:
    """The value, or its name if it is a number that is not finite."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def event_of_record(record: Mapping[str, Any]) -> Event:
    """The event that `event_record` made this of.

    Raises:
        ValueError: If it is none.
    """
    values = dict(record)
    kind = KINDS.get(values.pop("event", ""))
    try:
        if kind is Measured:
            values |= {"x": number_of(values["x"]), "y": number_of(values["y"])}
        elif kind is Concluded:
            numbers = {name: number_of(value) for name, value in values["numbers"].items()}
            values |= {"numbers": numbers, "seeds": tuple(values["seeds"])}
        if kind is not None:
            return kind(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{record!r} is not an event of an experiment: {error}.") from error
    raise ValueError(f"{record!r} is not an event of an experiment.")


def number_of(value: Any) -> float | int:
    """A number, also if it stands there as text."""
    return float(value) if isinstance(value, str) else value


def events_as_csv(events: Iterable[Event]) -> str:
    """What was measured as a table: quantity, a column for each label, x, y."""
    points = [event for event in events if isinstance(event, Measured)]
    labels = list(dict.fromkeys(name for point in points for name in point.labels))
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(["quantity", *labels, "x", "y"])
    for point in points:
        table.writerow(
            [point.quantity, *(point.labels.get(name, "") for name in labels), repr(point.x), repr(point.y)]
        )
    return buffer.getvalue()
