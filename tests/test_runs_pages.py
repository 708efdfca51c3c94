"""The pages of runs over a data folder of their own: states in words, curves against numpy, what can be clicked."""

import io
import json
import tomllib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from lab.runs.store import Samples, Series, to_json
from lab.ui import runs as shared
from transformer.recipe import Recipe

ROOT = Path(__file__).parents[1]
OWNER = "0123456789abcdef"


def recipe(**changes):
    values = tomllib.loads((ROOT / "assets" / "presets" / "reverse.toml").read_text(encoding="utf-8"))
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values[section][key] = value
    return Recipe.from_dict(values).to_dict()


def add(
    lab,
    name="a run",
    *,
    state="succeeded",
    step=1000,
    steps=1000,
    points=None,
    samples=None,
    changes=None,
    **columns,
):
    """A run as the store holds it."""
    run_id = lab.store.add(
        kind="training", name=name, owner=OWNER, group="", spec=recipe(**(changes or {})), steps=steps, state=state,
        step=step, seconds=75.0, **columns,
    )  # fmt: skip
    lab.store.add_points(run_id, {series: numbers(*each) for series, each in (points or {}).items()})
    if samples:
        with lab.store.transaction() as connection:
            connection.execute(
                "INSERT INTO samples VALUES (?, ?, ?)", (run_id, samples.step, to_json(samples.rows))
            )
    return run_id


def numbers(steps, values):
    return Series(steps=np.asarray(steps, dtype=np.int64), values=np.asarray(values, dtype=np.float64))


def visit(page, **query):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=90)
    asked = {"lang": "en", **query}
    app.query_params["lang"] = asked["lang"]
    app.run()
    app.switch_page(f"pages/{page}.py")
    for name, value in asked.items():
        app.query_params[name] = str(value)
    app.run()
    assert not app.exception, app.exception
    return app


def charts(app):
    """The numbers of each picture, by its title."""
    found = {}
    for chart in app.get("vega_lite_chart"):
        spec = json.loads(chart.proto.spec)
        table = pa.ipc.open_stream(io.BytesIO(chart.proto.datasets[0].data.data)).read_all()
        found[spec["title"]["text"]] = table.to_pandas()
    return found


def html(app):
    return " ".join(element.proto.body for element in app.get("html"))


def said(app):
    parts = [*app.markdown, *app.caption, *app.info, *app.warning, *app.error, *app.success]
    return " ".join([element.value for element in parts] + [each.proto.text for each in app.get("progress")])


def part(frame, name):
    return frame[frame["part"] == name]


@pytest.mark.parametrize("page", ["run", "runs"])
def test_without_runs_of_ones_own_the_shipped_trainings_are_shown(lab, page):
    app = visit(page)
    assert not app.error
    assert any(len(part(frame, "line")) for frame in charts(app).values())


@pytest.mark.parametrize(
    ("step", "steps", "end"),
    [(30, 1200, 1200), (3, 20_000, 1000), (700, 20_000, 1000), (1001, 20_000, 2000), (2100, 3000, 3000)],
)
def test_the_first_steps_of_a_long_run_are_seen(lab, step, steps, end):
    run_id = add(lab, step=step, steps=steps, state="running", points={"dev_loss": ([1, step], [2.0, 1.0])})
    for chart in charts(visit("run", run=run_id)).values():
        assert part(chart, "room")["step"].tolist() == [0, end]
    assert part(charts(visit("run", run=run_id, steps="log"))["Loss (nats per token)"], "room")[
        "step"
    ].tolist() == [1, end]


def test_a_run_shows_what_it_measured(lab):
    steps_, losses = np.arange(1, 1001), np.random.default_rng(0).normal(size=1000) ** 2
    points = {
        "train_loss": (steps_, losses),
        "dev_loss": ([500, 1000], [1.25, 0.5]),
        "accuracy": ([500], [0.75]),
    }
    app = visit("run", run=add(lab, points=points))
    found = charts(app)
    assert len(found) == 5
    loss = found["Loss (nats per token)"]
    strong = part(loss, "line")
    train, dev = strong[strong["name"] == "train"], strong[strong["name"] == "dev"]
    assert dev[["step", "value"]].values.tolist() == [[500, 1.25], [1000, 0.5]]
    # The thick line: means of ten steps, as the caption says. The thin one keeps the extremes.
    assert "each point is the mean of 10 steps" in said(app)
    np.testing.assert_allclose(train["value"], losses.reshape(-1, 10).mean(axis=1))
    thin = part(loss, "faint")
    assert len(thin) <= 402
    assert {losses.min(), losses.max()} <= set(thin["value"])
    assert part(loss, "end")["text"].tolist() == [f"train {losses[-10:].mean():#.3g}", "dev 0.500"]
    assert part(found["Right on held-out pairs"], "end")["text"].tolist() == ["tokens 75.0 %"]
    assert "finished" in said(app)
    assert "1 min 15 s" in said(app)
    assert "seed 1" in said(app)


