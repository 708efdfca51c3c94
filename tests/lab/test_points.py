"""Lines of an experiment against points that were put together by hand."""

import math

from lab.experiments.events import Concluded, Measured, Progress
from lab.experiments.points import lines_of


def point(quantity, x, y, **labels):
    return Measured(quantity=quantity, labels=labels, x=x, y=y)


EVENTS = [
    Progress(done=0, total=2),
    point("loss", 4, 0.4, norm="pre", seed=1),
    point("loss", 2, 0.8, norm="pre", seed=1),
    point("loss", 2, math.nan, norm="post", seed=1),
    point("loss", 2, 0.9, norm="pre", seed=2),
    point("accuracy", 2, 0.1, norm="pre", seed=1),
    point("loss", 4, 0.3, norm="pre", seed=2),
    Concluded(verdict="holds", numbers={}, seeds=(1, 2)),
]


def test_points_of_the_same_labels_are_a_line_in_the_order_of_x():
    lines = lines_of(EVENTS, "loss")
    assert [line.labels for line in lines] == [
        {"norm": "pre", "seed": 1},
        {"norm": "post", "seed": 1},
        {"norm": "pre", "seed": 2},
    ]
    assert (lines[0].x.tolist(), lines[0].y.tolist()) == ([2.0, 4.0], [0.8, 0.4])
    assert math.isnan(lines[1].y[0])


def test_labels_choose_lines():
    (line,) = lines_of(EVENTS, "loss", norm="pre", seed=2)
    assert line.y.tolist() == [0.9, 0.3]
    assert lines_of(EVENTS, "loss", norm="deepnorm") == lines_of([], "loss") == []
