"""What is asked of every experiment: that it says what it claims, streams, stops, and ends with what follows."""

import json
import math

import pytest

from lab.experiments.catalogue import EXPERIMENTS, find_experiment
from lab.experiments.events import (
    VERDICTS,
    Concluded,
    Measured,
    Progress,
    event_of_record,
    event_record,
    events_as_csv,
)
from lab.experiments.experiment import Experiment, options_record, report

SMALL_WARM_UP = {"steps": 10, "layers": 1, "d_model": 8, "seeds": 2, "warm_ups": [0, 5]}


def test_every_experiment_says_what_it_claims_who_claims_it_and_how_it_is_judged():
    assert set(EXPERIMENTS) == {"norm-gradients-at-init", "norm-warm-up", "norm-depth", "norm-final-quality"}
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert find_experiment(name) is experiment
        for text in (experiment.claim, experiment.source, experiment.rule):
            assert len(text) > 20
            assert text.endswith(".")
            assert "  " not in text
            assert "\n" not in text
        assert " 20" in experiment.source, "the year of a paper"
        for word in ("holds", "does not hold", "not decided"):
            assert word in experiment.rule.replace("It does", "does")


def test_a_docstring_without_a_claim_is_found():
    def run(options):
        """Do something.

        Source: Somebody 2020.
        """

    experiment = Experiment(name="empty", options=dict, run=run, quantities=())
    assert experiment.source == "Somebody 2020."
    with pytest.raises(ValueError, match="empty has no paragraph that begins with Claim"):
        _ = experiment.claim


def test_what_an_experiment_says_is_what_it_declares(small):
    name, values = small
    experiment = find_experiment(name)
    events = list(experiment.run(experiment.make_options(values)))
    assert isinstance(events[0], Progress)
    assert events[0].done == 0
    assert isinstance(events[-1], Concluded)
    assert sum(isinstance(event, Concluded) for event in events) == 1
    progress = [event for event in events if isinstance(event, Progress)]
    assert {event.total for event in progress} == {progress[0].total}
    done = [event.done for event in progress]
    assert done == sorted(done)
    assert done[-1] == progress[0].total
    points = [event for event in events if isinstance(event, Measured)]
    assert {point.quantity for point in points} == {quantity.name for quantity in experiment.quantities}
    for quantity in experiment.quantities:
        assert len({tuple(point.labels) for point in points if point.quantity == quantity.name}) == 1
    places = [(point.quantity, *point.labels.items(), point.x) for point in points]
    assert len(places) == len(set(places)), "no point of a curve is said twice"
    seeds = {point.labels["seed"] for point in points if "seed" in point.labels}
    assert seeds == set(events[-1].seeds) == {1, 2}
    assert events[-1].verdict in VERDICTS
    for event in events:
        assert str(event_of_record(json.loads(json.dumps(event_record(event), allow_nan=False)))) == str(
            event
        )


@pytest.mark.slow
def test_an_experiment_says_the_same_again():
    experiment = find_experiment("norm-warm-up")
    options = experiment.make_options(SMALL_WARM_UP)
    assert list(map(str, experiment.run(options))) == list(map(str, experiment.run(options)))


def test_an_experiment_stops_between_any_two_events(small):
    name, values = small
    experiment = find_experiment(name)
    events = experiment.run(experiment.make_options(values))
    for _ in range(20):
        next(events)
    events.close()
    assert list(events) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_an_experiment_takes_a_minute_and_says_something_all_the_time(name, default_run):
    _, gaps = default_run(name)
    # Not the first, in which torch gets ready; and a minute and a half, for machines are not alike.
    assert max(gaps[1:]) < 1.0
    assert sum(gaps) < 90.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.1, 1e-300, -0.0])
def test_a_number_that_is_not_finite_survives_json_and_csv(value):
    point = Measured(quantity="loss", labels={"norm": "post", "seed": 1}, x=3, y=value)
    line = json.dumps(event_record(point), allow_nan=False)
    assert str(event_of_record(json.loads(line)).y) == str(value)
    _, row = events_as_csv([point]).splitlines()
    assert str(float(row.split(",")[-1])) == str(value)


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"event": "Started"},
        {"event": "Progress", "done": 1},
        {"event": "Progress", "done": 1, "total": 2, "left": 1},
        {"event": "Measured", "quantity": "loss", "labels": {}, "x": 1, "y": "much"},
        {"event": "Concluded", "verdict": "holds", "numbers": [], "seeds": [1]},
    ],
)
def test_what_is_no_event_is_refused(record):
    with pytest.raises(ValueError, match="is not an event"):
        event_of_record(record)


