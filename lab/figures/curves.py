"""Curves over the steps of trainings: loss, accuracy, learning rate, gradient norm, of one run or of many.

Numbers in, Vega-Lite out. A picture's description stays the same while its numbers grow, so that the browser moves the
lines it has instead of drawing a new picture each second. A number that is NaN or infinite is a result, not a hole:
the line ends there and a mark says at which step.

Legend: N points, R runs.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.figures.palette import DEEP_NORM, POST_NORM, PRE_NORM
from lab.figures.positions import FONT_SIZE, MUTED, SUPERSCRIPTS, WAVES, spread

Steps = NDArray[np.int64]
Values = NDArray[np.float64]

DATA = "curves"
# Legible on light and on dark paper; none of these hues has a meaning elsewhere.
TRAIN, DEV, PLAIN = WAVES[2], WAVES[1], WAVES[0]
RUNS = (*WAVES, "#7F7F7F", "#A0522D", "#5B8C5A", "#B35C9E")
NORMS = {"pre": PRE_NORM, "post": POST_NORM, "deepnorm": DEEP_NORM}
# So few points are drawn as points too; of longer lines so many can be pointed at.
FEW, POINTED_AT = 40, 120
# Pixels: a line of text; title and axis of a picture, which its height includes.
LINE_HEIGHT, AROUND = 16, 66


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line.

    Attributes:
        steps: Steps (N,), rising.
        values: A number at each (N,).
        colour: Its colour.
        name: What stands at its end, before the last number.
        low: Lower edge of a band around it (N,), if it has one.
        high: Upper edge of the band (N,).
        faint: Whether it is drawn thin and pale, behind the others, with nothing at its end.
        dashed: Whether it is dashed.
        broken: First step whose number is NaN or infinite, if there is one.
    """

    steps: Steps
    values: Values
    colour: str
    name: str = ""
    low: Values | None = None
    high: Values | None = None
    faint: bool = False
    dashed: bool = False
    broken: int | None = None


