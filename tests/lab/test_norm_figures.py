"""Pictures of layers and small multiples against numbers that are computed another way, and against Vega-Lite's grammar."""

import json
import math

import altair
import numpy as np
import pytest

from lab.figures import multiples, norm
from lab.figures.curves import Curve
from lab.figures.multiples import GridWords, Panel
from lab.figures.norm import LayerWords

LAYERS = ("encoder.0", "encoder.1", "decoder.0")
WORDS = LayerWords(
    title="pre-norm", step="step", layer="layer", value="gradient, log scale", encoder="encoder {layer}",
    decoder="decoder {layer}",
)  # fmt: skip


def layer_map(steps, values, layers=LAYERS, **options):
    given = {"colours": (0.1, 10.0), "last_step": 20, "height": 300, **options}
    return norm.layer_map(np.array(steps), np.array(values, dtype=float), layers, WORDS, **given)


def part(chart, name):
    return chart.frame[chart.frame["part"] == name]


def test_every_measurement_is_a_cell_of_its_layer_that_reaches_halfway_to_its_neighbours():
    values = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    cells = part(layer_map([1, 10, 20], values), "cell")
    assert len(cells) == 9
    for row, name in enumerate(("encoder 1", "encoder 2", "decoder 1")):
        of_layer = cells[cells["layer"] == name].sort_values("step")
        assert of_layer["step"].tolist() == [1, 10, 20]
        assert of_layer["value"].tolist() == [line[row] for line in values]
        assert of_layer["left"].tolist() == [0, 5.5, 15]
        # Cells overlap by less than a hundredth of the width, and none goes beyond the last step.
        assert np.abs(of_layer["right"] - [5.5, 15, 20]).max() < 0.2
        assert of_layer["right"].max() <= 20
        assert set(of_layer["bottom"]) == {row}
        assert [float(text) for text in of_layer["text"]] == of_layer["value"].tolist()


def test_what_is_no_number_is_an_absent_cell_that_says_so():
    chart = layer_map([1, 10], [[1, math.nan, math.inf], [1, 2, 3]])
    absent = part(chart, "absent")
    assert sorted(zip(absent["layer"], absent["text"], strict=True)) == [
        ("decoder 1", "∞"),
        ("encoder 2", "NaN"),
    ]
    assert len(part(chart, "cell")) == 4


def test_colours_end_where_they_are_told_and_the_number_stays_true():
    cells = part(layer_map([1], [[1e-9, 5, 1e9]]), "cell").set_index("layer")
    assert cells.loc["encoder 1", "value"] == 0.1
    assert cells.loc["decoder 1", "value"] == 10
    assert cells.loc["encoder 1", "text"] == "1.00×10⁻⁹"
    assert part(layer_map([1], [[1, 1, 1]]), "range")["value"].tolist() == [0.1, 10.0]


def test_hundreds_of_layers_are_taken_together_by_their_geometric_mean():
    layers = [f"encoder.{index}" for index in range(100)] + [f"decoder.{index}" for index in range(100)]
    values = np.random.default_rng(0).uniform(0.5, 2, size=(2, 200))
    values[1, 7] = math.nan
    values[1, 13] = 0
    chart = layer_map([1, 20], values, layers)
    rows = norm.layer_rows(layers, WORDS)
    assert len(rows) <= norm.MOST_ROWS
    covered = [column for row in rows for column in range(row.first, row.last + 1)]
    assert covered == list(range(200))
    together = rows[0].last + 1
    assert rows[0].name == f"encoder 1–{together}"
    cells = part(chart, "cell")
    for row in rows:
        columns = values[0, row.first : row.last + 1]
        drawn = cells[(cells["layer"] == row.name) & (cells["step"] == 1)]["value"].item()
        assert drawn == pytest.approx(math.prod(columns) ** (1 / len(columns)))
    (absent,) = part(chart, "absent").to_dict("records")
    assert absent["layer"] == next(row.name for row in rows if row.first <= 7 <= row.last)
    zero = next(row.name for row in rows if row.first <= 13 <= row.last)
    assert cells[(cells["layer"] == zero) & (cells["step"] == 20)]["text"].item() == "0"


def test_a_stack_is_never_taken_together_with_the_other():
    for row in norm.layer_rows(["encoder.0"] * 3 + ["decoder.0"] * 98, WORDS):
        assert (row.first < 3) == (row.last < 3) == row.name.startswith("encoder")


def test_many_measurements_are_thinned_to_the_first_the_last_and_some_between():
    steps = np.arange(1, 1001)
    cells = part(layer_map(steps, np.ones((1000, 3)), last_step=1000), "cell")
    shown = sorted(set(cells["step"]))
    assert (shown[0], shown[-1], len(shown)) == (1, 1000, norm.MOST_COLUMNS)
    assert set(shown) <= set(steps)


def test_the_range_of_colours_is_shared_and_leaves_out_what_has_no_logarithm():
    tables = [np.array([[1.0, math.nan], [0.0, -3.0]]), np.array([[100.0, math.inf]])]
    low, high = norm.colour_range(tables)
    assert 1 <= low < high <= 100
    assert norm.colour_range([np.full((2, 2), 3.0)]) == (1.5, 6.0)
    assert norm.colour_range([np.full((2, 2), math.nan)]) == norm.colour_range([]) == (0.1, 1.0)


