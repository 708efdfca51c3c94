"""Pictures of positional encodings (section 3.5). Arrays in, Plotly figures out; nothing is computed here but places.

Zero is transparent in every heatmap, so that it has the colour of the paper in light and in dark mode.

Legend: T positions, S tokens, D model width, H heads.
"""

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

Array = NDArray[np.float32]

CONFIG = {"showSendToCloud": False, "displaylogo": False, "scrollZoom": False}

NEGATIVE, POSITIVE = "#B5722B", "#23919C"
# Legible on light and on dark paper; none of these hues has a meaning elsewhere.
WAVES = ("#9467BD", "#D1495B", "#3B8EA5", "#9A8C2C")
WITH_POSITIONS, WITHOUT_POSITIONS = POSITIVE, NEGATIVE
MUTED = "rgba(128,128,128,0.55)"
FAINT = "rgba(128,128,128,0.18)"
FONT_SIZE = 13
MAX_PAIRS = len(WAVES)
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def rgba(colour: str, opacity: float) -> str:
    """A colour ``#rrggbb`` with an opacity from 0 to 1."""
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


DIVERGING = [
    [0.0, rgba(NEGATIVE, 1)],
    [0.5, rgba(NEGATIVE, 0)],
    [0.5, rgba(POSITIVE, 0)],
    [1.0, rgba(POSITIVE, 1)],
]


def wave_figure(
    table: Array, frequencies: Array, pairs: Sequence[int], *, position: str, dimension: str, value: str
) -> go.Figure:
    """Waves of some pairs of dimensions above the whole table, over one axis of positions.

    Args:
        table: Encodings (T, D): dots on the waves and cells of the heatmap.
        frequencies: Radians per position of each pair, (D / 2,): the thin line between the dots.
        pairs: Which pairs (2i, 2i + 1) to draw as waves, at most `MAX_PAIRS`.
        position: What the horizontal axis is called.
        dimension: What the heatmap's vertical axis is called.
        value: What a number of the table is called.
    """
    length, width = table.shape
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.45, 0.55], vertical_spacing=0.05)
    places = np.arange(length, dtype=np.float32)
    fine = np.linspace(0, length - 1, 12 * (length - 1) + 1, dtype=np.float32)
    ends: list[tuple[float, str, str]] = []
    for pair, colour in zip(pairs, WAVES, strict=False):
        for column, name, wave, dash in (
            (2 * pair, "sin", np.sin, "solid"),
            (2 * pair + 1, "cos", np.cos, "dot"),
        ):
            figure.add_scatter(
                x=fine,
                y=wave(fine * frequencies[pair]).astype(np.float32),
                mode="lines",
                line={"color": colour, "width": 1.5, "dash": dash},
                hoverinfo="skip",
            )
            figure.add_scatter(
                x=places,
                y=table[:, column],
                mode="markers",
                name=f"{name} {column}",
                marker={"color": colour, "size": 4 if length <= 96 else 2},
                hovertemplate=f"{position} %{{x}}<br>{dimension} {column}<br>{value} %{{y:.4f}}<extra></extra>",
            )
            ends.append((float(table[-1, column]), f"{column} {name}", colour))
    shifts = spread([end for end, *_ in ends], gap=0.24)
    for (_, text, colour), height in zip(ends, shifts, strict=True):
        figure.add_annotation(
            x=1, xref="x domain", y=height, yref="y", text=text, showarrow=False, xanchor="left", xshift=8,
            font={"color": colour, "size": FONT_SIZE},
        )  # fmt: skip
    figure.add_heatmap(
        z=table.T,
        colorscale=DIVERGING,
        zmin=-1,
        zmax=1,
        colorbar={
            "len": 0.52, "y": 0.0, "yanchor": "bottom", "thickness": 10, "x": 1.015, "tickvals": [-1, 0, 1],
        },
        hovertemplate=f"{position} %{{x}}<br>{dimension} %{{y}}<br>{value} %{{z:.4f}}<extra></extra>",
        row=2,
        col=1,
    )  # fmt: skip
    for pair, colour in zip(pairs, WAVES, strict=False):
        figure.add_shape(
            type="rect", xref="x2 domain", yref="y2", x0=-0.008, x1=-0.002, y0=2 * pair - 0.5, y1=2 * pair + 1.5,
            fillcolor=colour, line_width=0,
        )  # fmt: skip
    figure.update_yaxes(range=[-1.25, 1.25], tickvals=[-1, 0, 1], title=value, gridcolor=FAINT, row=1, col=1)
    figure.update_yaxes(autorange="reversed", title=dimension, showgrid=False, ticklabelshift=0, row=2, col=1)
    figure.update_yaxes(tickvals=number_ticks(width), ticklabelstandoff=8, row=2, col=1)
    figure.update_xaxes(showgrid=False, zeroline=False, range=[-0.5, length - 0.5])
    figure.update_xaxes(title=position, row=2, col=1)
    return finish(figure, height=450, right=90)


