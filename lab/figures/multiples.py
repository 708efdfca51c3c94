"""Small multiples: the same picture of curves over steps in a grid of panels, all on one scale, as one Vega-Lite view.

A view of facets has a fixed width in Streamlit; so the panels are placed here, side by side in one plane: a panel is
one unit wide and high, the first at the upper left, and what is read at a panel's edge is drawn as text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lab.figures.curves import DATA, Chart, Curve, readable, within
from lab.figures.positions import FONT_SIZE, MUTED, spread

# Units: from one panel to the next, with room for the numbers at the ends of lines, and for the headings of rows.
ACROSS, DOWN = 1.4, 1.32
# Pixels: a panel of a single row, and of several; title and padding; a line of text.
ALONE, PANEL_HEIGHT, AROUND = 190, 110, 44
LINE_HEIGHT = 14
# Legible on light and on dark paper; the theme does not colour text inside a view.
PLAIN_TEXT = "#7A7A7A"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One of the pictures.

    Attributes:
        row: Which row it is in, from 0.
        column: Which column it is in, from 0.
        curves: Its curves.
    """

    row: int
    column: int
    curves: Sequence[Curve]


@dataclass(frozen=True, kw_only=True)
class GridWords:
    """What the picture says, in the person's language.

    Attributes:
        title: What stands above.
        rows: Heading of each row.
        columns: Heading of each column.
        reference: What the dashed line is called.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    reference: str = ""


def small_multiples(
    panels: Sequence[Panel],
    words: GridWords,
    *,
    last_step: int,
    highest: float,
    reference: float | None = None,
) -> Chart:
    """Draw the panels.

    Args:
        panels: The pictures.
        words: What they say.
        last_step: Where each horizontal axis ends.
        highest: Where each vertical axis ends, which begins at 0; higher numbers are drawn there.
        reference: A number at which each panel has a dashed line, if given.
    """
    rows = [*_frames(words, highest, last_step, reference)]
    height = panel_height(len(words.rows))
    for panel in panels:
        rows += _curves(panel, last_step, highest, height)
    frame = pd.concat([pd.DataFrame(each) for each in rows], ignore_index=True).reindex(columns=COLUMNS)
    for name in TEXTS:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "")
    frame["dashed"] = frame["dashed"].eq(True)
    return Chart(spec=_spec(words, set(frame["part"])), frame=frame)


def panel_height(rows: int) -> int:
    """Pixels that a panel is high."""
    return ALONE if rows == 1 else PANEL_HEIGHT


def place(row: int, column: int) -> tuple[float, float]:
    """The lower left corner of a panel."""
    return ACROSS * column, -DOWN * row - 1.0


Rows = list[dict[str, Any]]
TEXTS = ("part", "line", "colour", "text")
COLUMNS = [*TEXTS, "dashed", "x", "y", "x2", "y2", "shift"]


def _text(part: str, x: float, y: float, text: str, **more: Any) -> dict[str, Any]:
    return {"part": part, "x": [x], "y": [y], "text": [text], **more}


def _frames(words: GridWords, highest: float, last_step: int, reference: float | None) -> Rows:
    """Edges, headings and what stands at the axes."""
    rows: Rows = []
    for column, title in enumerate(words.columns):
        rows.append(_text("column", place(0, column)[0], 0.0, title))
    for row, heading in enumerate(words.rows):
        rows.append(_text("row", 0.0, place(row, 0)[1] + 1.0, heading))
        for column in range(len(words.columns)):
            x, y = place(row, column)
            rows.append({"part": "frame", "x": [x], "y": [y], "x2": [x + 1.0], "y2": [y + 1.0]})
            if reference is not None:
                level = y + min(reference / highest, 1.0)
                rows.append({"part": "reference", "x": [x], "y": [level], "x2": [x + 1.0], "y2": [level]})
        x, y = place(row, 0)
        rows.append(_text("scale", x, y, "0"))
        rows.append(_text("scale", x, y + 1.0, readable(highest)))
        if reference is not None and words.reference:
            rows.append(_text("scale", x, y + min(reference / highest, 1.0), words.reference))
    for column in range(len(words.columns)):
        x, y = place(len(words.rows) - 1, column)
        rows.append(_text("start", x, y, "0"))
        rows.append(_text("finish", x + 1.0, y, f"{last_step:,}"))
    return rows


def _curves(panel: Panel, last_step: int, highest: float, pixels: int) -> Rows:
    """Lines and bands of a panel, and the last number of each line."""
    x0, y0 = place(panel.row, panel.column)

    def across(steps: Any) -> Any:
        return x0 + np.asarray(steps, dtype=float) / last_step

    def up(values: Any) -> Any:
        return y0 + np.clip(np.asarray(values, dtype=float) / highest, 0.0, 1.0)

    rows: Rows = []
    ends = []
    for number, curve in enumerate(panel.curves):
        finite = np.isfinite(curve.values)
        shared = {
            "line": f"{panel.row}.{panel.column}.{number}", "colour": curve.colour, "dashed": curve.dashed,
        }  # fmt: skip
        if curve.low is not None and curve.high is not None:
            rows.append(
                {
                    **shared, "part": "band", "x": across(curve.steps), "y": up(curve.low), "y2": up(curve.high),
                }
            )  # fmt: skip
        if finite.any():
            rows.append(
                {
                    **shared, "part": "faint" if curve.faint else "line", "x": across(curve.steps[finite]),
                    "y": up(curve.values[finite]),
                }
            )  # fmt: skip
        last = curve.values[-1] if curve.values.size else np.nan
        if not curve.faint and curve.values.size:
            height = float(up(last)) if np.isfinite(last) else y0 + 1.0
            ends.append((shared, float(across(curve.steps[-1])), height, float(last)))
    heights = [pixels * (height - y0) for _shared, _x, height, _last in ends]
    placed = within(spread(heights, LINE_HEIGHT), LINE_HEIGHT, pixels)
    for (shared, x, height, last), before, after in zip(ends, heights, placed, strict=True):
        rows.append(
            {
                **shared, "part": "end", "x": [x], "y": [height], "text": [readable(last)], "shift": before - after,
            }
        )  # fmt: skip
    return rows


def _spec(words: GridWords, parts: set[str]) -> dict[str, Any]:
    """What the picture looks like, whatever the numbers."""
    count_rows, count_columns = len(words.rows), len(words.columns)
    x = {
        "field": "x", "type": "quantitative", "axis": None,
        "scale": {"domain": [-0.1, ACROSS * count_columns], "nice": False, "zero": False},
    }  # fmt: skip
    pixels = panel_height(count_rows)
    # Room for two lines of text above, and one below.
    low, high = place(count_rows - 1, 0)[1] - 20 / pixels, 40 / pixels
    y = {
        "field": "y", "type": "quantitative", "axis": None,
        "scale": {"domain": [low, high], "nice": False, "zero": False},
    }  # fmt: skip
    area = {"x": x, "x2": {"field": "x2"}, "y": y, "y2": {"field": "y2"}}
    colour = {"field": "colour", "type": "nominal", "scale": None}
    dash = {"condition": {"test": "datum.dashed", "value": [5, 3]}, "value": [1, 0]}
    edge = {"x": x, "y": y, "color": colour, "detail": {"field": "line", "type": "nominal"}}
    line = {**edge, "strokeDash": dash}
    text = {"x": x, "y": y, "text": {"field": "text", "type": "nominal"}}
    # Over the heading of the first row, if it has one.
    above = -20 if any(words.rows) else -4
    label = {"type": "text", "fontSize": 12, "tooltip": None, "color": PLAIN_TEXT}
    layers: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("frame", {"type": "rect", "fillOpacity": 0, "stroke": MUTED, "strokeWidth": 0.8, "tooltip": None}, area),
        ("reference", {"type": "rule", "stroke": MUTED, "strokeDash": [4, 3], "tooltip": None}, area),
        ("band", {"type": "area", "opacity": 0.2, "tooltip": None}, {**edge, "y2": {"field": "y2"}}),
        ("faint", {"type": "line", "strokeWidth": 1, "opacity": 0.45, "tooltip": None}, line),
        ("line", {"type": "line", "strokeWidth": 2, "tooltip": None}, line),
        ("end", {**label, "align": "left", "dx": 4, "baseline": "middle", "fontWeight": 600, "dy": {"expr": "datum.shift"}},
         {**text, "color": colour}),
        ("column", {**label, "align": "left", "baseline": "bottom", "dy": above, "fontWeight": 600, "fontSize": FONT_SIZE}, text),
        ("row", {**label, "align": "left", "baseline": "bottom", "dy": -4}, text),
        ("scale", {**label, "align": "right", "baseline": "middle", "dx": -4, "opacity": 0.8}, text),
        ("start", {**label, "align": "left", "baseline": "top", "dy": 4, "opacity": 0.8}, text),
        ("finish", {**label, "align": "right", "baseline": "top", "dy": 4, "opacity": 0.8}, text),
    ]  # fmt: skip
    return {
        "data": {"name": DATA},
        "title": {"text": words.title, "anchor": "start", "fontSize": 14, "fontWeight": 600, "offset": 4},
        "height": AROUND + round(pixels * (high - low)),
        "padding": {"left": 2, "top": 2, "right": 2, "bottom": 2},
        "config": {"view": {"stroke": None}},
        "layer": [
            {"transform": [{"filter": f"datum.part === '{part}'"}], "mark": mark, "encoding": encoding}
            for part, mark, encoding in layers
            if part in parts
        ],
    }