def test_a_table_has_a_column_for_every_label():
    events = [
        Progress(done=0, total=1),
        Measured(quantity="loss", labels={"norm": "pre", "seed": 1}, x=1, y=0.5),
        Measured(quantity="law", labels={"bound": "low, high"}, x=2.5, y=1.0),
        Concluded(verdict="holds", numbers={}, seeds=(1,)),
    ]
    assert events_as_csv(events) == (
        'quantity,norm,seed,bound,x,y\nloss,pre,1,,1,0.5\nlaw,,,"low, high",2.5,1.0\n'
    )


def test_the_report_is_json_also_where_a_training_diverged():
    experiment = find_experiment("norm-depth")
    concluded = Concluded(
        verdict="not decided",
        numbers={"loss": math.nan, "slope": -math.inf, "share": 0.25, "count": 3},
        seeds=(1, 2),
    )
    outcome = json.loads(json.dumps(report(experiment, concluded, 1.23456), allow_nan=False))
    assert outcome == {
        "name": "norm-depth",
        "claim": experiment.claim,
        "source": experiment.source,
        "verdict": "not decided",
        "numbers": {
            "loss": None, "loss_diverged": True, "slope": None, "slope_diverged": True, "share": 0.25, "count": 3,
        },
        "seeds": [1, 2],
        "seconds": 1.23,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values", "sentence"),
    [
        ("norm-depth", {"depth": 4}, r"norm-depth.depth is not a setting; allowed are variants, depths"),
        ("norm-depth", {"depths": 4}, r"depths is 4; it must be a list of rising whole numbers from 2 to 1000\."),
        ("norm-depth", {"depths": []}, r"depths is \[\]; it must be a list"),
        ("norm-depth", {"depths": [4, 4]}, r"depths is \[4, 4\]; it must be a list of rising"),
        ("norm-depth", {"depths": [4, 5]}, r"depths has 5; .* even number\."),
        ("norm-depth", {"depths": [2, 1002]}, r"depths is \[2, 1002\]"),
        ("norm-depth", {"depths": [2, "four"]}, r"depths is \[2, 'four'\]"),
        ("norm-depth", {"variants": ["pre", "rms"]}, r"variants is .* some of post, pre, deepnorm, no_norm, no_res"),
        ("norm-depth", {"variants": "pre"}, r"variants is 'pre'; it must be a list"),
        ("norm-depth", {"variants": ["pre", "pre"]}, r"variants is"),
        ("norm-depth", {"d_model": 30}, r"d_model is 30; .* multiple of 4"),
        ("norm-depth", {"learning_rate": "fast"}, r"learning_rate is"),
        ("norm-depth", {"learning_rate": 2.0}, r"learning_rate is"),
        ("norm-warm-up", {"warm_ups": [10, 20]}, r"warm_ups is \[10, 20\]; it must begin with 0"),
        ("norm-warm-up", {"warm_ups": [0]}, r"warm_ups is \[0\]; it must begin with 0"),
        ("norm-warm-up", {"norms": ["post"]}, r"norms is \['post'\]; post and pre must be among them\."),
        ("norm-warm-up", {"learning_rates": [0.1, 0.01]}, r"learning_rates is .* rising numbers"),
        ("norm-warm-up", {"learning_rates": [math.nan]}, r"learning_rates is"),
        ("norm-warm-up", {"steps": True}, r"steps is True"),
        ("norm-gradients-at-init", {"depths": [4]}, r"an exponent needs at least two depths"),
        ("norm-gradients-at-init", {"seeds": 1}, r"seeds is 1; it must be a whole number from 2 to 100\."),
        ("norm-gradients-at-init", {"d_model": 9}, r"d_model is 9; it must be a multiple of 4"),
        ("norm-final-quality", {"steps": 3}, r"steps is 3; it must be 0, or at least 10\."),
        ("norm-final-quality", {"learning_rate": 1.5}, r"learning_rate is 1.5"),
        ("norm-final-quality", {"data": 3}, r"data is 3; it must be the name of a folder"),
    ],
)  # fmt: skip
def test_an_option_that_is_not_right_gets_a_sentence(name, values, sentence):
    with pytest.raises(ValueError, match=sentence):
        find_experiment(name).make_options(values)


def test_options_survive_json():
    for experiment in EXPERIMENTS.values():
        options = experiment.options()
        values = json.loads(json.dumps(options_record(options)))
        assert experiment.make_options(values) == options
        assert experiment.make_options({}) == options


def test_an_unknown_name_gets_a_sentence():
    with pytest.raises(
        ValueError, match=r"'norm-x' is not an experiment; there are norm-gradients-at-init, "
    ):
        find_experiment("norm-x")