def similarity_figure(
    matrix: Array, *, largest: float, position: str, value: str, title: str = "", boundary: int | None = None
) -> go.Figure:
    """A square of how alike every two positions are.

    Args:
        matrix: Numbers (T, T).
        largest: The colours run from -largest to largest.
        position: What both axes are called.
        value: What a number is called.
        title: What stands above.
        boundary: Lines are drawn before this position, if given.
    """
    size = len(matrix)
    figure = go.Figure(
        go.Heatmap(
            z=matrix,
            colorscale=DIVERGING,
            zmin=-largest,
            zmax=largest,
            colorbar={"thickness": 10, "tickvals": [-largest, 0, largest], "tickformat": ".3~g"},
            hovertemplate=f"{position} %{{y}}, {position} %{{x}}<br>{value} %{{z:.4f}}<extra></extra>",
        )
    )
    if boundary is not None:
        line = {"color": MUTED, "width": 1.5, "dash": "dash"}
        figure.add_hline(y=boundary - 0.5, line=line)
        figure.add_vline(x=boundary - 0.5, line=line)
    ticks = number_ticks(size)
    figure.update_xaxes(
        title=position,
        tickvals=ticks,
        showgrid=False,
        zeroline=False,
        range=[-0.5, size - 0.5],
        constrain="domain",
    )
    figure.update_yaxes(
        title=position, tickvals=ticks, showgrid=False, zeroline=False, range=[size - 0.5, -0.5],
        scaleanchor="x", constrain="domain",
    )  # fmt: skip
    return finish(figure, height=400, right=20, title=title)


def offset_figure(
    products: Array,
    positions: Sequence[int],
    *,
    offset: str,
    value: str,
    position_symbol: str,
    title: str = "",
    observed: tuple[int, float, str] | None = None,
) -> go.Figure:
    """Dot products against the distance, one line a position, drawn narrower each so that lines that agree nest.

    Args:
        products: Dot products (T, T), row pos and column pos + k.
        positions: Which rows to draw, from the widest line to the narrowest.
        offset: What the horizontal axis is called.
        value: What a number is called.
        position_symbol: The symbol of the position a line belongs to.
        title: What stands above.
        observed: A distance, a number and its name, drawn as a point.
    """
    length = len(products)
    figure = go.Figure()
    widths = np.linspace(13, 1.5, len(positions)) if len(positions) > 1 else [3.0]
    for index, (row, width) in enumerate(zip(positions, widths, strict=True)):
        name = f"{position_symbol} = {row}"
        figure.add_scatter(
            x=np.arange(length, dtype=np.float32) - row,
            y=products[row],
            mode="lines",
            name=name,
            line={"color": shade(index, len(positions)), "width": float(width)},
            hovertemplate=f"{name}<br>{offset} %{{x}}<br>{value} %{{y:.4f}}<extra></extra>",
        )
    if observed is not None:
        distance, number, name = observed
        figure.add_scatter(
            x=[distance],
            y=[number],
            mode="markers",
            name=name,
            marker={
                "color": WAVES[1],
                "size": 13,
                "symbol": "diamond",
                "line": {"color": "white", "width": 1.5},
            },
            hovertemplate=f"{name}<br>{offset} %{{x}}<br>{value} %{{y:.4f}}<extra></extra>",
        )
    figure.update_xaxes(title=offset, showgrid=False, zeroline=True, zerolinecolor=FAINT)
    figure.update_yaxes(title=value, gridcolor=FAINT, zerolinecolor=MUTED)
    # The legend may be wider than the axes below it.
    legend = {
        "orientation": "h",
        "y": 1.0,
        "yanchor": "bottom",
        "x": 0.5,
        "xanchor": "center",
        "entrywidth": 62,
    }
    figure.update_layout(showlegend=True, legend=legend)
    return finish(figure, height=400, right=20, title=title, top=84)


