"""Comparisons: what differs between their trainings, and that they are stored as they were measured."""

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from lab.__main__ import cli
from lab.runs.comparison import (
    VARIANTS,
    Trial,
    arms,
    members,
    read_trials,
    start_comparison,
    trial_of,
    variant_of,
    write_trials,
)
from lab.runs.problems import RunProblem
from lab.runs.store import Series
from transformer.config import ModelConfig
from transformer.recipe import prepare


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def paths(value, path=()):
    """Every number and word of nested dictionaries, by where it stands."""
    if isinstance(value, dict):
        return {
            key: each for name, inner in value.items() for key, each in paths(inner, (*path, name)).items()
        }
    return {path: value}


def test_variants_of_a_seed_differ_in_norm_and_residual_alone(recipe):
    planned = arms(recipe(seed=5), list(VARIANTS), 2)
    assert [(arm.variant, arm.seed) for arm in planned] == [
        (name, seed) for seed in (5, 6) for name in VARIANTS
    ]
    allowed = {("model", "norm"), ("model", "residual")}
    for one in planned:
        for other in planned:
            first, second = (paths(arm.recipe.to_dict()) for arm in (one, other))
            differing = {path for path in first.keys() | second.keys() if first.get(path) != second.get(path)}
            if one.seed == other.seed:
                assert differing <= allowed
            if one.variant == other.variant:
                assert differing <= {("training", "seed")}
    meant = {
        "pre": ("pre", True),
        "none": ("none", True),
        "post-alone": ("post", False),
        "none-alone": ("none", False),
    }
    for arm in planned:
        model = arm.recipe.model
        if arm.variant in meant:
            assert (model["norm"], model["residual"]) == meant[arm.variant]


def batches_of(recipe, count):
    """The first batches that a training really reads."""
    trainer = prepare(recipe).trainer
    read, forward = [], trainer.model.forward

    def noting(source, target, *rest):
        if trainer.model.training:
            read.append((source.clone(), target.clone()))
        return forward(source, target, *rest)

    trainer.model.forward = noting
    for _event in trainer.events():
        if len(read) == count:
            break
    return read


def test_variants_of_a_seed_read_the_same_batches(recipe):
    read = {
        (arm.variant, arm.seed): batches_of(arm.recipe, 4)
        for arm in arms(recipe(evaluate_every=40), ["pre", "post"], 2)
    }

    def same(one, other):
        return all(
            a.shape == b.shape and torch.equal(a, b)
            for pair, its_pair in zip(one, other, strict=True)
            for a, b in zip(pair, its_pair, strict=True)
        )

    assert len(read["pre", 1]) == 4
    assert same(read["pre", 1], read["post", 1])
    assert same(read["pre", 2], read["post", 2])
    assert not same(read["pre", 1], read["pre", 2])


def test_an_unknown_variant_is_answered_in_a_sentence(recipe):
    with pytest.raises(ValueError, match="'upside-down' is not a variant; allowed are pre, post"):
        arms(recipe(), ["upside-down"], 1)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_recipe_tells_its_variant(recipe, name):
    (arm,) = arms(recipe(), [name], 1)
    assert variant_of(arm.recipe.to_dict()) == name


def test_a_recipe_that_names_no_norm_is_the_papers():
    assert ModelConfig.norm == "post"
    assert ModelConfig.residual is True
    assert variant_of({"model": {"d_model": 8}}) == "post"


def test_all_trainings_of_a_comparison_are_queued_or_none(make_laboratory, recipe, monkeypatch):
    lab = make_laboratory(HEADLIGHT_QUEUE="3")
    monkeypatch.setattr(lab, "watch", lambda **_: None)
    names = {"pre": "first", "post": "second"}
    with pytest.raises(RunProblem) as problem:
        start_comparison(lab, arms(recipe(), ["pre", "post"], 2), owner="ann", names=names)
    assert problem.value.code == "too_many_runs"
    assert lab.store.runs() == []
    group = start_comparison(lab, arms(recipe(), ["pre", "post"], 1), owner="ann", names=names)
    other = start_comparison(lab, arms(recipe(), ["post"], 1), owner="ann", names=names)
    assert [run.name for run in members(lab, group)] == ["first", "second"]
    assert [run.name for run in members(lab, other)] == ["second"]
    assert members(lab, "") == members(lab, "unknown") == []
    assert [run.state for run in members(lab, group)] == ["queued", "queued"]


