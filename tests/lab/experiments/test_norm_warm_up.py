"""The rule of the warm-up experiment on losses that were made up, its guessing by a brute force, and the lesson itself."""

import math
from collections import Counter

import pytest

from lab.experiments.events import Measured
from lab.experiments.norm_warm_up import Options, conclude, run, seeds_as_claimed, verdict_of
from lab.experiments.trainings import guessing_loss, toy_recipe
from transformer.recipe import load_data, prepare

GUESSING = 4.0


def losses(post_without, post_with, pre_without):
    return {("post", 0.01, 0): post_without, ("post", 0.01, 50): post_with, ("pre", 0.01, 0): pre_without}


@pytest.mark.parametrize(
    ("post_without", "post_with", "pre_without", "shown"),
    [
        ([4.1, 2.0], [1.9, 1.0], [0.5, 1.99], 2),
        ([math.nan, math.inf], [1.9, 1.0], [0.5, 0.5], 2),
        ([1.9, 4.1], [1.0, 1.0], [0.5, 0.5], 1),  # the first has learned without warm-up
        ([4.1, 4.1], [2.0, 1.0], [0.5, 0.5], 1),  # the first has not learned with warm-up
        ([4.1, 4.1], [1.0, 1.0], [0.5, 2.5], 1),  # the second has not learned under pre-norm
        ([4.1, 4.1], [math.nan, 1.0], [0.5, math.nan], 0),
    ],
)
def test_a_seed_shows_the_claim_if_all_three_parts_come_out(post_without, post_with, pre_without, shown):
    assert seeds_as_claimed(losses(post_without, post_with, pre_without), 0.01, 50, GUESSING) == shown


def test_of_several_learning_rates_the_one_that_shows_it_best_is_told():
    options = Options(learning_rates=(0.001, 0.01), seeds=2)
    made_up = {
        **losses([4.0, 4.0], [1.0, 1.0], [0.5, 0.75]),
        ("pre", 0.01, 50): [0.25, 0.25],
        **{(norm, 0.001, warm_up): [1.0, 1.0] for norm in ("post", "pre") for warm_up in (0, 50)},
    }
    concluded = conclude(made_up, GUESSING, options)
    assert concluded.verdict == "holds"
    assert concluded.seeds == (1, 2)
    assert concluded.numbers["learning_rate"] == 0.01
    assert concluded.numbers["seeds_as_claimed"] == 2
    assert concluded.numbers["pre_without_warm_up_loss"] == 0.625
    assert concluded.numbers["post_without_warm_up_failed"] == 2


@pytest.mark.parametrize(
    ("shown", "seeds", "verdict"),
    [
        ([5], 5, "holds"),
        ([0, 5, 2], 5, "holds"),
        ([4, 4], 5, "not decided"),
        ([3], 5, "not decided"),
        ([2, 1], 5, "does not hold"),
        ([2], 4, "does not hold"),
        ([0], 1, "does not hold"),
    ],
)
def test_the_verdict_follows_the_rule(shown, seeds, verdict):
    assert verdict_of(shown, seeds) == verdict


def test_guessing_knows_how_often_each_token_occurs_and_no_more():
    recipe = toy_recipe(model={"d_model": 8, "encoder_layers": 1, "decoder_layers": 1}, training={"steps": 1})
    prepared = prepare(recipe)
    train, dev = load_data(recipe.data, None)
    words = prepared.target_vocabulary

    def tokens(pairs):
        return [token for pair in pairs for token in [*words.encode(pair.target).tokens, "<eos>"]]

    counts = Counter(tokens(train))
    probabilities = {token: count / counts.total() for token, count in counts.items()}
    expected = [-math.log(probabilities[token]) for token in tokens(dev)]
    assert guessing_loss(prepared.trainer) == pytest.approx(sum(expected) / len(expected))


def test_the_grid_is_whole_and_its_trainings_start_alike():
    options = Options(
        norms=("post", "pre", "deepnorm"), learning_rates=(1e-3, 1e-2), warm_ups=(0, 3, 6), steps=6, layers=1,
        d_model=8, seeds=1,
    )  # fmt: skip
    points = [event for event in run(options) if isinstance(event, Measured)]
    ends = {(p.labels["norm"], p.labels["learning_rate"], p.x) for p in points if p.quantity == "final_loss"}
    assert ends == {
        (norm, rate, warm_up)
        for norm in options.norms
        for rate in options.learning_rates
        for warm_up in (0, 3, 6)
    }
    first = {
        (p.labels["norm"], p.y) for p in points if p.quantity == "train_loss" and p.x == 1
    }  # fmt: skip
    assert len(first) == 3, "one loss before the first step for each norm, whatever the schedule"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_lesson_comes_out_the_same_for_five_of_five_seeds(default_run):
    concluded = default_run("norm-warm-up")[0][-1]
    assert concluded.verdict == "holds"
    numbers = concluded.numbers
    assert len(concluded.seeds) == numbers["seeds_as_claimed"] == 5
    assert numbers["post_without_warm_up_learned"] == 0
    assert numbers["post_without_warm_up_failed"] == 5
    assert numbers["post_with_warm_up_learned"] == numbers["pre_without_warm_up_learned"] == 5