def clock_figure(
    table: Array,
    pair: int,
    frequency: float,
    position: int,
    offset: int,
    *,
    sine: str,
    cosine: str,
    number: str,
) -> go.Figure:
    """One pair of dimensions as the hand of a clock: PE(pos), PE(pos + k) and the turn between them.

    Args:
        table: Encodings (T, D) that hold both positions.
        pair: The pair (2i, 2i + 1); its sine is drawn upwards and its cosine to the right.
        frequency: Radians per position of the pair.
        position: pos.
        offset: k, of either sign.
        sine: What the vertical axis is called.
        cosine: What the horizontal axis is called.
        number: What a position is called in the hover.
    """
    sines, cosines = table[:, 2 * pair], table[:, 2 * pair + 1]
    figure = go.Figure()
    figure.add_scatter(
        x=cosines,
        y=sines,
        mode="markers",
        marker={"color": MUTED, "size": 6},
        customdata=np.arange(len(table), dtype=np.float32),
        hovertemplate=f"{number} %{{customdata}}<br>{sine} %{{y:.4f}}<br>{cosine} %{{x:.4f}}<extra></extra>",
    )
    start, turn = position * frequency, offset * frequency
    # A turn of more than once round winds outwards, so that it can be counted.
    rounds = np.linspace(0, 1, max(2, math.ceil(abs(turn) / 0.05)), dtype=np.float32)
    radius = 0.38 + 0.05 * rounds * abs(turn) / (2 * math.pi)
    figure.add_scatter(
        x=(radius * np.cos(start + rounds * turn)).astype(np.float32),
        y=(radius * np.sin(start + rounds * turn)).astype(np.float32),
        mode="lines",
        line={"color": WAVES[1], "width": 3},
        hoverinfo="skip",
    )
    ends = (
        (position, WAVES[2], f"PE<sub>{position}</sub>"),
        (position + offset, WAVES[0], f"PE<sub>{position + offset}</sub>"),
    )
    for place, colour, name in ends:
        x, y = float(cosines[place]), float(sines[place])
        figure.add_annotation(
            x=x, y=y, ax=0, ay=0, xref="x", yref="y", axref="x", ayref="y", text="", showarrow=True, arrowhead=2,
            arrowwidth=3, arrowcolor=colour,
        )  # fmt: skip
        figure.add_scatter(
            x=[x],
            y=[y],
            mode="markers",
            name=name,
            marker={"color": colour, "size": 12},
            hovertemplate=f"{name}<br>{sine} %{{y:.4f}}<br>{cosine} %{{x:.4f}}<extra></extra>",
        )
    first, second = (math.atan2(float(sines[place]), float(cosines[place])) for place, *_ in ends)
    # Hands that nearly coincide get their names on both sides of them.
    close = math.cos(first - second) > 0.9
    side = 1 if math.sin(second - first) >= 0 else -1
    for angle, push, (_, colour, name) in zip((first, second), (-side, side), ends, strict=True):
        angle += 0.13 * push * close
        figure.add_annotation(
            x=1.25 * math.cos(angle), y=1.17 * math.sin(angle), text=name, showarrow=False,
            font={"color": colour, "size": 15},
        )  # fmt: skip
    axis = {"range": [-1.42, 1.42], "tickvals": [-1, 0, 1], "gridcolor": FAINT, "zerolinecolor": FAINT}
    figure.update_xaxes(title=cosine, constrain="domain", **axis)
    figure.update_yaxes(title=sine, scaleanchor="x", constrain="domain", **axis)
    return finish(figure, height=430, right=20)


def falling_figure(
    curves: Array, names: Sequence[str], *, distance: str, value: str, title: str
) -> go.Figure:
    """A number of each head against the distance, with the heads' names at the lines' ends.

    Args:
        curves: Numbers (H, T) for the distances 0 .. T - 1.
        names: The H names.
        distance: What the horizontal axis is called.
        value: What a number is called.
        title: What stands above.
    """
    heads, length = curves.shape
    figure = go.Figure()
    low, high = min(0.0, float(curves.min())), max(0.0, float(curves.max()))
    ends = spread(curves[:, -1].tolist(), gap=0.07 * (high - low))
    for head, (name, height) in enumerate(zip(names, ends, strict=True)):
        figure.add_scatter(
            x=np.arange(length, dtype=np.float32),
            y=curves[head],
            mode="lines",
            name=name,
            line={"color": shade(head, heads), "width": 2.5},
            hovertemplate=f"{name}<br>{distance} %{{x}}<br>{value} %{{y:.4f}}<extra></extra>",
        )
        figure.add_annotation(
            x=1, xref="x domain", y=height, yref="y", text=name, showarrow=False, xanchor="left", xshift=8,
            font={"size": FONT_SIZE},
        )  # fmt: skip
    beyond = 0.06 * (high - low)
    figure.update_xaxes(title=distance, showgrid=False, zeroline=False)
    figure.update_yaxes(
        title=value, gridcolor=FAINT, zerolinecolor=MUTED,
        range=[min(low, *ends) - beyond, max(high, *ends) + beyond],
    )  # fmt: skip
    return finish(figure, height=400, right=112, title=title)


