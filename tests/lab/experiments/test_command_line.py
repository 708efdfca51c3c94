"""``python -m lab experiment`` as a person in a shell meets it."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest

from lab.__main__ import cli
from lab.experiments.catalogue import EXPERIMENTS
from lab.experiments.command_line import number_text
from transformer.command_line import run_command

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "lab", "experiment"]
Shown = namedtuple("Shown", "returncode stdout stderr")
SMALL = [
    "norm-gradients-at-init", "--set", "depths=[1, 2]", "--set", "full_depths=[1, 2]", "--set", "d_model=8",
    "--set", "sequences=1", "--set", "seeds=2",
]  # fmt: skip


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process: gives exit status, output and errors."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["lab", "experiment", *map(str, arguments)])
        status = 0
        try:
            run_command(cli)
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return Shown(status, captured.out, captured.err)

    return command


def test_the_list_names_every_claim_its_source_its_rule_and_its_options(run):
    shown = run()
    assert shown.returncode == 0
    for experiment in EXPERIMENTS.values():
        assert f"{experiment.name}\n  {experiment.claim}\n" in shown.stdout
        assert experiment.source in shown.stdout
        assert experiment.rule in shown.stdout
    assert "learning_rates=[0.01]" in shown.stdout
    listed = json.loads(run("--json").stdout)
    assert [each["name"] for each in listed] == list(EXPERIMENTS)


def test_one_json_object_on_stdout_and_files_beside_it(run, tmp_path):
    shown = run(*SMALL, "--json", "--csv", tmp_path / "table.csv", "--record", tmp_path / "record.json")
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("\n") == 1
    outcome = json.loads(shown.stdout)
    assert set(outcome) == {"name", "claim", "source", "verdict", "numbers", "seeds", "seconds"}
    assert outcome["name"] == "norm-gradients-at-init"
    assert outcome["seeds"] == [1, 2]
    record = json.loads((tmp_path / "record.json").read_text("utf-8"))
    assert record["outcome"] == outcome
    assert record["options"]["depths"] == [1, 2]
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["quantity"] for row in rows} == {
        "gradient",
        "gradient_law",
        "layer_gradient",
        "stream",
        "stream_law",
    }
    points = sum(len(curve["x"]) for curve in record["curves"])
    assert len(rows) == points


def test_what_came_out_to_read(run):
    shown = run(*SMALL)
    first, claim, *_ = shown.stdout.splitlines()
    assert first.startswith("norm-gradients-at-init: ")
    assert claim == f"  Claim: {EXPERIMENTS['norm-gradients-at-init'].claim}"
    assert "pre_exponent " in shown.stdout
    assert "seeds 1, 2;" in shown.stdout


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (True, "yes"), (3, "3"), (0.123456, "0.1235"), (-1e-9, "-1e-09")]
)
def test_a_figure_to_read(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["norm-x"], ["'norm-x' is not an experiment", "norm-warm-up"]),
        (["norm-depth", "--set", "depth=4"], ["norm-depth.depth is not a setting"]),
        (["norm-depth", "--set", "depths"], ["'depths' is not of the form option=value"]),
        (["norm-depth", "--set", "depths=[2,"], ["depths is '[2,'"]),
        (["norm-final-quality", "--set", "data=no-such-folder"], ["no-such-folder", "cannot be read"]),
        (["norm-depth", "--jsn"], ["--jsn"]),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_status_2(run, arguments, words):
    shown = run(*arguments)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert shown.stderr.count("\n") == 1
    for word in words:
        assert word in shown.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_stops_it_without_a_traceback():
    process = subprocess.Popen(
        [*COMMAND, "norm-depth", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background of a shell, Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("norm-depth  "), line
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode == 130
    assert output == ""
    assert "Traceback" not in errors