@dataclass(frozen=True, kw_only=True)
class Words:
    """What a picture says, in the person's language.

    Attributes:
        title: What stands above, with the unit.
        step: What the horizontal axis is called.
        value: What a number is called.
        line: What a line is called.
        broken: Where a line ends without a number; ``{step}`` is filled in.
    """

    title: str
    step: str
    value: str
    line: str
    broken: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A picture: what it looks like, and the numbers in it."""

    spec: dict[str, Any]
    frame: pd.DataFrame

    def vega(self) -> dict[str, Any]:
        """Both in one, as a page draws it."""
        return {**self.spec, "datasets": {DATA: self.frame}}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """The mean over runs and how far they lie apart.

    Attributes:
        steps: Steps that all runs have reached with a finite number (N,).
        mean: Mean over the runs (N,).
        low: Lowest of the runs (N,).
        high: Highest of the runs (N,).
    """

    steps: Steps
    mean: Values
    low: Values
    high: Values


def first_broken(steps: Steps, values: Values) -> int | None:
    """The first step whose number is NaN or infinite."""
    broken = np.flatnonzero(~np.isfinite(values))
    return int(steps[broken[0]]) if broken.size else None


def block_size(last_step: int, most: int) -> int:
    """How many steps to take together so that about `most` points are left: 1, 2, 5, 10, 20, 50, ..."""
    needed, unit = last_step / most, 1
    while True:
        for factor in (1, 2, 5):
            if factor * unit >= needed:
                return factor * unit
        unit *= 10


def block_means(steps: Steps, values: Values, block: int) -> tuple[Steps, Values]:
    """The mean of every `block` steps, at the last step of each block that is there.

    A block in which a number is not finite ends before it; nothing finite before it is no finite mean.
    """
    if block == 1 or steps.size == 0:
        return steps, values
    starts = np.flatnonzero(np.diff((steps - 1) // block, prepend=-1))
    lengths = np.diff(np.append(starts, steps.size))
    broken = np.cumsum(~np.isfinite(values))
    before = np.repeat(np.append(0, broken)[starts], lengths)
    whole = broken == before
    counts = np.add.reduceat(whole.astype(np.int64), starts)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = np.add.reduceat(np.where(whole, values, 0.0), starts) / counts
    return steps[starts + np.maximum(counts, 1) - 1], means


def mean_and_spread(runs: Sequence[tuple[Steps, Values]]) -> Spread:
    """Mean, lowest and highest of runs at the steps that all of them have, up to the first number that is not finite."""
    shared = runs[0][0]
    for steps, _values in runs[1:]:
        shared = np.intersect1d(shared, steps)
    numbers = np.stack([values[np.searchsorted(steps, shared)] for steps, values in runs])
    broken = np.flatnonzero(~np.isfinite(numbers).all(axis=0))
    until = int(broken[0]) if broken.size else shared.size
    numbers = numbers[:, :until]
    return Spread(
        steps=shared[:until], mean=numbers.mean(axis=0), low=numbers.min(axis=0), high=numbers.max(axis=0)
    )


def run_curves(
    name: str, colour: str, runs: Sequence[tuple[Steps, Values]], *, block: int = 1, dashed: bool = False
) -> list[Curve]:
    """The curves of runs that differ in their seed alone: mean and band, then each run alone where one is missing.

    Args:
        name: What stands at the end.
        colour: Their colour.
        runs: Steps and numbers of each run, at least one.
        block: How many steps each point is the mean of.
        dashed: Whether they are dashed.
    """
    means = [block_means(steps, values, block) for steps, values in runs]
    breaks = [first_broken(*run) for run in runs]
    if len(runs) == 1:
        steps, values = means[0]
        return [Curve(steps=steps, values=values, colour=colour, name=name, dashed=dashed, broken=breaks[0])]
    band = mean_and_spread(means)
    curves = [
        Curve(
            steps=band.steps, values=band.mean, low=band.low, high=band.high, colour=colour, name=name, dashed=dashed
        )
    ]  # fmt: skip
    last = int(band.steps[-1]) if band.steps.size else 0
    for (steps, values), broken in zip(means, breaks, strict=True):
        beyond = steps >= last
        if broken is not None or np.count_nonzero(beyond) > 1:
            curves.append(
                Curve(
                    steps=steps[beyond], values=values[beyond], colour=colour, faint=True, dashed=dashed, broken=broken
                )
            )  # fmt: skip
    return curves


def line_chart(
    curves: Sequence[Curve],
    words: Words,
    *,
    last_step: int,
    height: int,
    log_steps: bool = False,
    log_values: bool = False,
    share: bool = False,
) -> Chart:
    """Draw curves over steps, named at their ends.

    Args:
        curves: The lines; faint ones lie behind the others.
        words: What the picture says.
        last_step: Where the horizontal axis ends.
        height: Height in pixels.
        log_steps: Whether the horizontal axis is logarithmic.
        log_values: Whether the vertical axis is logarithmic; numbers of 0 and below have no place on it.
        share: Whether the numbers are shares, drawn from 0 to 100 %.
    """
    shown = [_on_axes(curve, log_steps, log_values) for curve in curves]
    rows = [*_bands(shown), *_lines(shown), *_dots(shown, share)]
    rows += _ends(shown, height - AROUND, log_values, share)
    rows += _breaks(shown, words.broken, last_step, log_steps)
    rows += _room(shown, 1 if log_steps else 0, last_step, share)
    frame = _frame(rows)
    # A part that no curve has would only make the browser complain; the others are there from the start.
    parts = {"line", "end", "room", "broken", "dot"} | set(frame["part"])
    return Chart(spec=_spec(words, parts, height, log_steps, log_values, share), frame=frame)


def readable(number: float, share: bool = False) -> str:
    """A number with three digits, as it stands in labels and tables."""
    if not math.isfinite(number):
        return {math.inf: "∞", -math.inf: "−∞"}.get(number, "NaN")
    if share:
        return f"{_digits(100 * number)} %"
    if number == 0 or 1e-3 <= abs(number) < 1000:
        return _digits(number)
    if 1000 <= abs(number) < 1e6:
        return f"{float(f'{number:.3g}'):,.0f}"
    digits, exponent = f"{number:.2e}".split("e")
    return f"{digits}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def _digits(number: float) -> str:
    return "0" if number == 0 else f"{number:#.3g}".rstrip(".")


Rows = list[dict[str, Any]]
_COLUMNS = {
    "part": str, "line": str, "name": str, "colour": str, "dashed": bool, "shown": bool,
    "step": float, "value": float, "low": float, "high": float, "text": str, "shift": float, "left": bool,
}  # fmt: skip
# Few different texts on many rows: as categories they are sent once each.
_REPEATED = ("part", "line", "name", "colour")


def _frame(rows: Rows) -> pd.DataFrame:
    """One table of all rows; a row's value stands for all of its steps."""
    sizes = [len(row["step"]) for row in rows]

    def column(name: str, kind: type) -> Any:
        missing = math.nan if kind is float else None
        stored: Any = object if kind is str else kind
        values: list[NDArray[Any]] = []
        for row, size in zip(rows, sizes, strict=True):
            value = row.get(name, missing)
            scalar = value is None or isinstance(value, (str, bool, float))
            values.append(np.full(size, value, stored) if scalar else np.asarray(value, stored))
        whole = np.concatenate([np.empty(0, stored), *values])
        return pd.Categorical(whole) if name in _REPEATED else whole

    banded = any(row["part"] == "band" for row in rows)
    names = [name for name in _COLUMNS if banded or name not in ("low", "high")]
    return pd.DataFrame({name: column(name, _COLUMNS[name]) for name in names})