def test_logarithmic_axes_say_so(lab):
    run_id = add(
        lab, points={"train_loss": ([1, 2, 3], [3.0, 2.0, 1.0]), "grad_norm": ([1, 2, 3], [3.0, 2, 1])}
    )
    assert "Gradient norm, log scale" in charts(visit("run", run=run_id))
    app = visit("run", run=run_id, steps="log", values="log")
    assert "Loss (nats per token), log scale" in charts(app)
    spec = json.loads(app.get("vega_lite_chart")[0].proto.spec)
    assert {layer["encoding"]["x"]["axis"]["title"] for layer in spec["layer"]} == {"step, log scale"}


def test_a_run_that_diverged_is_a_result_and_is_explained(lab):
    losses = [3.0, 9.0, float("nan")]
    run_id = add(
        lab, state="failed", step=3, points={"train_loss": ([1, 2, 3], losses)},
        error={"code": "diverged", "step": 3, "sentence": "x"},
    )  # fmt: skip
    for language, mark, explanation in (
        ("en", "diverged at step 3", "Try a smaller learning rate"),
        ("zh", "第 3 步发散", "更小的学习率"),
    ):
        app = visit("run", run=run_id, lang=language)
        loss = next(iter(charts(app).values()))
        assert part(loss, "broken")[["step", "text"]].values.tolist() == [[3, mark]]
        assert part(loss, "faint")["step"].tolist() == [1, 2]
        assert part(loss, "line")["value"].tolist() == [6.0]
        assert any(explanation in each.value for each in app.info)
        assert not app.error
        # It would only diverge again.
        assert "resume" not in {button.key for button in app.button}


def test_a_failed_run_says_why_and_can_be_resumed(lab):
    run_id = add(lab, state="failed", step=400, error={"code": "disk_full", "sentence": "x"})
    app = visit("run", run=run_id, lang="zh")
    assert any("磁盘已满" in each.value for each in app.error)
    app.button(key="resume").click().run()
    assert lab.get(run_id).state == "queued"
    assert "排在第 1 位" in said(app)
    assert not app.error


def test_a_working_run_is_stopped_and_says_that_it_saves_itself_first(lab):
    run_id = add(lab, state="running", step=250, rate=25.0, started=1.0)
    app = visit("run", run=run_id)
    assert "about 30 s left" in said(app)
    app.button(key="stop").click().run()
    assert lab.get(run_id).stop_requested is not None
    assert "stopping: it saves itself first" in said(app)
    assert app.button(key="stop").disabled


def test_waiting_runs_know_their_place(lab):
    first, second = (add(lab, state="queued", step=0, queued=when) for when in (1.0, 2.0))
    assert "in place 1 of the queue" in said(visit("run", run=first))
    app = visit("run", run=second)
    assert "in place 2 of the queue" in said(app)
    assert "Nothing has been measured yet." in said(app)
    assert not charts(app)
    # One that waits is stopped at once.
    app.button(key="stop").click().run()
    assert lab.get(second).state == "cancelled"


def test_somebody_elses_run_cannot_be_changed_on_a_shared_machine(lab, monkeypatch):
    monkeypatch.setenv("HEADLIGHT_SHARED", "1")
    shared._laboratory.clear()
    run_id = add(shared.laboratory(), state="running")
    assert not {"stop", "resume"} & {button.key for button in visit("run", run=run_id).button}
    app = visit("runs", runs=run_id)
    assert app.button(key="delete").disabled


def test_samples_mark_what_is_wrong_and_run_no_code(lab):
    rows = (("1 2", "2 1", "2 3"), ("<b>", "<i>", "<i>"), ("4", "4", ""), ("5", "5 6", "5 <u>"))
    app = visit("run", run=add(lab, name="<img src=x>", samples=Samples(step=900, rows=rows)))
    table = next(
        each.proto.body
        for each in app.get("html")
        if "samples" in each.proto.body and "<table" in each.proto.body
    )
    assert "2 <mark>3</mark>" in table
    assert "<mark>␣</mark>" in table
    assert "✗ wrong" in table
    assert "✓ right" in table
    assert "&lt;i&gt;" in table
    assert "<i>" not in table
    assert "5 <mark>&lt;u&gt;</mark>" in table


def test_the_log_is_in_words_and_an_unknown_entry_is_shown_as_it_is(lab):
    run_id = add(lab, state="cancelled", step=10)
    for kind, details in (("resumed", {"step": 1200}), ("damaged", {"reason": "no <file>"}), ("strange", {})):
        lab.store.write_log(run_id, kind, **details)
    shown = html(visit("run", run=run_id))
    assert "Went on from the checkpoint of step 1,200." in shown
    assert "begins anew: no &lt;file&gt;" in shown
    assert "strange" in shown
    assert "从第 1,200 步的检查点接着训练" in html(visit("run", run=run_id, lang="zh"))


@pytest.mark.parametrize("asked", ["nothing", "../../etc", "shipped-nothing", "<b>"])
def test_an_unknown_run_gets_a_sentence(lab, asked):
    app = visit("run", run=asked)
    assert any("There is no run" in each.value for each in app.error)
    assert not charts(app)


