"""Settings side by side, seeds in groups, and samples marked, against what one reads by hand."""

import tomllib
from pathlib import Path

import pytest

from lab.figures.comparison import differences, marked, seed_groups, settings, shortened
from transformer.recipe import Recipe

PRESETS = Path(__file__).parents[2] / "assets" / "presets"


def spec(preset="reverse", **changes):
    values = tomllib.loads((PRESETS / f"{preset}.toml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values[section][key] = value
    return Recipe.from_dict(values).to_dict()


def test_only_settings_that_differ_are_told():
    table = differences([spec(), spec(model__norm="post", training__peak=1e-3), spec()])
    assert table == {"model.norm": ["pre", "post", "pre"], "training.peak": [3e-3, 1e-3, 3e-3]}
    assert differences([spec(), spec()]) == {}
    assert differences([spec()]) == {}


def test_a_default_is_the_same_as_its_value_written_out():
    given = spec()
    assert "attention" not in given["model"]
    assert differences([given, spec(model__attention="dot_product")]) == {}
    assert differences([given, spec(model__attention="additive")]) == {
        "model.attention": ["dot_product", "additive"]
    }


def test_every_setting_of_a_recipe_is_compared():
    given = spec("translation")
    flat = {
        f"{section}.{name}"
        for section, values in given.items()
        if isinstance(values, dict)
        for name in values
    }
    assert flat | {"probes"} <= set(settings(given))


def test_runs_that_differ_in_their_seed_alone_are_a_group():
    specs = {
        "a": spec(training__seed=1),
        "b": spec(model__norm="post"),
        "c": spec(training__seed=2),
        "d": spec(training__seed=2, data__task_seed=2),
        "e": spec(training__seed=3),
    }
    assert seed_groups(specs) == [["a", "c", "e"], ["b"], ["d"]]


@pytest.mark.parametrize(
    ("reference", "written", "pieces"),
    [
        ("6 2 9", "6 2 9", [("6", True), ("2", True), ("9", True)]),
        ("6 2 9", "6 3 9", [("6", True), ("3", False), ("9", True)]),
        ("6 2 9", "6 9", [("6", True), ("", False), ("9", True)]),
        ("6 9", "6 2 9", [("6", True), ("2", False), ("9", True)]),
        ("我爱猫", "我爱狗", [("我", True), ("爱", True), ("狗", False)]),
        ("6 2", "", [("", False), ("", False)]),
        ("", "1", [("1", False)]),
        ("", "", []),
    ],
)
def test_wrong_and_missing_pieces_are_marked(reference, written, pieces):
    assert marked(reference, written) == pieces


def test_names_are_shortened_by_how_wide_they_are():
    assert shortened("reverse", 7) == "reverse"
    assert shortened("reverse digits", 8) == "reverse…"
    assert shortened("倒写数字", 8) == "倒写数字"
    assert shortened("倒写数字练习", 8) == "倒写数…"
