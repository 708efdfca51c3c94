"""Pictures of what normalisation and residual connection do: every layer of a training over its steps, and more.

Numbers in, Vega-Lite out, as in `lab.figures.curves`: a picture's description stays the same while its numbers grow.

Legend: N measured steps, L layers, R rows of a picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lab.figures.curves import DATA, Chart, Steps, Values, readable
from lab.figures.positions import FONT_SIZE

# So many cells a picture has at most: columns are left out, rows taken together.
MOST_COLUMNS, MOST_ROWS = 48, 40
# Colours leave out so many per cent of the numbers at each end; those are drawn in the last colour.
TAIL = 0.5
# Pixels of title, axis and legend, which a picture's height includes.
AROUND = 120
SCHEME = "viridis"
ABSENT = "#8A8A8A"
CORNERS, TEXTS = ("left", "right", "bottom", "top"), ("part", "layer", "text")
COLUMNS = [*TEXTS, *CORNERS, "value", "step"]


@dataclass(frozen=True, kw_only=True)
class LayerWords:
    """What a picture of layers says, in the person's language.

    Attributes:
        title: What stands above.
        step: What the horizontal axis is called.
        layer: What a row is called.
        value: What a number is called, with its unit and that its colours are logarithmic.
        encoder: What a layer of the encoder is called; ``{layer}`` is filled in.
        decoder: What a layer of the decoder is called; ``{layer}`` is filled in.
    """

    title: str
    step: str
    layer: str
    value: str
    encoder: str
    decoder: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a picture: some neighbouring layers of one stack.

    Attributes:
        first: Column of the first in the series.
        last: Column of the last.
        name: What it is called.
    """

    first: int
    last: int
    name: str


def layer_rows(layers: Sequence[str], words: LayerWords, most: int = MOST_ROWS) -> list[Row]:
    """The rows of a picture, from the input up: the encoder's layers, then the decoder's.

    Args:
        layers: Names as in a trace, ``encoder.0`` and so on.
        words: What the layers are called.
        most: Rows at most, if both stacks have a layer; more layers are taken together, equally many in each row.
    """
    together = math.ceil(len(layers) / most)
    rows = []
    for stack, text in (("encoder", words.encoder), ("decoder", words.decoder)):
        columns = [place for place, name in enumerate(layers) if name.startswith(f"{stack}.")]
        for start in range(0, len(columns), together):
            chosen = columns[start : start + together]
            numbers = f"{start + 1}" if len(chosen) == 1 else f"{start + 1}–{start + len(chosen)}"
            rows.append(Row(first=chosen[0], last=chosen[-1], name=text.format(layer=numbers)))
    return rows


def colour_range(tables: Sequence[Values]) -> tuple[float, float]:
    """The numbers between which colours run, the same in all pictures that are compared: all but a few at each end."""
    numbers = [table[np.isfinite(table) & (table > 0)] for table in tables]
    every = np.concatenate([np.ravel(each) for each in numbers]) if numbers else np.empty(0)
    if not every.size:
        return 0.1, 1.0
    low, high = np.percentile(every, [TAIL, 100 - TAIL])
    # A range without any extent has no colours.
    return (float(low), float(high)) if high > low * 1.001 else (float(low) / 2, float(high) * 2)


def edges(steps: Steps) -> Values:
    """Where the cells of measured steps meet: halfway between them, and from 0 to the last step at the ends (N + 1,)."""
    if not steps.size:
        return np.zeros(0)
    return np.concatenate([[0.0], (steps[:-1] + steps[1:]) / 2, [float(steps[-1])]])


def layer_map(
    steps: Steps,
    values: Values,
    layers: Sequence[str],
    words: LayerWords,
    *,
    colours: tuple[float, float],
    last_step: int,
    height: int,
) -> Chart:
    """Draw a number of each layer over the steps of a training, as a colour on a logarithmic scale.

    Numbers that are not finite are grey cells; what is not measured yet is no cell.

    Args:
        steps: Measured steps (N,).
        values: A number of each layer (N, L).
        layers: Names of the layers (L,).
        words: What the picture says.
        colours: The numbers of the first and the last colour; see `colour_range`.
        last_step: Where the horizontal axis ends.
        height: Height in pixels.
    """
    rows = layer_rows(layers, words)
    chosen = np.unique(np.linspace(0, max(steps.size - 1, 0), MOST_COLUMNS).round().astype(int))[: steps.size]
    steps, values = steps[chosen], values[chosen]
    borders = edges(steps)
    parts = []
    for place, row in enumerate(rows):
        numbers = row_numbers(values[:, row.first : row.last + 1])
        finite = np.isfinite(numbers)
        parts.append(
            pd.DataFrame(
                {
                    "part": np.where(finite, "cell", "absent"),
                    "left": borders[:-1],
                    # Cells overlap by a hair: no paper shines through between them.
                    "right": np.minimum(borders[1:] + 0.003 * last_step, last_step),
                    "bottom": float(place),
                    "top": place + 1.03,
                    "value": np.clip(np.where(finite, numbers, colours[0]), *colours),
                    "layer": row.name,
                    "step": steps.astype(float),
                    "text": [readable(number) for number in numbers],
                }
            )
        )
    # Nobody sees these two: they stretch the colours over the same range in all pictures.
    ends = pd.DataFrame({"part": "range", "value": list(colours), **dict.fromkeys(CORNERS, 0.0)})
    frame = pd.concat([*parts, ends], ignore_index=True).reindex(columns=COLUMNS)
    for name in TEXTS:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "")
    return Chart(spec=_map_spec(words, rows, last_step, height), frame=frame)