def test_a_picture_of_layers_is_vega_lite_and_stays_the_same_while_numbers_come_in():
    charts = [
        layer_map(*measured)
        for measured in (
            ([1], [[1, 2, 3]]), ([1, 10], [[1, 2, 3], [4, math.nan, 6]]), (np.zeros(0, dtype=int), np.zeros((0, 3))),
        )
    ]  # fmt: skip
    assert len({json.dumps(chart.spec) for chart in charts}) == 1
    altair.LayerChart.from_dict(charts[0].spec)
    assert charts[0].spec["layer"][0]["encoding"]["color"]["scale"]["type"] == "log"
    assert not charts[2].frame["part"].isin(["cell", "absent"]).any()


def test_names_of_layers_with_quotes_do_not_break_the_axis():
    words = LayerWords(
        title="", step="", layer="", value="", encoder="l'encodeur {layer}", decoder="d {layer}"
    )
    spec = norm.layer_map(
        np.array([1]), np.ones((1, 3)), LAYERS, words, colours=(1, 2), last_step=2, height=300
    ).spec
    assert "l\\'encodeur 1" in json.dumps(spec).replace("\\\\", "\\")


# Small multiples

GRID = GridWords(title="Loss", rows=("slow", "fast"), columns=("none", "some", "much"), reference="guess")


def curve(steps, values, **options):
    given = {"colour": "#123456", "name": "pre-norm", **options}
    return Curve(steps=np.array(steps), values=np.array(values, dtype=float), **given)


def grid(panels, **options):
    return multiples.small_multiples(panels, GRID, **{"last_step": 100, "highest": 4.0, **options})


def test_a_curve_stands_in_its_panel_at_the_panels_scale():
    steps, values = [0, 25, 100], [4.0, 3.0, 1.0]
    for row, column in ((0, 0), (1, 2)):
        line = part(grid([Panel(row=row, column=column, curves=[curve(steps, values)])]), "line")
        frames = part(grid([]), "frame").sort_values(["y", "x"], ascending=[False, True])
        frame = frames.iloc[row * 3 + column]
        across = (line["x"] - frame["x"]) / (frame["x2"] - frame["x"])
        up = (line["y"] - frame["y"]) / (frame["y2"] - frame["y"])
        assert across.tolist() == pytest.approx([0, 0.25, 1])
        assert up.tolist() == pytest.approx([1, 0.75, 0.25])


def test_panels_do_not_overlap_and_leave_room_for_the_last_numbers():
    frames = part(grid([]), "frame").to_dict("records")
    assert len(frames) == 6
    for one in frames:
        for other in frames:
            if one is not other:
                apart_x = other["x"] >= one["x2"] + 0.2 or one["x"] >= other["x2"] + 0.2
                assert apart_x or other["y"] >= one["y2"] or one["y"] >= other["y2"]


def test_what_is_too_high_is_drawn_at_the_top_with_its_true_number():
    chart = grid([Panel(row=0, column=0, curves=[curve([0, 100], [2.0, 9.0])])])
    assert part(chart, "line")["y"].max() == part(chart, "frame")["y2"].max()
    assert part(chart, "end")["text"].tolist() == ["9.00"]


def test_a_line_that_ends_without_a_number_says_so_and_is_not_drawn_there():
    chart = grid([Panel(row=0, column=0, curves=[curve([0, 50, 100], [2.0, 3.0, math.nan])])])
    assert len(part(chart, "line")) == 2
    assert part(chart, "end")["text"].tolist() == ["NaN"]


def test_the_reference_is_at_its_height_in_every_panel():
    chart = grid([], reference=1.0)
    lines, frames = part(chart, "reference"), part(chart, "frame")
    assert len(lines) == 6
    assert (lines["y"].to_numpy() - frames["y"].to_numpy()).tolist() == pytest.approx([0.25] * 6)
    assert "guess" in part(chart, "scale")["text"].tolist()


def test_a_grid_is_vega_lite_with_a_heading_for_each_row_and_column():
    band = curve([0, 100], [2.0, 1.0], low=np.array([1.5, 0.5]), high=np.array([2.5, 1.5]))
    chart = grid(
        [Panel(row=0, column=1, curves=[band, curve([0, 100], [1.0, 1.0], faint=True)])], reference=1.0
    )
    altair.LayerChart.from_dict(chart.spec)
    assert part(chart, "row")["text"].tolist() == ["slow", "fast"]
    assert part(chart, "column")["text"].tolist() == ["none", "some", "much"]
    bands = part(chart, "band")
    assert (bands["y2"] - bands["y"]).tolist() == pytest.approx([0.25, 0.25])
    assert len(part(chart, "end")) == 1


def test_last_numbers_do_not_cover_each_other():
    curves = [curve([0, 100], [2.0, end]) for end in (1.0, 1.01, 1.02, 1.03)]
    ends = part(grid([Panel(row=0, column=0, curves=curves)]), "end")
    pixels = multiples.panel_height(2)
    heights = sorted(pixels * (y + 1) - shift for y, shift in zip(ends["y"], ends["shift"], strict=True))
    assert min(np.diff(heights)) >= multiples.LINE_HEIGHT - 1e-6