def _on_axes(curve: Curve, log_steps: bool, log_values: bool) -> Curve:
    """The curve without what has no place on logarithmic axes."""
    keep = np.ones(curve.steps.size, dtype=bool)
    if log_steps:
        keep &= curve.steps >= 1
    if log_values:
        lowest = curve.values if curve.low is None else curve.low
        keep &= ~np.isfinite(curve.values) | (lowest > 0)
    return Curve(
        steps=curve.steps[keep], values=curve.values[keep], colour=curve.colour, name=curve.name,
        low=None if curve.low is None else curve.low[keep],
        high=None if curve.high is None else curve.high[keep],
        faint=curve.faint, dashed=curve.dashed, broken=curve.broken,
    )  # fmt: skip


def _row(part: str, number: int, curve: Curve) -> dict[str, Any]:
    return {
        "part": part, "line": str(number), "name": curve.name, "colour": curve.colour, "dashed": curve.dashed,
        "shown": False, "text": "", "shift": 0.0, "left": False,
    }  # fmt: skip


def _bands(curves: Sequence[Curve]) -> Rows:
    return [
        {**_row("band", number, curve), "step": curve.steps, "low": curve.low, "high": curve.high}
        for number, curve in enumerate(curves)
        if curve.low is not None
    ]


def _lines(curves: Sequence[Curve]) -> Rows:
    """Stretches of finite numbers: a line does not run over a number that is not there."""
    rows = []
    for number, curve in enumerate(curves):
        stretches = np.cumsum(~np.isfinite(curve.values))
        finite = np.isfinite(curve.values)
        rows.append(
            {
                **_row("faint" if curve.faint else "line", number, curve),
                "line": [f"{number}.{stretch}" for stretch in stretches[finite]],
                "step": curve.steps[finite],
                "value": curve.values[finite],
            }
        )
    return [row for row in rows if row["line"]]


def _dots(curves: Sequence[Curve], share: bool) -> Rows:
    """Points that can be pointed at; few points are seen too, for a line of one point is none."""
    rows = []
    for number, curve in enumerate(curves):
        places = np.flatnonzero(np.isfinite(curve.values))
        if curve.faint or not places.size:
            continue
        chosen = places[np.unique(np.linspace(0, places.size - 1, POINTED_AT).round().astype(int))]
        told = [readable(value, share) for value in curve.values[chosen]]
        if curve.low is not None and curve.high is not None:
            ranges = zip(curve.low[chosen], curve.high[chosen], strict=True)
            told = [
                f"{mean} ({readable(low, share)} – {readable(high, share)})"
                for mean, (low, high) in zip(told, ranges, strict=True)
            ]
        rows.append(
            {
                **_row("dot", number, curve),
                "shown": bool(places.size <= FEW),
                "step": curve.steps[chosen],
                "value": curve.values[chosen],
                "text": told,
            }
        )
    return rows


