"""The form of a training: every setting is in it, reads back what it writes, and is checked as the recipe checks it."""

import math
import random
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest

from lab.ui.language import speaking
from lab.ui.recipe_form import (
    CONFIGS,
    DERIVED,
    PROBES,
    WHOLE,
    Choice,
    Number,
    Switch,
    Whole,
    changes,
    form_fields,
    highest_rate,
    number_text,
    read_form,
    recipe_values,
    texts_of,
)
from transformer.config import ModelConfig
from transformer.data.tasks import TASKS
from transformer.optim import learning_rate
from transformer.recipe import ProbeConfig, Recipe, read_recipe

PRESETS = sorted((Path(__file__).parents[2] / "assets" / "presets").glob("*.toml"))
with speaking("en"):
    FIELDS = form_fields()


@pytest.fixture(autouse=True)
def english():
    with speaking("en"):
        yield


def preset(name: str = "reverse") -> Recipe:
    return read_recipe(PRESETS[0].parent / f"{name}.toml")


def built(key: str, value) -> Recipe:
    """A recipe with one setting of it changed, made without the form."""
    values = preset().to_dict()
    section, _, name = key.partition(".")
    values[section][name] = value
    # So that nothing but the range of this field decides.
    values["model"]["positions"] = values["model"]["positions"] if key == "model.positions" else "none"
    if key == "model.d_model":
        values["model"]["num_heads"] = 1
    if key == "model.num_heads":
        values["model"]["d_model"] = 65536
    return Recipe.from_dict(values)


def test_every_setting_of_a_recipe_stands_in_the_form():
    settings = {f"{section}.{each.name}" for section, config in CONFIGS.items() for each in fields(config)}
    sections = {each.name for each in fields(Recipe)}
    assert sections == {*CONFIGS, PROBES}
    assert {*FIELDS, *DERIVED} == {*settings, PROBES}
    assert not {*FIELDS} & {*DERIVED}


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_written_into_the_form_reads_as_the_same_recipe(path):
    recipe = read_recipe(path)
    filled = read_form(texts_of(recipe))
    assert filled.problems == {}
    assert recipe_values(filled.recipe) == recipe_values(recipe)
    full = {**ModelConfig(source_size=8, target_size=8).to_dict(), **recipe.model}
    assert filled.recipe == replace(
        recipe, model={name: full[name] for name in full if name not in ("source_size", "target_size")}
    )


def other_value(field, before):
    if isinstance(field, Whole):
        fitting = {"model.d_model": 32, "model.num_heads": 8, "model.max_length": 900, "data.max_length": 77}
        return fitting.get(field.key, field.low + 6)
    if isinstance(field, Number):
        return field.low + (0.0625 if field.below <= 1 else 3.5e-4)
    if isinstance(field, Choice):
        return next(name for name in field.names if name != before)
    return (ProbeConfig(source="1 2", target="2 1"), ProbeConfig(source="3", target="3"))


@pytest.mark.parametrize("key", FIELDS)
def test_a_change_of_any_field_arrives_in_the_recipe_and_nothing_else_changes(key):
    field = FIELDS[key]
    before = recipe_values(preset())
    value = not before[key] if isinstance(field, Switch) else other_value(field, before[key])
    assert value != before[key]
    texts = {**texts_of(preset()), key: field.write(value)}
    filled = read_form(texts)
    assert filled.problems == {}
    assert recipe_values(filled.recipe) == {**before, key: value}
    assert changes(texts, texts_of(preset())) == {key: field.write(value)}


@pytest.mark.parametrize("key", [key for key, each in FIELDS.items() if isinstance(each, Whole)])
def test_whole_numbers_have_the_range_that_the_configuration_allows(key):
    field = FIELDS[key]
    for value in (field.low, field.high):
        built(key, value)
        assert field.read(field.write(value)) == value
    for value in (field.low - 1, field.high + 1):
        with pytest.raises(ValueError, match=field.name):
            built(key, value)
        with pytest.raises(ValueError, match=str(value)):
            field.read(str(value))


@pytest.mark.parametrize("key", [key for key, each in FIELDS.items() if isinstance(each, Number)])
def test_numbers_have_the_range_that_the_configuration_allows(key):
    field = FIELDS[key]
    below = 1e300 if math.isinf(field.below) else math.nextafter(field.below, 0)
    for value in (float(field.low), below):
        built(key, value)
        assert field.read(field.write(value)) == value
    for value in (math.nextafter(field.low, -math.inf), float(field.below)):
        with pytest.raises(ValueError, match=field.name):
            built(key, value)
        with pytest.raises(ValueError, match="is no number"):
            field.read(repr(value))


@pytest.mark.parametrize("key", [key for key, each in FIELDS.items() if isinstance(each, Choice | Switch)])
def test_choices_are_those_that_the_configuration_allows(key):
    field = FIELDS[key]
    values = [True, False] if isinstance(field, Switch) else [*field.names]
    for value in values:
        built(key, value)
        assert field.read(field.write(value)) == value
    with pytest.raises(ValueError, match="none of"):
        field.read("maybe")
    if isinstance(field, Choice) and key != "data.task":
        kind = next(each.type for each in fields(CONFIGS[field.section]) if each.name == field.name)
        assert set(get_args(kind)) == set(values)
    if key == "data.task":
        assert values == [*TASKS]


