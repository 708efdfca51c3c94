"""The rule of the depth experiment on shares that were made up, and what comes out."""

import pytest

from lab.experiments.events import Measured
from lab.experiments.norm_depth import VARIANTS, Options, arm_recipe, run, verdict_of
from transformer.recipe import prepare

SHARES = {
    ("post", 4): 1.0, ("pre", 4): 1.0, ("deepnorm", 4): 1.0,
    ("post", 20): 0.0, ("pre", 20): 1.0, ("deepnorm", 20): 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "holds"),
        ({("no_norm", 20): 1.0, ("no_residual", 4): 0.0}, "holds"),
        ({("post", 20): 1.0}, "does not hold"),
        ({("pre", 20): 0.0}, "does not hold"),
        ({("deepnorm", 20): 0.0}, "does not hold"),
        ({("post", 20): 0.5}, "not decided"),
        ({("pre", 20): 0.5}, "not decided"),
        ({("post", 4): 0.5}, "not decided"),
        ({("deepnorm", 4): 0.0}, "not decided"),
    ],
)
def test_the_verdict_follows_the_rule(changes, verdict):
    assert verdict_of({**SHARES, **changes}, (4, 20)) == verdict


def test_without_all_three_or_at_one_depth_nothing_is_decided():
    assert verdict_of({("pre", 20): 1.0, ("pre", 4): 1.0}, (4, 20)) == "not decided"
    assert verdict_of({(variant, 20): 1.0 for variant in ("post", "pre", "deepnorm")}, (20,)) == "not decided"


def test_each_variant_is_what_its_name_says():
    models = {
        variant: prepare(arm_recipe(Options(), variant, 6, 1)).trainer.model.config for variant in VARIANTS
    }
    assert {variant: (config.norm, config.residual) for variant, config in models.items()} == {
        "post": ("post", True),
        "pre": ("pre", True),
        "deepnorm": ("deepnorm", True),
        "no_norm": ("none", True),
        "no_residual": ("pre", False),
    }
    assert {(config.encoder_layers, config.decoder_layers) for config in models.values()} == {(3, 3)}


def test_the_named_movement_is_the_mean_over_the_layers_of_the_last_step():
    options = Options(depths=(2, 4), steps=10, warm_up=5, d_model=8, seeds=2, variants=("pre",))
    events = list(run(options))
    moved = [
        event.y
        for event in events
        if isinstance(event, Measured)
        and event.quantity == "layer_update"
        and (event.labels["layers"], event.labels["step"]) == (4, 10)
    ]
    assert len(moved) == 2 * 4
    assert events[-1].numbers["pre_4_movement"] == pytest.approx(sum(moved) / 8)
    assert events[-1].verdict == "not decided"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_depth_does(default_run):
    concluded = default_run("norm-depth")[0][-1]
    numbers = concluded.numbers
    assert concluded.verdict == "holds"
    # Without "Add" nothing deep learns; each of many layers moves the stream less than each of a few.
    assert numbers["no_residual_20_learned"] == 0
    assert numbers["pre_20_movement"] < numbers["pre_4_movement"]