def row_numbers(values: Values) -> NDArray[np.float64]:
    """One number for neighbouring layers (N, K): their geometric mean; not finite if one is not; 0 if one is 0 or less."""
    if values.shape[1] == 1:
        return values[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.exp(np.mean(np.log(values), axis=1))
    broken = ~np.isfinite(values).all(axis=1)
    return np.where(broken, np.nan, np.where((values <= 0).any(axis=1), 0.0, means))


def _map_spec(words: LayerWords, rows: Sequence[Row], last_step: int, height: int) -> dict[str, object]:
    axis = {"labelFontSize": 12, "titleFontSize": FONT_SIZE, "titleFontWeight": "normal", "grid": False}
    # The first and the last layer of each stack are named, in the middle of their rows.
    stacks = [row.name for row in rows]
    first_decoder = next(
        (place for place, row in enumerate(rows) if row.name.startswith(_stem(words.decoder))), None
    )
    named = {0, len(rows) - 1}
    if first_decoder:
        named |= {first_decoder - 1, first_decoder}
    # Names of neighbours would cover each other in a low picture.
    if first_decoder and (height - AROUND) / max(len(rows), 1) < 14:
        named -= {first_decoder - 1}
    ticks = {place + 0.5: stacks[place] for place in sorted(named) if place >= 0}
    label = " : ".join(f"datum.value == {tick} ? '{_quoted(name)}'" for tick, name in ticks.items())
    x = {
        "field": "left",
        "type": "quantitative",
        "scale": {"domain": [0, max(last_step, 2)], "nice": False},
        "axis": {**axis, "title": words.step, "titlePadding": 4, "format": ",d", "tickCount": 4},
    }
    y = {
        "field": "bottom",
        "type": "quantitative",
        "scale": {"domain": [0, max(len(rows), 1)], "nice": False},
        "axis": {
            **axis, "title": None, "values": list(ticks), "labelExpr": f"{label} : ''", "ticks": False, "domain": False,
        },
    }  # fmt: skip
    colour = {
        "field": "value",
        "type": "quantitative",
        "scale": {"type": "log", "scheme": SCHEME, "nice": False},
        "legend": {
            "type": "gradient", "title": words.value, "orient": "bottom", "direction": "horizontal", "gradientThickness": 8,
            "gradientLength": {"expr": "width"}, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal",
            "titleLimit": 0, "format": "~g", "tickCount": 4, "offset": 4,
        },
    }  # fmt: skip
    told = [
        {"field": "layer", "type": "nominal", "title": words.layer},
        {"field": "step", "type": "quantitative", "title": words.step, "format": ","},
        {"field": "text", "type": "nominal", "title": words.value},
    ]
    cell = {"x": x, "x2": {"field": "right"}, "y": y, "y2": {"field": "top"}, "tooltip": told}
    return {
        "data": {"name": DATA},
        "title": {"text": words.title, "anchor": "start", "fontSize": 14, "fontWeight": 600, "offset": 8},
        "height": height,
        "padding": {"left": 2, "top": 2, "right": 2, "bottom": 2},
        "layer": [
            {
                "transform": [{"filter": "datum.part === 'cell'"}],
                "mark": {"type": "rect", "strokeWidth": 0},
                "encoding": {**cell, "color": colour},
            },
            {
                "transform": [{"filter": "datum.part === 'absent'"}],
                "mark": {"type": "rect", "color": ABSENT, "strokeWidth": 0},
                "encoding": cell,
            },
            {
                "transform": [{"filter": "datum.part === 'range'"}],
                "mark": {"type": "rect", "opacity": 0, "aria": False, "tooltip": None},
                "encoding": {name: each for name, each in cell.items() if name != "tooltip"}
                | {"color": colour},
            },
        ],
    }


def _stem(text: str) -> str:
    return text.partition("{")[0]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
