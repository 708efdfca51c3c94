"""The page of residual connections and norms over a data folder of its own: what it starts, shows, says and keeps."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from streamlit.testing.v1 import AppTest

from lab.experiments.catalogue import EXPERIMENTS
from lab.experiments.events import Concluded, Measured, Progress, event_record
from lab.experiments.experiment import report
from lab.figures.curves import readable
from lab.runs.comparison import arms, read_trials
from lab.runs.experiment_worker import EVENTS
from lab.runs.store import Series
from lab.ui import norm_form
from lab.ui.experiment_words import experiment_words
from lab.ui.language import speaking
from lab.ui.norm_words import variant_title
from transformer.recipe import read_recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "assets" / "results"
RECIPE = ROOT / "assets" / "recipes" / "side-by-side.toml"
STEPS = ("init", "live", "warm-up", "depth", "end")

pytestmark = pytest.mark.usefixtures("measured_machine")


def visit(**query):
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=150)
    asked = {"lang": "en", **query}
    app.query_params["lang"] = asked["lang"]
    app.run()
    app.switch_page("pages/add_norm.py")
    for name, value in asked.items():
        app.query_params[name] = str(value)
    app.run()
    assert not app.exception, app.exception
    return app


def asked(app, name):
    """What the address asks for; a test may find it alone or in a list."""
    value = app.query_params[name]
    return value[0] if isinstance(value, list) else value


def charts(app):
    """The numbers of each picture, by its title."""
    found = {}
    for chart in app.get("vega_lite_chart"):
        spec = json.loads(chart.proto.spec)
        table = pa.ipc.open_stream(io.BytesIO(chart.proto.datasets[0].data.data)).read_all()
        found[spec["title"]["text"]] = table.to_pandas()
    return found


def words(app):
    """Everything that stands on the page as text."""
    elements = [*app.markdown, *app.caption, *app.error, *app.warning, *app.info]
    html = [each.proto.body for each in app.get("html")]
    return "\n".join([*(each.value for each in elements), *html])


def part(table, name):
    return table[table["part"].astype(str) == name]


def runs_of(lab):
    return list(reversed(lab.store.runs()))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("step", STEPS)
def test_every_step_opens_on_a_result_in_both_languages(lab, step, language):
    app = visit(step=step, lang=language)
    assert asked(app, "step") == step
    assert not app.error
    assert len(app.get("vega_lite_chart")) >= 1
    for table in charts(app).values():
        drawn = table["part"].astype(str).isin(["line", "cell", "dot"])
        assert drawn.any()


def test_gradients_on_the_page_are_the_means_over_the_recorded_seeds(lab):
    record = json.loads((RESULTS / "norm-gradients-at-init.json").read_text())
    picture = charts(visit(step="init"))["Last feed-forward gradient, one stack, log scale"]
    for norm, name in (("post", "post-norm"), ("pre", "pre-norm"), ("deepnorm", "DeepNorm")):
        seeds = [
            dict(zip(curve["x"], curve["y"], strict=True))
            for curve in record["curves"]
            if curve["quantity"] == "gradient" and curve["labels"]["setting"] == "theory"
            and curve["labels"]["norm"] == norm
        ]  # fmt: skip
        assert len(seeds) == 5
        line = part(picture, "line")
        drawn = line[line["name"].astype(str) == name]
        for depth, value in zip(drawn["step"], drawn["value"], strict=True):
            assert value == pytest.approx(sum(seed[depth] for seed in seeds) / 5)
        assert drawn["step"].tolist() == [2, 4, 8, 16, 32, 64]
    faint = part(picture, "faint")
    slopes = {
        str(colour): np.polyfit(np.log(law["step"]), np.log(law["value"]), 1)[0]
        for colour, law in faint.groupby("colour", observed=True)
    }
    assert slopes == {"#0072B2": pytest.approx(-0.5, abs=1e-3), "#D55E00": pytest.approx(0, abs=1e-3)}


def test_the_form_begins_at_the_recorded_comparison():
    _command, trials = read_trials(RESULTS / "side-by-side.json")
    planned = arms(read_recipe(RECIPE), norm_form.NORMS, 3)
    assert [(trial.variant, trial.seed) for trial in trials] == [(arm.variant, arm.seed) for arm in planned]
    for trial, arm in zip(trials, planned, strict=True):
        assert trial.spec == json.loads(json.dumps(arm.recipe.to_dict()))


def test_what_is_typed_is_what_is_trained_for_every_norm_and_seed(lab):
    app = visit(
        step="live", norm_layers=2, norm_width=16, norm_peak="2e-3", norm_warmup_steps=7, norm_steps=30, norm_seeds=2,
        norm_schedule="cosine", norm_beta2="0.9", norm_task="sort", norm_variants="pre,none-alone",
    )  # fmt: skip
    app.button(key="group_start").click().run()
    assert not app.exception
    runs = runs_of(lab)
    assert [(run.spec["model"]["norm"], run.spec["model"]["residual"]) for run in runs] == [
        ("pre", True),
        ("none", False),
    ] * 2
    assert [run.spec["training"]["seed"] for run in runs] == [1, 1, 2, 2]
    (group,) = {run.group for run in runs}
    assert asked(app, "group") == group
    for run in runs:
        model, training = run.spec["model"], run.spec["training"]
        assert (model["encoder_layers"], model["decoder_layers"], model["d_model"]) == (2, 2, 16)
        assert (training["peak"], training["warmup_steps"], training["steps"]) == (2e-3, 7, 30)
        assert (training["schedule"], training["beta2"]) == ("cosine", 0.9)
        assert run.spec["data"]["task"] == "sort"
        assert training["layers_every"] == 1
    assert "trainings: 4 · 4 waiting" in app.get("progress")[0].proto.text


def add_comparison(lab, variants=("pre", "post"), seeds=1, **training):
    recipe = read_recipe(RECIPE, tuple(f"training.{name}={value}" for name, value in training.items()))
    group = "group" + "abc"[len(variants) % 3]
    for arm in arms(recipe, variants, seeds):
        lab.store.add(
            run_id=f"{arm.variant}{arm.seed}", kind="training", name=arm.variant, owner="somebody", group=group,
            spec=arm.recipe.to_dict(), steps=recipe.training.steps, state="queued",
            facts={"layers": ["encoder.0", "decoder.0"]},
        )  # fmt: skip
    return group


def numbers(steps, values):
    return Series(steps=np.asarray(steps, dtype=np.int64), values=np.asarray(values, dtype=np.float64))


def test_curves_and_layers_of_a_comparison_are_what_its_runs_measured(lab):
    group = add_comparison(lab, seeds=2)
    for place, run_id in enumerate(("pre1", "post1", "pre2", "post2")):
        lab.store.add_points(
            run_id,
            {
                "dev_loss": numbers([20, 40], [2.0 + place, 1.0 + place]),
                "accuracy": numbers([20, 40], [0.1, 0.2 * (1 + place)]),
                "layer_gradients": numbers([1, 10], [[1, 10], [0.1 * (1 + place), math.nan]]),
            },
        )
    app = visit(step="live", group=group)
    pictures = charts(app)
    ends = part(pictures["Dev loss (nats per token)"], "end")
    assert sorted(ends["text"]) == ["post-norm ×2 3.00", "pre-norm ×2 2.00"]
    cells = pictures["post-norm"]
    told = part(cells, "cell")
    assert sorted(zip(told["layer"].astype(str), told["step"], told["text"].astype(str), strict=True)) == [
        ("decoder 1", 1, "10.0"),
        ("encoder 1", 1, "1.00"),
        ("encoder 1", 10, "0.200"),
    ]
    assert part(cells, "absent")["text"].astype(str).tolist() == ["NaN"]
    assert "pre-norm</span> 40 %" in words(app)
    assert "post-norm</span> 60 %" in words(app)
    app.segmented_control(key="group_seed").set_value("2").run()
    told = part(charts(app)["post-norm"], "cell")
    assert "0.400" in told["text"].astype(str).tolist()


def test_a_comparison_of_deep_models_stands_below_the_recorded_experiment(lab):
    add_comparison(lab)
    recipe = read_recipe(RECIPE, ("model.encoder_layers=25", "model.decoder_layers=25"))
    for arm in arms(recipe, ["pre"], 1):
        lab.store.add(
            run_id="deep1", kind="training", name="deep", owner="somebody", group="deepgroup", spec=arm.recipe.to_dict(),
            steps=300, state="queued", facts={"layers": ["encoder.0", "decoder.0"]},
        )  # fmt: skip
    lab.store.add_points(
        "deep1", {"dev_loss": numbers([20], [1.25]), "layer_streams": numbers([1], [[1, 2]])}
    )

    def ends(**query):
        nonlocal app
        app = visit(step="depth", **query)
        assert "Movement by every layer, last step, log scale" in charts(app)
        return part(charts(app)["Dev loss (nats per token)"], "end")["text"].tolist()

    app = None
    assert ends(deep="deepgroup") == ["pre-norm 1.25"]
    recorded, offered = app.selectbox(key="deep").options
    assert "25 + 25" in offered
    # It opens on the recorded one, where there is one of so many layers.
    _command, trials = read_trials(RESULTS / "side-by-side-50.json")
    assert [len(trial.layers) for trial in trials] == [50, 50, 50]
    last = {trial.variant: float(trial.series["dev_loss"].values[-1]) for trial in trials}
    assert sorted(ends()) == sorted(
        f"{variant_title(variant)} {readable(value)}" for variant, value in last.items()
    )
    assert recorded == "Recorded comparison"
    assert ends(deep_count=200) == ["pre-norm 1.25"]


def test_a_training_that_diverged_is_a_result_with_its_step(lab):
    group = add_comparison(lab)
    lab.store.add_points("post1", {"train_loss": numbers([1, 2, 3], [2.0, 9.0, math.inf])})
    lab.store.move(
        "post1", "failed", before=("queued",), error={"code": "diverged", "step": 3}, facts={"layers": []}
    )
    app = visit(step="live", group=group)
    assert not app.error
    assert "post-norm</span> diverged (seed 1 at step 3)" in words(app)
    picture = charts(app)["Training loss (nats per token)"]
    assert part(picture, "broken")["text"].astype(str).tolist() == ["diverged at step 3"]


def test_all_trainings_of_a_comparison_are_stopped_and_resumed_together(lab):
    group = add_comparison(lab)
    app = visit(step="live", group=group)
    app.button(key="group_stop").click().run()
    assert [run.state for run in runs_of(lab)] == ["cancelled", "cancelled"]
    app.button(key="group_resume").click().run()
    assert [run.state for run in runs_of(lab)] == ["queued", "queued"]


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ({"norm_layers": "0"}, "no whole number from 1 to 200"),
        ({"norm_layers": "12.5"}, "no whole number"),
        ({"norm_peak": "fast"}, "no number in the range"),
        ({"norm_steps": "1e99"}, "no whole number"),
        ({"norm_seeds": "11"}, "no whole number from 1 to 10"),
        ({"norm_dropout": "1"}, "no number in the range"),
        ({"norm_steps": "300000"}, "200,000 are allowed here"),
    ],
)
def test_what_cannot_be_trained_is_answered_in_a_sentence_and_kept(lab, query, answer):
    app = visit(step="live", **query)
    assert answer in words(app)
    assert app.button(key="group_start").disabled
    ((name, text),) = query.items()
    assert app.text_input(key=name).value == text
    assert lab.store.runs() == []


def test_too_many_trainings_are_refused_as_a_whole(lab):
    object.__setattr__(lab.settings, "most_queued", 5)
    app = visit(step="live", norm_seeds=2)
    app.button(key="group_start").click().run()
    assert "5 runs that wait or work" in words(app)
    assert lab.store.runs() == []


def test_no_norm_is_no_comparison(lab):
    app = visit(step="live")
    app.get("button_group")
    app.pills(key="norm_variants").set_value([]).run()
    assert "at least one norm" in words(app)
    assert app.button(key="group_start").disabled


@pytest.mark.parametrize("step", ["live", "init"])
def test_what_the_address_asks_for_and_is_not_there_is_said_and_the_recorded_result_is_shown(lab, step):
    name = {"live": "group", "init": "gradients"}[step]
    app = visit(step=step, **{name: "<b>../../etc</b>"})
    assert len(app.warning) == 1
    assert len(app.get("vega_lite_chart")) >= 4


# Experiments


def test_an_experiment_is_started_with_its_options(lab):
    app = visit(step="init", depths="2,4", gradient_seeds=3)
    app.button(key="gradients_run").click().run()
    (run,) = lab.store.runs()
    assert run.spec == {"name": "norm-gradients-at-init", "options": {"depths": [2, 4], "seeds": 3}}
    assert asked(app, "gradients") == run.id
    assert "waiting" in app.get("progress")[0].proto.text
    app.button(key="gradients_stop").click().run()
    assert lab.get(run.id).state == "cancelled"
    app.button(key="gradients_resume").click().run()
    assert lab.get(run.id).state == "queued"


@pytest.mark.parametrize(
    ("step", "key", "name"),
    [
        ("init", "gradients", "norm-gradients-at-init"),
        ("warm-up", "warm_up", "norm-warm-up"),
        ("depth", "depth", "norm-depth"),
        ("end", "quality", "norm-final-quality"),
    ],
)
def test_the_options_of_every_experiment_are_ones_that_it_takes(lab, step, key, name):
    app = visit(step=step)
    app.button(key=f"{key}_run").click().run()
    (run,) = lab.store.runs()
    assert run.spec["name"] == name
    EXPERIMENTS[name].make_options(run.spec["options"])


def stored_experiment(lab, events, tail=""):
    """A run of an experiment that works, with the events in its file."""
    run_id = lab.start_experiment("norm-gradients-at-init", {"seeds": 2}, owner="somebody")
    folder = lab.folder(run_id)
    folder.mkdir(parents=True)
    lines = "".join(json.dumps(event_record(event)) + "\n" for event in events)
    (folder / EVENTS).write_text(lines + tail)
    return run_id


def gradient(norm, depth, value):
    labels = {"setting": "theory", "norm": norm, "seed": 1}
    return Measured(quantity="gradient", labels=labels, x=depth, y=value)


def test_an_experiment_shows_what_came_out_so_far_also_with_half_a_line_at_the_end(lab):
    def shown():
        return part(charts(app)["Last feed-forward gradient, one stack, log scale"], "line")["value"].tolist()

    events = [Progress(done=1, total=4), gradient("post", 2, 7.0), gradient("post", 4, 8.0)]
    last = json.dumps(event_record(gradient("post", 8, 9.0)))
    run_id = stored_experiment(lab, events, tail=last[:15])
    app = visit(step="init", gradients=run_id)
    assert shown() == [7.0, 8.0]
    assert ":material/check_circle:" not in words(app)
    # And what came out since.
    with (lab.folder(run_id) / EVENTS).open("a") as file:
        file.write(f"{last[15:]}\n")
    app.run()
    assert shown() == [7.0, 8.0, 9.0]


def test_an_experiment_that_has_ended_tells_its_verdict_and_its_numbers(lab):
    concluded = Concluded(
        verdict="not decided",
        numbers={
            "post_exponent": 0.0123,
            "post_exponent_low": -0.2,
            "post_exponent_high": math.inf,
            "new": 7,
        },
        seeds=(1, 2),
    )
    run_id = stored_experiment(lab, [gradient("post", 2, 7.0), concluded])
    outcome = report(EXPERIMENTS["norm-gradients-at-init"], concluded, 3.2)
    lab.store.move(run_id, "succeeded", before=("queued",), outcome=outcome)
    app = visit(step="init", gradients=run_id)
    text = words(app)
    assert "**It is not decided**" in text
    assert "2 seeds · 3 s" in text
    # An interval that is not finite is none.
    assert "<b>0.012</b>" in text
    # A number without words is shown under its name.
    assert "<span>new</span><b>7</b>" in text


def test_an_experiment_that_failed_says_why(lab):
    run_id = stored_experiment(lab, [])
    problem = {"code": "bad_data", "reason": "seeds is 1"}
    lab.store.move(run_id, "failed", before=("queued",), error=problem)
    app = visit(step="init", gradients=run_id)
    assert "seeds is 1" in words(app)


def test_one_depth_alone_is_no_law(lab):
    app = visit(step="init", depths="8")
    assert "at least two depths" in words(app)
    assert app.button(key="gradients_run").disabled


# Words


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_english_words_of_an_experiment_are_its_docstrings(name):
    with speaking("en"):
        told = experiment_words(name)
    experiment = EXPERIMENTS[name]
    assert (told.claim, told.source, told.rule) == (experiment.claim, experiment.source, experiment.rule)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("norm-*.json")), ids=lambda path: path.stem)
def test_the_telling_numbers_of_a_recorded_result_are_there(path):
    outcome = json.loads(path.read_text())["outcome"]
    with speaking("zh"):
        told = experiment_words(outcome["name"], outcome["numbers"])
    assert told.main
    assert set(told.main) <= set(outcome["numbers"])
