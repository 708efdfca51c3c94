"""The page that starts trainings: form, address and recipe say the same; nothing typed is lost; bad data starts nothing."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from streamlit.testing.v1 import AppTest

from lab.runs.estimate import facts_of_data
from lab.runs.laboratory import Laboratory
from lab.runs.presets import preset_names, read_preset
from lab.runs.settings import read_settings
from lab.runs.store import UNFINISHED
from lab.ui.estimates import facts_of
from lab.ui.language import speaking
from lab.ui.recipe_form import PROBES, Choice, Switch, form_fields, recipe_values
from transformer.data.pairs import Pair, read_pairs
from transformer.recipe import Recipe, prepare

ROOT = Path(__file__).parents[1]
HIDDEN = {"data.swap"}
GOOD = "".join(f"word{number} here\there {number}\n" for number in range(40))
START = "Start training"


@pytest.fixture(autouse=True)
def _nothing_runs(monkeypatch, measured_machine):
    """Runs are queued, and no worker is started."""
    monkeypatch.setattr(Laboratory, "watch", lambda self, at_once=False: None)


def lab() -> Laboratory:
    return Laboratory(read_settings())


def open_page(language: str = "en", **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120)
    app.query_params["lang"] = language
    app.run()
    app.switch_page("pages/train.py")
    for name, value in query.items():
        app.query_params[name.replace("__", ".")] = value
    app.run()
    assert not app.exception, app.exception
    return app


def address(app: AppTest) -> dict[str, str]:
    asked = {key: [values] if isinstance(values, str) else values for key, values in app.query_params.items()}
    return {key: values[0] for key, values in asked.items() if key != "lang"}


def start(app: AppTest):
    return next(button for button in app.button if button.label == START)


def newest():
    return lab().store.runs()[0]


def field(app: AppTest, key: str, base: str = "reverse"):
    with speaking("en"):
        kind = form_fields()[key]
    widgets = (
        app.selectbox
        if isinstance(kind, Choice)
        else app.button_group
        if isinstance(kind, Switch)
        else app.text_area
        if key == PROBES
        else app.text_input
    )
    return named(widgets, f"{base}/{key}/")


def named(widgets, name: str):
    """The one widget whose name begins so; it ends with a number that counts up."""
    (found,) = [each for each in widgets if each.key.startswith(name)]
    return found


def change(app: AppTest, key: str, value: str, base: str = "reverse") -> AppTest:
    field(app, key, base).set_value(value).run()
    assert not app.exception, app.exception
    return app


def said(app: AppTest) -> str:
    return "\n".join(
        each.value for each in (*app.error, *app.warning, *app.info, *app.caption, *app.markdown)
    )


@pytest.mark.parametrize("name", preset_names())
def test_every_setting_of_a_preset_stands_on_the_page_and_starts_as_it_is(name):
    app = open_page(preset=name)
    with speaking("en"):
        keys = set(form_fields()) - HIDDEN
    for key in keys:
        field(app, key, name)
    assert address(app) == {"preset": name}
    start(app).click().run()
    run = newest()
    recipe = read_preset(name)
    assert run.state == "queued"
    assert recipe_values(Recipe.from_dict(run.spec)) == recipe_values(recipe)


def test_a_link_prepares_a_training_and_only_what_differs_stands_in_it():
    app = open_page(
        preset="sort", model__norm="post", training__seed="3", training__steps="800", training__peak="3e-3"
    )
    assert field(app, "model.norm", "sort").value == "post"
    assert field(app, "training.seed", "sort").value == "3"
    assert field(app, "training.peak", "sort").value == "3e-3"
    assert address(app) == {"preset": "sort", "model.norm": "post", "training.seed": "3"}
    change(app, "model.norm", "pre", "sort")
    change(app, "model.d_model", "32", "sort")
    assert address(app) == {"preset": "sort", "training.seed": "3", "model.d_model": "32"}
    start(app).click().run()
    spec = newest().spec
    assert (spec["model"]["norm"], spec["model"]["d_model"], spec["training"]["seed"]) == ("pre", 32, 3)


@pytest.mark.parametrize(
    ("key", "text", "answer"),
    [
        ("training.steps", "abc", "no whole number from 1 to"),
        ("training.steps", "", "no whole number"),
        ("model.num_heads", "5", "shared out evenly"),
        ("training.beta2", "1", "to below 1"),
        ("model.encoder_layers", "1001", "0 to 1,000"),
        ("data.max_length", "129", "do not fit"),
        (PROBES, "1 2 3", "an arrow"),
    ],
)
def test_a_wrong_value_stays_where_it_is_and_nothing_starts(key, text, answer):
    app = change(open_page(), key, text)
    assert field(app, key).value == text
    assert answer in said(app).replace("\\", "")
    assert start(app).disabled
    assert address(app) == {"preset": "reverse", key: text}
    # The same after a refresh, which is a new session with the address.
    again = open_page(**{key.replace(".", "__"): text})
    assert field(again, key).value == text
    assert start(again).disabled


def test_what_is_wrong_is_said_in_chinese_too():
    app = open_page("zh")
    change(app, "training.steps", "abc")
    assert "“abc”不是 1 到" in said(app).replace("\\", "")


def test_an_address_that_asks_for_what_there_is_not_is_answered_and_opens():
    app = open_page(preset="no", training__stepz="5", model__norm="odd", clone="zzzz")
    assert "no preset “no”" in said(app)
    assert "training.stepz" in said(app).replace("\\", "")
    assert "“odd” is none of" in said(app)
    assert "“zzzz”" in said(app)
    assert address(app) == {"preset": "reverse"}
    assert not start(app).disabled


def test_changes_belong_to_their_preset_and_are_there_again():
    app = change(open_page(), "training.steps", "77")
    base = named(app.button_group, "train_base/")
    base.set_value("sort").run()
    assert address(app) == {"preset": "sort"}
    named(app.button_group, "train_base/").set_value("reverse").run()
    assert field(app, "training.steps").value == "77"
    assert address(app) == {"preset": "reverse", "training.steps": "77"}
    next(button for button in app.button if button.label == "Undo all changes").click().run()
    assert field(app, "training.steps").value == str(read_preset("reverse").training.steps)
    assert address(app) == {"preset": "reverse"}


def test_another_task_brings_its_own_probe_sentences():
    app = change(open_page(), "data.task", "cause_effect")
    assert "because" in field(app, PROBES).value or "因为" in field(app, PROBES).value
    assert not start(app).disabled


def test_a_run_is_cloned_with_all_its_settings():
    recipe = read_preset("addition")
    recipe = replace(recipe, training=replace(recipe.training, seed=41, beta2=0.95))
    run_id = lab().start(recipe, name="first", owner="somebody")
    app = open_page(clone=run_id)
    assert address(app) == {"clone": run_id}
    assert field(app, "training.seed", f"run-{run_id}").value == "41"
    change(app, "model.norm", "post", f"run-{run_id}")
    assert address(app) == {"clone": run_id, "model.norm": "post"}
    start(app).click().run()
    spec = newest().spec
    assert (spec["model"]["norm"], spec["training"]["beta2"], spec["data"]["task"]) == (
        "post",
        0.95,
        "addition",
    )


def own_run() -> str:
    pairs = [Pair(source=f"a {number}", target=f"{number} b") for number in range(30)]
    recipe = replace(
        read_preset("reverse"),
        data=replace(read_preset("reverse").data, task="", train="train.tsv.gz", dev="dev.tsv.gz"),
        probes=(),
    )
    return lab().start(recipe, name="own", owner="somebody", pairs=(pairs[:25], pairs[25:]))


def test_a_run_on_own_data_is_cloned_with_its_pairs():
    first = own_run()
    app = open_page(clone=first)
    assert not start(app).disabled
    start(app).click().run()
    run = newest()
    assert run.id != first
    for part in ("train.tsv.gz", "dev.tsv.gz"):
        old, new = (lab().folder(each) / "data" / part for each in (first, run.id))
        assert old.read_bytes() == new.read_bytes()


def test_a_run_whose_pairs_are_gone_says_so():
    first = own_run()
    (lab().folder(first) / "data" / "train.tsv.gz").unlink()
    app = open_page(clone=first)
    assert "not here" in said(app)
    assert start(app).disabled
    assert "shipped-en-zh" in address(open_page(clone="shipped-en-zh"))["clone"]


def paste(app: AppTest, text: str) -> AppTest:
    named(app.text_area, "own_text/").set_value(text).run()
    assert not app.exception, app.exception
    return app


def test_own_pairs_are_pasted_shown_kept_and_started():
    app = open_page(preset="own")
    assert start(app).disabled
    assert "no table yet" in said(app)
    paste(app, GOOD)
    assert "40 pairs" in said(app)
    assert not start(app).disabled
    table = address(app)["table"]
    again = open_page(preset="own", table=table)
    assert named(again.text_area, "own_text/").value == GOOD
    start(again).click().run()
    run = newest()
    assert run.spec["data"]["train"]
    assert len(run.spec["probes"]) == 3
    train, dev = (
        read_pairs(lab().folder(run.id) / "data" / run.spec["data"][part]) for part in ("train", "dev")
    )
    assert (len(train), len(dev)) == (36, 4)
    assert {(pair.source, pair.target) for pair in (*train, *dev)} == {
        tuple(line.split("\t")) for line in GOOD.splitlines()
    }


def test_bad_lines_are_named_and_nothing_starts_until_they_are_left_out():
    app = paste(open_page(preset="own"), f"{GOOD}alone\n\tempty\n")
    assert "2 lines" in said(app)
    html = "".join(each.value for each in app.get("html") if hasattr(each, "value")) or str(app.get("html"))
    assert "Line 41: there is only one column" in html
    assert "Line 42: the source is empty" in html
    assert start(app).disabled
    named(app.button_group, "own/own.leave_out/").set_value(True).run()
    assert not start(app).disabled
    assert address(app)["own.leave_out"] == "true"
    start(app).click().run()
    assert newest().spec["data"]["train"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("one column\nonly\n", "No line has two columns"),
        ("a\tb\n", "at least 10"),
        ("a\0b\tc\n", "zero bytes"),
        ("x" * 5_000_001, "more than 5 MB"),
    ],
)
def test_a_table_that_cannot_be_used_is_answered_and_kept_in_its_field(text, answer):
    app = paste(open_page(preset="own"), text)
    assert answer in said(app).replace("\\", "")
    assert named(app.text_area, "own_text/").value == text
    assert start(app).disabled


def test_a_table_that_is_no_longer_kept_is_asked_for_again():
    app = open_page(preset="own", table="0" * 32)
    assert "no longer kept" in said(app)
    assert start(app).disabled


def test_the_example_is_real_and_starts():
    app = open_page(preset="own")
    next(button for button in app.button if button.label == "Try it with an example").click().run()
    assert "400 pairs" in said(app)
    assert not start(app).disabled


def test_how_many_are_held_out_is_checked():
    app = paste(open_page(preset="own"), GOOD)
    named(app.text_input, "own/own.dev/").set_value("30").run()
    assert "choose from 1 to 20" in said(app)
    assert start(app).disabled
    named(app.text_input, "own/own.dev/").set_value("20").run()
    assert not start(app).disabled


@pytest.mark.parametrize(
    ("changed", "answer"),
    [
        ({"training__steps": "300000"}, "300,000 steps are too many"),
        ({"model__d_model": "4096", "model__d_ff": "65536"}, "parameters; 50,000,000 are allowed"),
        ({"data__max_length": "3"}, "too little is left"),
        ({"data__task": "cause_effect", "data__task_dev": "5000"}, "no 5,000 different examples"),
        ({"data__task_train": "1000001"}, "At most 1,000,000 examples"),
        ({"data__task_dev": "20001"}, "At most 20,000 examples"),
        ({"preset": "anaphora", "model__tied_embeddings": "all"}, "two vocabularies of the same size"),
    ],
)
def test_what_cannot_go_well_is_refused_in_a_sentence(changed, answer):
    app = open_page(**changed)
    assert answer in said(app).replace("\\", "")
    assert start(app).disabled


def test_what_needs_more_memory_or_disk_than_is_free_is_refused(monkeypatch):
    app = open_page()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=200_000_000))
    app.run()
    assert "GB of memory, and 0.18 GB are free" in said(app).replace("\\", "")
    assert start(app).disabled
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    app.run()
    assert "GB of disk, and 0.001 GB are free" in said(app).replace("\\", "")
    assert start(app).disabled


def test_the_estimate_follows_the_settings(measured_machine):
    app = open_page(training__steps="500")
    recipe = replace(read_preset("reverse"), training=replace(read_preset("reverse").training, steps=500))
    assert f"**{prepare(recipe).trainer.model.num_parameters():,}** parameters" in said(app)
    assert "about **5 s**" in said(app) or "about **6 s**" in said(app)
    change(app, "training.steps", "2000")
    assert "about **20 s**" in said(app) or "about **21 s**" in said(app)
    change(app, "model.d_ff", "256")
    wider = replace(recipe, model={**recipe.model, "d_ff": 256})
    assert f"**{prepare(wider).trainer.model.num_parameters():,}** parameters" in said(app)


def test_many_examples_are_estimated_from_a_sample():
    many = read_preset("reverse")
    many = replace(many, data=replace(many.data, task_train=60_000))
    sampled, whole = facts_of(many, None), facts_of_data(many)
    assert sampled.train.shape == whole.train.shape
    assert sampled.dev.shape == whole.dev.shape
    assert sampled.train.mean() == pytest.approx(whole.train.mean(), rel=0.02)
    assert sampled.text_bytes == pytest.approx(whole.text_bytes, rel=0.02)
    assert (sampled.source_size, sampled.target_size) == (whole.source_size, whole.target_size)


def test_what_waits_before_is_counted():
    before = len(lab().store.runs(states=UNFINISHED))
    lab().start(read_preset("reverse"), name="before", owner="somebody")
    assert f"{before + 1} runs are before it" in said(open_page())


def test_several_seeds_are_started_as_one_group():
    app = open_page(training__seed="7", repeat="3")
    assert address(app) == {"preset": "reverse", "training.seed": "7", "repeat": "3"}
    start(app).click().run()
    runs = lab().store.runs()[:3]
    assert sorted(run.spec["training"]["seed"] for run in runs) == [7, 8, 9]
    assert len({run.group for run in runs}) == 1
    assert runs[0].group
    assert len({run.name for run in runs}) == 3
    app = open_page(repeat="11")
    assert start(app).disabled
    assert "1 to 10" in said(app) or "1 \\to 10" in said(app)


def test_a_name_is_kept_and_given():
    app = open_page()
    named(app.text_input, "reverse/name/").set_value(" <b>mine</b> ").run()
    assert address(app)["name"] == " <b>mine</b> "
    start(app).click().run()
    assert newest().name == "<b>mine</b>"


def test_a_broken_preset_is_answered_in_a_sentence(tmp_path, monkeypatch):
    from lab.runs import presets

    (tmp_path / "odd.toml").write_text("[model]\nnorm = 7\n")
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    app = open_page()
    assert "cannot be read" in said(app)
    assert address(app) == {"preset": "odd"}


def test_a_run_that_is_deleted_while_it_is_cloned_leaves_the_first_preset():
    run_id = own_run()
    app = open_page(clone=run_id)
    lab().stop(run_id)
    lab().delete(run_id)
    app.run()
    assert not app.exception
    assert address(app)["preset"] == "reverse"
