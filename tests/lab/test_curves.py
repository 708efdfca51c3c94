"""Curves of trainings against numpy and plain loops, and their pictures against the grammar of Vega-Lite."""

import itertools
import json
import math

import altair
import numpy as np
import pytest

from lab.figures import curves as figures
from lab.figures.curves import Curve, Words

WORDS = Words(title="Loss", step="step", value="loss", line="line", broken="diverged at step {step}")


def chart(curves, **options):
    given = {"last_step": 100, "height": 266, **options}
    return figures.line_chart(curves, WORDS, **given)


def curve(steps, values, **options):
    return Curve(
        steps=np.array(steps), values=np.array(values, dtype=float), **{"colour": "#123456", **options}
    )


def part(picture, name):
    return picture.frame[picture.frame["part"] == name]


def noisy_run(seed, count=1000):
    random = np.random.default_rng(seed)
    return np.arange(1, count + 1), random.normal(size=count) ** 2


@pytest.mark.parametrize("block", [1, 2, 7, 50, 1000, 5000])
def test_means_of_blocks_are_means_of_so_many_steps(block):
    steps, values = noisy_run(0)
    places, means = figures.block_means(steps, values, block)
    expected = {}
    for step, value in zip(steps, values, strict=True):
        expected.setdefault((step - 1) // block, []).append((step, value))
    assert places.tolist() == [members[-1][0] for members in expected.values()]
    np.testing.assert_allclose(
        means, [sum(value for _, value in members) / len(members) for members in expected.values()]
    )


def test_means_of_blocks_of_steps_that_were_thinned_out_before():
    steps = np.array([2, 4, 6, 8, 10, 14])
    places, means = figures.block_means(steps, np.array([1.0, 3.0, 5.0, 7.0, 9.0, 11.0]), 5)
    assert places.tolist() == [4, 10, 14]
    assert means.tolist() == [2.0, 7.0, 11.0]


def test_a_block_ends_before_a_number_that_is_not_finite():
    steps, values = np.arange(1, 13), np.array([1.0, 2, 3, 4, np.nan, 6, np.inf, 8, 9, 10, np.nan, 12])
    places, means = figures.block_means(steps, values, 3)
    assert places.tolist() == [3, 4, 7, 10]
    np.testing.assert_array_equal(means, [2.0, 4.0, np.nan, 10.0])


@pytest.mark.parametrize("last", [1, 100, 130, 800, 2000, 20_000, 199_999, 10**8])
def test_blocks_are_round_and_leave_about_so_many_points(last):
    block = figures.block_size(last, 120)
    assert str(block).rstrip("0") in ("1", "2", "5")
    assert last / block <= 120
    assert block == 1 or last / block > 120 / 2.5 - 1


def test_mean_and_spread_are_those_of_numpy_at_the_steps_that_all_runs_have():
    runs = [noisy_run(seed, count) for seed, count in ((1, 40), (2, 60), (3, 50))]
    runs[1] = (runs[1][0][::2], runs[1][1][::2])
    spread = figures.mean_and_spread(runs)
    assert spread.steps.tolist() == list(range(1, 41, 2))
    every = np.array([[dict(zip(*run, strict=True))[step] for step in spread.steps] for run in runs])
    np.testing.assert_allclose(spread.mean, every.mean(axis=0))
    np.testing.assert_array_equal(spread.low, every.min(axis=0))
    np.testing.assert_array_equal(spread.high, every.max(axis=0))


def test_mean_and_spread_end_where_the_first_run_has_no_number():
    runs = [noisy_run(seed, 30) for seed in range(3)]
    runs[2][1][12] = np.nan
    assert figures.mean_and_spread(runs).steps.tolist() == list(range(1, 13))
    runs[0][1][0] = np.inf
    assert figures.mean_and_spread(runs).steps.size == 0


def test_runs_that_go_on_after_one_diverged_are_drawn_alone_and_the_break_is_marked():
    runs = [noisy_run(seed, 30) for seed in range(3)]
    runs[2][1][12:] = np.nan
    mean, *alone = figures.run_curves("pre", "#123456", runs)
    assert mean.steps[-1] == 12
    assert mean.low is not None
    assert [each.broken for each in alone] == [None, None, 13]
    assert [each.steps[-1] for each in alone] == [30, 30, 30]
    assert all(each.faint and not each.name for each in alone)
    # The line of a run of its own begins where the mean ends.
    assert [each.steps[0] for each in alone] == [12, 12, 12]


def test_a_run_without_others_has_no_band():
    steps, values = noisy_run(4, 100)
    (only,) = figures.run_curves("a", "#123456", [(steps, values)], block=10)
    assert only.low is None
    np.testing.assert_allclose(only.values, values.reshape(10, 10).mean(axis=1))


def test_a_line_does_not_run_over_a_number_that_is_not_there():
    values = [3.0, 2.0, math.nan, 1.0, math.inf, 0.5, 0.4]
    steps = [1, 2, 3, 4, 5, 6, 7]
    broken = figures.first_broken(np.array(steps), np.array(values))
    picture = chart([curve(steps, values, name="a", broken=broken)])
    line = part(picture, "line")
    assert line["step"].tolist() == [1, 2, 4, 6, 7]
    stretches = [list(group) for _, group in itertools.groupby(line["line"])]
    assert [len(stretch) for stretch in stretches] == [2, 1, 2]
    assert len({stretch[0] for stretch in stretches}) == 3
    (mark,) = part(picture, "broken").to_dict("records")
    assert (mark["step"], mark["text"]) == (3, "diverged at step 3")
    assert np.isfinite(picture.frame.loc[picture.frame["part"] != "broken", "step"]).all()


def test_nothing_but_no_numbers_is_a_picture_with_a_mark():
    picture = chart([curve([1, 2], [math.nan, math.inf], name="a", broken=1)])
    assert set(picture.frame["part"]) == {"broken", "room"}
    assert set(chart([]).frame["part"]) == {"room"}


def test_few_points_are_seen_and_many_can_be_pointed_at():
    few, many = (
        chart([curve(range(1, count + 1), np.arange(count) / count, name="a")]) for count in (1, 5000)
    )
    assert part(few, "dot")["shown"].all()
    dots = part(many, "dot")
    assert not dots["shown"].any()
    assert len(dots) == figures.POINTED_AT
    assert dots["step"].iloc[[0, -1]].tolist() == [1, 5000]


def test_names_stand_at_the_ends_with_the_last_number_and_do_not_cover_each_other():
    ends = [0.5, 0.501, 0.502, 0.9]
    picture = chart([curve([1, 100], [1.0, end], name=f"run {end}") for end in ends])
    rows = part(picture, "end").to_dict("records")
    assert [row["text"] for row in rows] == [
        "run 0.5 0.500",
        "run 0.501 0.501",
        "run 0.502 0.502",
        "run 0.9 0.900",
    ]
    height = 200
    placed = sorted(height * row["value"] - row["shift"] for row in rows)
    assert all(b - a >= figures.LINE_HEIGHT - 1e-6 for a, b in itertools.pairwise(placed))
    assert min(placed) >= 0


def test_names_do_not_cover_each_other_on_a_logarithmic_axis_which_ends_at_powers_of_ten():
    curves = [
        curve([1, 100], [4.0, 0.76], name="a", low=np.array([3.0, 0.3]), high=np.array([5.0, 2.0])),
        curve([1, 100], [4.0, 0.52], name="b"),
    ]
    rows = part(chart(curves, log_values=True), "end").to_dict("records")
    # From 0.1 to 10 in 200 pixels, so a power of ten is 100.
    heights = [100 * (math.log10(row["value"]) + 1) - row["shift"] for row in rows]
    assert heights[0] - heights[1] >= figures.LINE_HEIGHT - 1e-6
    assert sum(heights) / 2 == pytest.approx(100 + 50 * math.log10(0.76 * 0.52))


def test_room_is_kept_for_names_whatever_their_numbers():
    kept = [
        part(chart([curve([1, 2], [1.0, value], name=name) for name in ("a", "损失")]), "room")
        for value in (0.5, 1.23456e-7)
    ]
    assert [each["text"].tolist() for each in kept] == [["", "损失 0.0888"]] * 2


def test_the_axis_of_steps_is_in_the_numbers_so_that_a_picture_stays_the_same_while_it_grows():
    for curves in ([], [curve([1, 2], [1.0, 2.0])]):
        pictures = [chart(curves, last_step=last_step) for last_step in (100, 5000)]
        assert pictures[0].spec == pictures[1].spec
        assert [part(picture, "room")["step"].tolist() for picture in pictures] == [[0, 100], [0, 5000]]
    assert part(chart([], last_step=100, log_steps=True), "room")["step"].tolist() == [1, 100]


@pytest.mark.parametrize(
    "heights", [[0.0, 0.0, 0.0], [200.0, 200.0], [5.0, 100.0, 198.0, 200.0], [-8.0, 8.0]]
)
def test_names_stay_beside_the_axes(heights):
    placed = figures.within(figures.spread(heights, 16), 16, 200)
    assert min(placed) >= 8
    assert max(placed) <= 200
    assert all(b - a >= 16 - 1e-9 for a, b in itertools.pairwise(sorted(placed)))


def test_a_logarithmic_axis_shows_only_what_has_a_place_on_it():
    band = {"low": np.array([0.5, 0.0, 0.1]), "high": np.array([2.0, 1.0, 1.0])}
    picture = chart(
        [curve([1, 2, 3], [1.0, 0.5, 0.2], **band), curve([0, 1, 2], [4.0, 0.0, 3.0])],
        log_values=True,
        log_steps=True,
    )
    assert part(picture, "line")["value"].tolist() == [1.0, 0.2, 3.0]
    assert part(picture, "band")["low"].tolist() == [0.5, 0.1]
    scales = {
        layer["encoding"]["y"]["scale"]["type"]
        for layer in picture.spec["layer"]
        if "y" in layer["encoding"] and "scale" in layer["encoding"]["y"]
    }
    assert scales == {"log"}
    assert {layer["encoding"]["x"]["scale"]["type"] for layer in picture.spec["layer"]} == {"log"}


@pytest.mark.parametrize("options", [{}, {"log_values": True}, {"log_steps": True}, {"share": True}])
def test_pictures_are_vega_lite_and_nothing_in_them_is_smaller_than_12_pixels(options):
    runs = [noisy_run(seed, 50) for seed in range(3)]
    picture = chart([*figures.run_curves("a", "#123456", runs), curve([1], [0.5], faint=True)], **options)
    altair.Chart.from_dict({**picture.spec, "data": {"values": []}}, validate=True)
    text = json.dumps(picture.spec)
    sizes = [
        value
        for key, value in walk(json.loads(text))
        if key in ("fontSize", "labelFontSize", "titleFontSize")
    ]
    assert min(sizes) >= 12


def walk(value):
    if isinstance(value, dict):
        for key, each in value.items():
            yield key, each
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)


