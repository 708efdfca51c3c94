"""What an experiment measured, as lines: points of one quantity with the same labels, in the order of their x.

Legend: N points of a line.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.experiments.events import Event, Label, Measured


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """One line.

    Attributes:
        labels: What tells it from other lines of its quantity.
        x: Where it was measured (N,), rising.
        y: The numbers (N,).
    """

    labels: Mapping[str, Label]
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def lines_of(events: Iterable[Event], quantity: str, **where: Label) -> list[Line]:
    """The lines of a quantity, in the order in which their first points came.

    Args:
        events: What came out.
        quantity: Which quantity.
        **where: Labels that the points must have.
    """
    points: dict[tuple[tuple[str, Label], ...], dict[float, float]] = defaultdict(dict)
    for event in events:
        if not isinstance(event, Measured) or event.quantity != quantity:
            continue
        if all(event.labels.get(name) == value for name, value in where.items()):
            points[tuple(event.labels.items())][event.x] = event.y
    found = []
    for labels, line in points.items():
        x = sorted(line)
        found.append(
            Line(
                labels=dict(labels),
                x=np.array(x, dtype=float),
                y=np.array([line[each] for each in x], dtype=float),
            )
        )
    return found