def shuffle_figure(
    with_positions: Array, without_positions: Array, tokens: Sequence[str], *, on: str, off: str, value: str
) -> go.Figure:
    """How far the output of each token moves when the words are shuffled, on one scale for both models.

    Args:
        with_positions: Differences (S,) with positions.
        without_positions: Differences (S,) without.
        tokens: Their S surface strings.
        on: What stands above the bars with positions.
        off: What stands above the bars without.
        value: What a number is called.
    """
    places = np.arange(len(tokens), dtype=np.float32)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, subplot_titles=[off, on], vertical_spacing=0.14)
    bars = ((without_positions, WITHOUT_POSITIONS), (with_positions, WITH_POSITIONS))
    few = len(tokens) <= 20
    for row, (differences, colour) in enumerate(bars, start=1):
        figure.add_bar(
            x=places,
            y=differences,
            marker={"color": colour, "line": {"width": 0}},
            text=[short_number(number) if number >= 1e-3 else "≈0" for number in differences]
            if few
            else None,
            textposition="outside",
            textfont={"size": 12},
            constraintext="none",
            cliponaxis=False,
            customdata=np.asarray(tokens, dtype=str),
            hovertemplate=f"%{{customdata}}<br>{value} %{{y:.3g}}<extra></extra>",
            row=row,
            col=1,
        )
    highest = 1.22 * max(float(with_positions.max()), float(without_positions.max()), 1e-9)
    figure.update_yaxes(range=[0, highest], gridcolor=FAINT, zerolinecolor=MUTED, nticks=4)
    latin = any(character.isascii() and character.isalpha() for token in tokens for character in token)
    figure.update_xaxes(
        tickvals=places, ticktext=[plain(token) for token in tokens], showgrid=False, zeroline=False,
        range=[-0.6, len(tokens) - 0.4], autotickangles=[0, -40] if latin else [0], automargin=True,
        tickfont={"size": FONT_SIZE},
    )  # fmt: skip
    figure.update_annotations(font_size=14, x=0, xanchor="left")
    figure.add_annotation(
        text=value, textangle=-90, x=0, xref="paper", xshift=-52, y=0.5, yref="paper", showarrow=False,
        font={"size": FONT_SIZE},
    )  # fmt: skip
    return finish(figure, height=370, right=20, top=30, left=72)


def short_number(number: float) -> str:
    """Two significant digits; very small numbers with a power of ten."""
    if number == 0 or abs(number) >= 1e-3:
        return f"{number:.2g}"
    digits, exponent = f"{number:.1e}".split("e")
    return f"{digits}×10{str(int(exponent)).translate(SUPERSCRIPTS)}"


def plain(text: str) -> str:
    """Text that Plotly shows as it is, whatever tags or equations it looks like."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("$", "&#36;")


def shade(index: int, count: int) -> str:
    """The colour of line `index` of `count`: light below, strong on top."""
    share = index / max(count - 1, 1)
    light, strong = (0x6F, 0xBC, 0xC9), (0x7A, 0x51, 0x95)
    return f"rgb({','.join(str(round(a + share * (b - a))) for a, b in zip(light, strong, strict=True))})"


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights near the given ones, at least `gap` apart, in the same order, centred on the old ones."""
    order = sorted(range(len(heights)), key=lambda index: heights[index])
    groups: list[list[int]] = []

    def places(group: list[int]) -> list[float]:
        middle = sum(heights[index] for index in group) / len(group)
        return [middle + gap * (rank - (len(group) - 1) / 2) for rank in range(len(group))]

    for index in order:
        groups.append([index])
        while len(groups) > 1 and places(groups[-1])[0] - places(groups[-2])[-1] < gap:
            last = groups.pop()
            groups[-1] += last
    placed = {index: place for group in groups for index, place in zip(group, places(group), strict=True)}
    return [placed[index] for index in range(len(heights))]


def number_ticks(count: int) -> list[int]:
    """About eight round places of `count`, from 0."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128) if count / step <= 9)
    return list(range(0, count, step))


def finish(
    figure: go.Figure,
    *,
    height: int,
    right: int,
    title: str = "",
    top: int = 12,
    left: int = 60,
    bottom: int = 48,
) -> go.Figure:
    """What all pictures share."""
    if title:
        top = max(top, 40)
        above = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 8}, "font": {"size": 15}}
        figure.update_layout(title={"text": title, **above})
    if figure.layout.showlegend is None:
        figure.update_layout(showlegend=False)
    figure.update_layout(
        height=height, margin={"l": left, "r": right, "t": top, "b": bottom}, font={"size": FONT_SIZE},
        hoverlabel={"font": {"size": 14}}, dragmode=False,
    )  # fmt: skip
    figure.update_xaxes(tickfont_size=FONT_SIZE, title_font_size=FONT_SIZE)
    figure.update_yaxes(tickfont_size=FONT_SIZE, title_font_size=FONT_SIZE)
    return figure