def test_the_description_stays_the_same_while_numbers_grow():
    """Otherwise the browser would draw a new picture each second."""
    steps, values = noisy_run(5, 400)
    specs = {
        json.dumps(chart([curve(steps[:count], values[:count], name="a")], last_step=400).spec)
        for count in (0, 1, 39, 41, 400)
    }
    assert len(specs) == 1


@pytest.mark.parametrize(
    ("number", "share", "text"),
    [
        (0.0, False, "0"),
        (0.5, False, "0.500"),
        (12.345, False, "12.3"),
        (123.4, False, "123"),
        (12345.6, False, "12,300"),
        (0.000123, False, "1.23×10⁻⁴"),
        (1.5e9, False, "1.50×10⁹"),
        (0.98765, True, "98.8 %"),
        (1.0, True, "100 %"),
        (math.nan, False, "NaN"),
        (math.inf, False, "∞"),
        (-math.inf, True, "−∞"),
    ],
)
def test_readable_numbers(number, share, text):
    assert figures.readable(number, share) == text


def test_runs_have_the_colour_of_their_norm_where_the_norm_tells_them_apart():
    assert figures.run_colours({"a": "pre", "b": "post"}) == {
        "a": figures.PRE_NORM,
        "b": figures.POST_NORM,
    }
    same = figures.run_colours({"a": "pre", "b": "pre", "c": "post"})
    assert len(set(same.values())) == 3
    assert not {figures.PRE_NORM, figures.POST_NORM, figures.DEEP_NORM} & set(same.values())
    assert figures.run_colours({"a": "pre"})["a"] not in figures.NORMS.values()