def test_a_deleted_run_gets_a_sentence(lab):
    run_id = add(lab)
    lab.delete(run_id)
    assert visit("run", run=run_id).error


def test_an_experiment_shows_how_far_it_is(lab):
    run_id = lab.store.add(
        kind="experiment", name="norms", owner=OWNER, group="", spec={"name": "norms", "options": {}}, steps=8,
        state="cancelled", step=2,
    )  # fmt: skip
    app = visit("run", run=run_id)
    assert "step 2 of 8" in said(app)
    assert not charts(app)
    assert "norms" in visit("runs", find="norms").dataframe[0].value["name"].tolist()


def test_seeds_are_drawn_as_their_mean_and_a_band_from_lowest_to_highest(lab):
    random = np.random.default_rng(1)
    curves = random.uniform(0.1, 2.0, size=(3, 4))
    where = [250, 500, 750, 1000]
    ids = [
        add(lab, "same", points={"dev_loss": (where, curve)}, changes={"training__seed": seed})
        for seed, curve in enumerate(curves, start=1)
    ]
    other = add(lab, "other", points={"dev_loss": (where, [4.0, 3, 2, 1])}, changes={"model__norm": "post"})
    app = visit("runs", runs=",".join([*ids, other]), metrics="dev_loss")
    (frame,) = charts(app).values()
    line, band = part(frame, "line"), part(frame, "band")
    mean = line[line["name"] == "same ×3"]
    np.testing.assert_allclose(mean["value"], curves.mean(axis=0))
    np.testing.assert_allclose(band["low"], curves.min(axis=0))
    np.testing.assert_allclose(band["high"], curves.max(axis=0))
    assert line[line["name"] == "other"]["value"].tolist() == [4, 3, 2, 1]
    assert "band: lowest to highest seed" in said(app)
    # Pre-norm is blue and post-norm vermilion, on every page.
    assert set(mean["colour"]) == {"#0072B2"}
    assert set(line[line["name"] == "other"]["colour"]) == {"#D55E00"}
    table = next(each.proto.body for each in app.get("html") if "class='differences'" in each.proto.body)
    assert "Normalisation" in table
    assert "<td>pre-norm</td><td>post-norm</td>" in table.replace(
        "<td>post-norm</td><td>pre-norm</td>", "<td>pre-norm</td><td>post-norm</td>"
    )
    assert "Peak learning rate" not in table
    assert table.count("Seed") == 1
    assert {"3, 2, 1", "1"} <= set(table.replace("</td>", "<td>").split("<td>"))


def test_what_is_looked_for_stands_in_the_address(lab):
    add(lab, "apple", state="cancelled")
    add(lab, "pear")
    assert visit("runs", find="APP").dataframe[0].value["name"].tolist() == ["apple"]
    assert visit("runs", state="cancelled").dataframe[0].value["name"].tolist() == ["apple"]
    assert "pear" in visit("runs", state="succeeded").dataframe[0].value["name"].tolist()
    app = visit("runs", find="nothing like that")
    assert any("No run is like that" in each.value for each in app.info)
    # What is chosen stays chosen though it is not listed.
    assert charts(app)


def test_chosen_runs_stand_in_the_address(lab):
    run_id = add(lab, points={"dev_loss": ([10, 20], [2.0, 1.0])})
    app = visit("runs", runs=f"{run_id},shipped-sort,unknown", metrics="dev_loss")
    (frame,) = charts(app).values()
    assert set(part(frame, "line")["name"]) == {"a run", "Sort digits (toy)"}
    assert app.query_params["runs"] in (f"{run_id},shipped-sort", [f"{run_id},shipped-sort"])
    app = visit("runs", runs="", metrics="dev_loss")
    assert any("Choose trainings in the table" in each.value for each in app.info)


def test_deleting_can_be_taken_back(lab):
    ids = [add(lab, name) for name in ("one", "two")]
    app = visit("runs", runs=",".join(ids))
    app.button(key="delete").click().run()
    assert not app.exception
    assert not {run.id for run in lab.runs()} & set(ids)
    assert "Deleted: 2." in said(app)
    app.button(key="undo").click().run()
    assert set(ids) <= {run.id for run in lab.runs()}
    assert app.button(key="delete").disabled is False
    assert "undo" not in {button.key for button in app.button}


def test_what_was_deleted_within_a_day_can_be_brought_back_later(lab):
    run_id = add(lab, "gone")
    lab.delete(run_id)
    app = visit("runs")
    app.button(key=f"restore_{run_id}").click().run()
    assert lab.get(run_id).name == "gone"


def test_a_working_run_is_not_deleted(lab):
    run_id = add(lab, state="running")
    assert visit("runs", runs=run_id).button(key="delete").disabled


def test_a_broken_database_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADLIGHT_DATA", str(tmp_path))
    (tmp_path / "runs.sqlite").write_bytes(b"not a database" * 1000)
    shared._laboratory.clear()
    for page in ("run", "runs"):
        app = visit(page)
        assert any("database" in each.value for each in app.error)
    shared._laboratory.clear()