def _ends(curves: Sequence[Curve], height: int, log_values: bool, share: bool) -> Rows:
    """The name and the last number of each line, pushed apart where they would cover each other."""
    ends = []
    for number, curve in enumerate(curves):
        places = np.flatnonzero(np.isfinite(curve.values))
        if not curve.faint and places.size:
            ends.append((number, curve, int(curve.steps[places[-1]]), float(curve.values[places[-1]])))
    if not ends:
        return []
    drawn = [each for curve in curves for each in (curve.values, curve.low, curve.high) if each is not None]
    every = np.concatenate([each[np.isfinite(each) & ((each > 0) | (not log_values))] for each in drawn])
    low, high = 0.0, 1.0 if share else float(every.max())
    if log_values:
        # Vega ends a logarithmic axis at powers of ten.
        low, high = (
            10.0 ** round_up(math.log10(each))
            for each, round_up in ((every.min(), math.floor), (every.max(), math.ceil))
        )

    def pixels(value: float) -> float:
        if log_values:
            return height * math.log(value / low) / max(math.log(high / low), 1e-9)
        return height * value / (high or 1.0)

    heights = [pixels(value) for *_, value in ends]
    placed = within(spread(heights, LINE_HEIGHT), LINE_HEIGHT, height)
    return [
        {
            **_row("end", number, curve),
            "step": [step],
            "value": [value],
            "text": f"{curve.name} {readable(value, share)}".strip(),
            "shift": before - after,
        }
        for (number, curve, step, value), before, after in zip(ends, heights, placed, strict=True)
    ]


def within(heights: Sequence[float], gap: float, highest: float) -> list[float]:
    """Heights that are `gap` apart, moved so that none stands below half a gap, and none above `highest` if it can be."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    placed = list(heights)
    ceiling = highest
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    floor = gap / 2
    for index in order:
        placed[index] = max(placed[index], floor)
        floor = placed[index] + gap
    return placed


def _room(curves: Sequence[Curve], first_step: int, last_step: int, share: bool) -> Rows:
    """Where the axis of the steps begins and ends, and at its end a name that nobody sees: room for those that will stand there.

    As numbers, not in the picture's description: it changes while a run goes on, and the picture stays the same one.
    """
    nothing = Curve(steps=np.empty(0, np.int64), values=np.empty(0), colour=MUTED, faint=True)
    widest = max([nothing, *curves], key=lambda curve: -1 if curve.faint else display_width(curve.name))
    text = "" if widest.faint else f"{widest.name} {'88.8 %' if share else '0.0888'}".strip()
    return [{**_row("room", 0, widest), "step": [first_step, max(last_step, 2)], "text": ["", text]}]


def display_width(text: str) -> int:
    """How wide a text is, in Latin letters; a Chinese one counts as two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def _breaks(curves: Sequence[Curve], sentence: str, last_step: int, log_steps: bool) -> Rows:
    """Where lines end because there is no number."""
    broken = [(number, curve) for number, curve in enumerate(curves) if curve.broken is not None]
    rows = []
    for place, (number, curve) in enumerate(broken):
        assert curve.broken is not None
        share = (
            math.log(curve.broken) / max(math.log(last_step), 1e-9) if log_steps else curve.broken / last_step
        )
        rows.append(
            {
                **_row("broken", number, curve),
                "step": [curve.broken],
                "text": sentence.format(step=f"{curve.broken:,}"),
                # At the foot: what diverges is high up, and its name with it.
                "shift": -LINE_HEIGHT * (place + 0.5),
                "left": bool(share > 0.5),
            }
        )
    return rows