def trial(**values):
    given = {
        "variant": "post", "seed": 3, "spec": {"model": {"norm": "post"}}, "state": "failed", "step": 7, "steps": 40,
        "seconds": 1.25, "error": {"code": "diverged", "step": 7}, "layers": ("encoder.0", "decoder.0"),
        "series": {
            "train_loss": Series(steps=np.array([1, 7]), values=np.array([2.30259, math.nan])),
            "layer_gradients": Series(steps=np.array([1, 5]), values=np.array([[1e-9, 2.0], [math.inf, 3.0]])),
        },
    }  # fmt: skip
    return Trial(**{**given, **values})


def test_what_is_written_is_read_back_with_numbers_that_are_not_finite(tmp_path):
    path = tmp_path / "comparison.json"
    write_trials(path, [trial(), trial(error=None, seed=4)], command="python -m lab runs compare X")
    command, found = read_trials(path)
    assert command == "python -m lab runs compare X"
    assert [(each.variant, each.seed, each.diverged_at) for each in found] == [
        ("post", 3, 7),
        ("post", 4, None),
    ]
    assert found[0].layers == ("encoder.0", "decoder.0")
    np.testing.assert_array_equal(found[0].series["train_loss"].values, [2.303, math.nan])
    np.testing.assert_array_equal(found[0].series["layer_gradients"].values, [[1e-9, 2.0], [math.inf, 3.0]])
    assert found[0].series["layer_gradients"].steps.tolist() == [1, 5]
    for constant in ("NaN", "Infinity"):
        assert constant not in path.read_text()
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format": 2}', '{"format": 1, "command": "", "trials": [{}]}']
)
def test_a_damaged_file_is_answered_in_a_sentence(tmp_path, content):
    path = tmp_path / "comparison.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="cannot be read"):
        read_trials(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_trials(tmp_path / "missing.json")


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_command_trains_and_writes_what_the_run_system_measured(
    make_laboratory, recipe, tmp_path, monkeypatch
):
    lab = make_laboratory()
    monkeypatch.setenv("HEADLIGHT_DATA", str(lab.settings.data))
    content = recipe(steps=10, layers_every=5).to_dict()
    file, output = tmp_path / "tiny.toml", tmp_path / "tiny.json"
    file.write_text(toml_of(content))
    arguments = [
        "runs",
        "compare",
        str(file),
        "--set",
        "training.peak=0.02",
        "--variant",
        "pre",
        "--variant",
        "none",
    ]
    told = CliRunner().invoke(cli, [*arguments, "--record", str(output)], catch_exceptions=False)
    group = told.stdout.split()[0]
    runs = members(lab, group)
    assert [run.state for run in runs] == ["succeeded", "succeeded"]
    assert {run.spec["training"]["peak"] for run in runs} == {0.02}
    command, found = read_trials(output)
    assert "--set training.peak=0.02 --variant pre --variant none --seeds 1" in command
    measured = lab.series([run.id for run in runs], ["train_loss", "layer_streams"])
    for run, each in zip(runs, found, strict=True):
        assert each.variant == run.spec["model"]["norm"]
        assert each.layers == ("encoder.0", "decoder.0")
        assert each.series["train_loss"].steps.tolist() == list(range(1, 11))
        assert each.series["layer_streams"].steps.tolist() == [1, 5, 10]
        for name, series in trial_of(run, measured).series.items():
            np.testing.assert_allclose(each.series[name].values, series.values, rtol=1e-3)
    # Pre-norm and no norm really are different trainings.
    assert not np.allclose(
        found[0].series["train_loss"].values, found[1].series["train_loss"].values, rtol=1e-2
    )


def toml_of(content):
    """A recipe as TOML: JSON's values are TOML's, but for null."""
    lines = []
    for section, values in content.items():
        if section != "probes":
            lines += [
                f"[{section}]",
                *(f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None),
            ]
    return "\n".join(lines)