def test_the_papers_values_are_those_of_the_base_model():
    # Where the paper says otherwise than a default here, or a default has no counterpart there.
    of_the_paper = {
        "model.tied_embeddings": "all",
        "training.steps": 100_000,
        "training.batch_tokens": 50_000,
        "source_vocabulary.size": 37_000,
        "target_vocabulary.size": 37_000,
        "data.task_train": 4_500_000,
    }
    for key, field in FIELDS.items():
        if field.paper is None:
            continue
        if key in of_the_paper:
            assert field.paper == of_the_paper[key]
        else:
            default = {each.name: each.default for each in fields(CONFIGS[field.section])}[field.name]
            assert field.paper == default


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("training.steps", " 1,200 ", 1200),
        ("training.steps", "1e3", 1000),
        ("training.steps", "１２００", 1200),
        ("training.peak", "3e-3", 0.003),
        ("training.peak", ".5", 0.5),
        ("training.epsilon", "1e-09", 1e-9),
        ("training.peak", "０．５", 0.5),
    ],
)
def test_numbers_are_read_as_people_write_them(key, text, value):
    assert FIELDS[key].read(text) == value


@pytest.mark.parametrize("text", ["", "abc", "nan", "inf", "1 2", "1,5", "--1", "0x10", "9" * 400, "1e999"])
@pytest.mark.parametrize("key", ["training.steps", "model.dropout", "training.peak"])
def test_what_is_no_number_is_answered_in_a_sentence(key, text):
    filled = read_form({**texts_of(preset()), key: text})
    assert filled.recipe is None
    assert set(filled.problems) == {key}
    with speaking("zh"):
        assert read_form({**texts_of(preset()), key: text}).problems[key] != filled.problems[key]


def test_numbers_are_written_as_short_as_they_can_be_read():
    generator = random.Random(1)
    for value in (
        3e-3,
        1e-9,
        10000.0,
        0.1,
        1e22,
        5e-324,
        *(generator.lognormvariate(0, 20) for _ in range(500)),
    ):
        assert float(number_text(value)) == value
    assert [number_text(value) for value in (3e-3, 1e-9, 10000.0, 0.0)] == ["0.003", "1e-9", "10000", "0"]


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"model.num_heads": "5"}, "model.num_heads"),
        ({"model.d_model": "36", "model.positions": "none"}, None),
        ({"model.d_model": "36", "model.num_heads": "12", "model.positions": "rotary"}, "model.positions"),
        ({"model.max_length": "99"}, "data.max_length"),
        ({"model.norm": "deepnorm", "model.residual": "false"}, "model.norm"),
        ({PROBES: "1 2 3"}, PROBES),
        ({PROBES: "1 2 → 2 1 → 3"}, PROBES),
        ({PROBES: "\n".join(["1 → 1"] * 13)}, PROBES),
        ({PROBES: f"{'1 ' * 70} → 1"}, PROBES),
    ],
)
def test_values_that_do_not_go_together_are_told_at_a_field(changed, key):
    filled = read_form({**texts_of(preset()), **changed})
    assert set(filled.problems) == ({key} if key else set())
    assert (filled.recipe is None) == bool(key)


def test_whatever_the_form_accepts_the_recipe_accepts_too():
    generator = random.Random(2)
    refused = 0
    for _ in range(400):
        texts = texts_of(preset())
        for key in generator.sample(sorted(FIELDS), 4):
            field = FIELDS[key]
            if isinstance(field, Choice):
                texts[key] = generator.choice([*field.names])
            elif isinstance(field, Switch):
                texts[key] = generator.choice(["true", "false"])
            elif isinstance(field, Whole):
                texts[key] = str(generator.randint(-1, 70))
        filled = read_form(texts)
        assert WHOLE not in filled.problems
        refused += filled.recipe is None
    assert 20 < refused < 380


def test_a_rule_that_the_form_lacks_is_still_told(monkeypatch):
    monkeypatch.setattr("lab.ui.recipe_form.misfits", lambda values: {})
    filled = read_form({**texts_of(preset()), "model.num_heads": "5"})
    assert filled.recipe is None
    assert "num_heads" in filled.problems[WHOLE]


def test_the_persons_own_files_take_the_place_of_a_task():
    filled = read_form(texts_of(preset()), train="train.tsv.gz", dev="dev.tsv.gz")
    assert (filled.recipe.data.task, filled.recipe.data.train, filled.recipe.data.dev) == (
        "", "train.tsv.gz", "dev.tsv.gz",
    )  # fmt: skip


def test_a_number_written_otherwise_is_no_change():
    base = texts_of(preset())
    assert changes({**base, "training.peak": "3e-3", "training.steps": " 1,000"}, base) == (
        {} if base["training.steps"] == "1000" else {"training.steps": " 1,000"}
    )
    assert changes({**base, "training.seed": "three"}, base) == {"training.seed": "three"}


@pytest.mark.parametrize("schedule", ["noam", "inverse_sqrt", "cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 1, 30, 200, 500])
def test_the_highest_rate_is_the_highest_of_all_steps(schedule, warmup):
    recipe = preset()
    training = replace(recipe.training, schedule=schedule, warmup_steps=warmup, steps=200)
    rates = [
        learning_rate(schedule, step, peak=training.peak, warmup_steps=warmup, total_steps=200, d_model=64)
        for step in range(1, 201)
    ]
    assert highest_rate(replace(recipe, training=training)) == pytest.approx(max(rates))