def _spec(
    words: Words,
    parts: set[str],
    height: int,
    log_steps: bool,
    log_values: bool,
    share: bool,
) -> dict[str, Any]:
    """What the picture looks like, whatever the numbers."""
    axis = {"labelFontSize": 12, "titleFontSize": FONT_SIZE, "titleFontWeight": "normal", "labelPadding": 6}
    x = {
        "field": "step",
        "type": "quantitative",
        "scale": {"type": "log" if log_steps else "linear", "nice": False, "zero": False},
        "axis": {**axis, "title": words.step, "titlePadding": 4, "grid": False, "format": ",d", "tickCount": 5},
    }  # fmt: skip
    y = {
        "field": "value",
        "type": "quantitative",
        "scale": _value_scale(log_values, share),
        "axis": {
            **axis, **_value_ticks(log_values, share), "title": None, "gridColor": MUTED, "gridWidth": 0.7,
        },
    }  # fmt: skip
    colour = {"field": "colour", "type": "nominal", "scale": None}
    dash = {"condition": {"test": "datum.dashed", "value": [5, 3]}, "value": [1, 0]}
    edge = {"x": x, "color": colour, "detail": {"field": "line", "type": "nominal"}}
    line = {**edge, "y": y, "strokeDash": dash}
    text = {"x": x, "color": colour, "text": {"field": "text", "type": "nominal"}}
    label = {
        "type": "text", "baseline": "middle", "fontSize": FONT_SIZE, "fontWeight": 600, "tooltip": None,
        "dy": {"expr": "datum.shift"},
    }  # fmt: skip
    beside = {"align": {"expr": "datum.left ? 'right' : 'left'"}, "dx": {"expr": "datum.left ? -5 : 5"}}
    nearest = {"type": "point", "nearest": True, "on": "pointerover", "clear": "pointerout"}
    near, few = {"param": "near", "empty": False, "value": 1}, {"test": "datum.shown", "value": 1}
    told = [
        {"field": "name", "type": "nominal", "title": words.line},
        {"field": "step", "type": "quantitative", "title": words.step, "format": ","},
        {"field": "text", "type": "nominal", "title": words.value},
    ]
    layers: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        (
            "band",
            {"type": "area", "opacity": 0.2, "tooltip": None},
            {**edge, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
        ),
        ("faint", {"type": "line", "strokeWidth": 1, "opacity": 0.4, "tooltip": None}, line),
        ("line", {"type": "line", "strokeWidth": 2, "strokeJoin": "round", "tooltip": None}, line),
        (
            "broken",
            {"type": "rule", "strokeDash": [2, 3], "strokeWidth": 1.5, "tooltip": None},
            {"x": x, "color": colour},
        ),
        ("broken", {**label, **beside}, {**text, "y": {"value": "height"}}),
        (
            "room",
            {**label, "align": "left", "dx": 7, "opacity": 0, "aria": False},
            {**text, "y": {"value": 0}},
        ),
        ("end", {**label, "align": "left", "dx": 7}, {**text, "y": y}),
        (
            "dot",
            {"type": "point", "filled": True, "size": 36},
            {
                "x": x,
                "y": y,
                "color": colour,
                "opacity": {"condition": [near, few], "value": 0},
                "tooltip": told,
            },
        ),
    ]
    return {
        "data": {"name": DATA},
        "title": {"text": words.title, "anchor": "start", "fontSize": 14, "fontWeight": 600, "offset": 10},
        "height": height,
        "padding": {"left": 2, "top": 2, "right": 2, "bottom": 2},
        "layer": [
            {
                **({"params": [{"name": "near", "select": nearest}]} if part == "dot" else {}),
                "transform": [{"filter": f"datum.part === '{part}'"}],
                "mark": mark,
                "encoding": encoding,
            }
            for part, mark, encoding in layers
            if part in parts
        ],
    }


def _value_scale(log_values: bool, share: bool) -> dict[str, Any]:
    if log_values:
        return {"type": "log"}
    return {"type": "linear", "domain": [0, 1]} if share else {"type": "linear", "zero": True, "nice": True}


def _value_ticks(log_values: bool, share: bool) -> dict[str, Any]:
    if not log_values:
        short = "abs(datum.value) >= 1e3 ? format(datum.value, '~s') : format(datum.value, '~g')"
        return {**({"format": "%"} if share else {"labelExpr": short}), "tickCount": 5, "gridOpacity": 0.3}
    # Only powers of ten are named and get a line of the grid; over few of them, also 2 and 5 times one.
    digit = "round(datum.value / pow(10, floor(log(datum.value) / LN10 + 1e-9)))"
    few = "log(domain('y')[1] / domain('y')[0]) / LN10 < 2.2"
    named = f"({digit} == 1 || ({few} && indexof([2, 5], {digit}) >= 0))"
    return {
        "labelExpr": f"{named} ? format(datum.value, '~g') : ''",
        "gridOpacity": {"condition": {"test": named, "value": 0.3}, "value": 0},
    }


def run_colours(norms: Mapping[str, str]) -> dict[str, str]:
    """A colour for each run or group of runs: that of its norm where the norm tells them apart.

    Args:
        norms: The norm of each, by its name.
    """
    kinds = list(norms.values())
    if len(kinds) > 1 and len(set(kinds)) == len(kinds) and set(kinds) <= set(NORMS):
        return {name: NORMS[kind] for name, kind in norms.items()}
    return {name: RUNS[place % len(RUNS)] for place, name in enumerate(norms)}
