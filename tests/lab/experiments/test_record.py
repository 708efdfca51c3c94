"""Records are whole and valid JSON, and the shipped ones say in their verdict what their curves say."""

import json
import math
import shlex
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from lab.experiments.catalogue import find_experiment
from lab.experiments.command_line import split_setting
from lab.experiments.events import Measured, Progress
from lab.experiments.experiment import options_record
from lab.experiments.record import command_line, events_of_record, read_record, write_record

RESULTS = Path(__file__).parents[3] / "assets" / "results"
SHIPPED = sorted(
    path for path in RESULTS.glob("norm-*.json") if "outcome" in json.loads(path.read_text("utf-8"))
)


def test_what_is_written_is_read(tmp_path):
    points = [
        Measured(quantity="loss", labels={"norm": "post", "seed": 1}, x=1, y=0.123456789),
        Measured(quantity="loss", labels={"norm": "post", "seed": 2}, x=1, y=math.nan),
        Measured(quantity="loss", labels={"norm": "post", "seed": 1}, x=2, y=-math.inf),
    ]
    write_record(
        tmp_path / "record.json",
        outcome={"name": "norm-depth", "verdict": "holds"},
        options={"seeds": 2},
        changed={"seeds": 2},
        events=[Progress(done=0, total=1), *points],
    )
    text = (tmp_path / "record.json").read_text("utf-8")

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    record = json.loads(text, parse_constant=refuse)
    assert record == read_record(tmp_path / "record.json")
    assert record["command"] == "python -m lab experiment norm-depth --set seeds=2"
    assert record["outcome"]["verdict"] == "holds"
    assert set(record["versions"]) == {"python", "torch"}
    read = {(point.labels["seed"], point.x): point.y for point in events_of_record(record)}
    assert read.keys() == {(1, 1), (2, 1), (1, 2)}
    assert read[1, 1] == 0.12346
    assert math.isnan(read[2, 1])
    assert read[1, 2] == -math.inf


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"format": 2}'])
def test_what_is_no_record_gets_a_sentence(tmp_path, text):
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=r"record\.json"):
        read_record(path)


@pytest.mark.parametrize("curves", [None, [{}], [{"quantity": "loss", "labels": {}, "x": [1], "y": []}]])
def test_a_damaged_record_gets_a_sentence(curves):
    with pytest.raises(ValueError, match="cannot be read"):
        events_of_record({"curves": curves})


@pytest.mark.parametrize(
    "options", [{}, {"data": "my data", "seeds": 3}, {"depths": [2, 4], "variants": ["pre"]}, {"rate": 0.01}]
)
def test_the_command_says_the_options(options):
    words = shlex.split(command_line("norm-depth", options))
    assert words[:5] == ["python", "-m", "lab", "experiment", "norm-depth"]
    assert dict(split_setting(word) for word in words[6::2]) == options
    assert set(words[5::2]) <= {"--set"}


def test_there_is_a_result_of_every_claim_of_the_chapter():
    names = {read_record(path)["outcome"]["name"] for path in SHIPPED}
    assert names == {"norm-gradients-at-init", "norm-warm-up", "norm-depth", "norm-final-quality"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_result_can_be_repeated(path):
    record = read_record(path)
    words = shlex.split(record["command"])
    experiment = find_experiment(words[4])
    assert words[:4] == ["python", "-m", "lab", "experiment"]
    options = experiment.make_options(dict(split_setting(word) for word in words[6::2]))
    assert options_record(options) == record["options"]
    outcome = record["outcome"]
    assert (outcome["claim"], outcome["source"]) == (experiment.claim, experiment.source)
    assert outcome["seeds"] == list(range(1, record["options"]["seeds"] + 1))
    assert outcome["seconds"] > 0
    quantities = {event.quantity for event in events_of_record(record)}
    assert quantities == {quantity.name for quantity in experiment.quantities}


def table(name, quantity, *labels):
    """The numbers of a quantity in a shipped record, by labels and x, seeds in their order."""
    found = defaultdict(list)
    for event in events_of_record(read_record(RESULTS / f"{name}.json")):
        if event.quantity == quantity:
            found[(*(event.labels[label] for label in labels), event.x)].append(
                (event.labels["seed"], event.y)
            )
    return {key: [y for _, y in sorted(values)] for key, values in found.items()}


def outcome_of(name):
    return read_record(RESULTS / f"{name}.json")["outcome"]


def test_the_shipped_exponents_are_those_of_the_shipped_curves():
    gradients = table("norm-gradients-at-init", "gradient", "setting", "norm")
    outcome = outcome_of("norm-gradients-at-init")
    for setting, prefix in (("theory", ""), ("full", "full_")):
        for norm in ("post", "pre", "deepnorm"):
            depths = sorted(x for s, n, x in gradients if (s, n) == (setting, norm))
            rows = np.log([gradients[setting, norm, depth] for depth in depths])
            slopes = np.polyfit(np.log(depths), rows, 1)[0]
            assert outcome["numbers"][f"{prefix}{norm}_exponent"] == pytest.approx(slopes.mean(), abs=1e-3)
    assert depths_of(gradients) == [2, 4, 8, 16, 32, 64]
    assert outcome["verdict"] == "holds"


def depths_of(gradients):
    return sorted({x for setting, _, x in gradients if setting == "theory"})


def test_the_shipped_quality_is_that_of_the_shipped_curves():
    bleu = table("norm-final-quality", "bleu", "norm")
    outcome = outcome_of("norm-final-quality")
    half, steps = sorted({x for _, x in bleu})
    for name, step in (("bleu_difference", steps), ("bleu_difference_halfway", half)):
        differences = np.subtract(bleu["post", step], bleu["pre", step])
        assert outcome["numbers"][name] == pytest.approx(differences.mean(), abs=1e-2)
    low, high = (outcome["numbers"][f"bleu_difference_{end}"] for end in ("low", "high"))
    expected = "holds" if low > 0 else "does not hold" if high < 0 else "not decided"
    assert outcome["verdict"] == expected


def test_the_shipped_grid_has_every_point_and_seed():
    losses = table("norm-warm-up", "final_loss", "norm", "learning_rate")
    options = read_record(RESULTS / "norm-warm-up.json")["options"]
    numbers = outcome_of("norm-warm-up")["numbers"]
    assert losses.keys() == {
        (norm, rate, warm_up)
        for norm in options["norms"]
        for rate in options["learning_rates"]
        for warm_up in options["warm_ups"]
    }
    assert {len(values) for values in losses.values()} == {options["seeds"]}
    rate, guessing = numbers["learning_rate"], numbers["guessing_loss"]
    shown = zip(
        losses["post", rate, 0],
        losses["post", rate, options["warm_ups"][-1]],
        losses["pre", rate, 0],
        strict=True,
    )
    count = sum(a >= guessing / 2 > max(b, c) for a, b, c in shown)
    assert numbers["seeds_as_claimed"] == count


def test_the_shipped_depths_are_those_of_the_shipped_curves():
    losses = table("norm-depth", "final_loss", "variant")
    numbers = outcome_of("norm-depth")["numbers"]
    for (variant, depth), values in losses.items():
        learned = sum(value < numbers["guessing_loss"] / 2 for value in values)
        assert numbers[f"{variant}_{depth:g}_learned"] == learned
