"""Which one ends better: the arms differ in one thing, BLEU is sacreBLEU's, and the rule decides."""

import gzip
import math
from pathlib import Path

import pytest
import sacrebleu
import torch

from lab.experiments.norm_final_quality import (
    RECIPES,
    Options,
    arm,
    compare_arm,
    measure_bleu,
    paired,
    run,
    verdict_of,
)
from lab.experiments.statistics import Interval
from lab.experiments.trainings import Work
from transformer.data.batches import bucketed_batches
from transformer.recipe import prepare, read_recipe
from transformer.vocabulary import EOS

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"


def drain(generator):
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stopped:
            return stopped.value


def test_two_arms_differ_in_their_norm_alone():
    recipe = read_recipe(RECIPES / "norm-quality-toy.toml")
    post, pre = (arm(recipe, norm, 3, 40) for norm in ("post", "pre"))
    assert {**post.to_dict(), "model": 0} == {**pre.to_dict(), "model": 0}
    assert {**post.model, "norm": 0} == {**pre.model, "norm": 0}
    ready = [prepare(each) for each in (post, pre)]
    batches = [
        list(bucketed_batches(each.trainer.train_data, batch_tokens=800, seed=3, epoch=0)) for each in ready
    ]
    assert len(batches[0]) == len(batches[1])
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.source, other.source)
        assert torch.equal(one.target_out, other.target_out)
    shared = dict(ready[1].trainer.model.named_parameters())
    for name, parameter in ready[0].trainer.model.named_parameters():
        assert torch.equal(parameter, shared[name]), "the same initial weights"


def test_bleu_is_sacrebleu_s_of_greedy_translations():
    recipe = arm(read_recipe(RECIPES / "norm-quality-toy.toml"), "pre", 1, 80)
    prepared = prepare(recipe)
    for _ in prepared.trainer.events():
        pass
    found = drain(measure_bleu(prepared, Work(1)))
    model, words = prepared.trainer.averaged.eval(), prepared.target_vocabulary
    references = {}
    for pair in prepared.dev:
        references.setdefault(pair.source, []).append(pair.target)
    assert all(len(targets) == 1 for targets in references.values())
    translations = []
    for source in references:
        ids = torch.tensor([[*prepared.source_vocabulary.encode(source).ids, EOS]])
        written = [1]
        # A sentence that the model does not end is stopped where `translate` stops it: 50 tokens on, in steps of 32.
        limit = min(model.config.max_length, -(-(ids.shape[1] + 50) // 32) * 32)
        with torch.no_grad():
            while len(written) - 1 < limit:
                written.append(int(model(ids, torch.tensor([written]))[0, -1].argmax()))
                if written[-1] == EOS:
                    break
        translations.append(words.decode([token for token in written[1:] if token != EOS]))
    bleu = sacrebleu.corpus_bleu(
        translations, [[targets[0] for targets in references.values()]], tokenize="zh"
    )
    assert found == pytest.approx(bleu.score)
    assert 5 < found < 100


def test_a_training_that_diverges_translates_nothing():
    recipe = arm(
        read_recipe(RECIPES / "norm-quality-toy.toml", ("training.peak=1e5", "training.clip_norm=0.0")),
        "pre",
        1,
        40,
    )
    prepared = prepare(recipe)
    with torch.no_grad():
        prepared.trainer.model.encoder[0].feed_forward.narrow.weight[0, 0] = math.nan
    bleu, loss = drain(compare_arm(prepared, "pre", 1, work := Work(40)))
    assert bleu == (0.0, 0.0)
    assert math.isnan(loss)
    assert work.done == work.total


def test_differences_are_taken_seed_by_seed():
    difference = paired({"post": [30.0, 20.0, 10.0], "pre": [29.0, 19.0, 9.0]})
    assert (difference.mean, difference.low, difference.high) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.9, "holds"),
        (-0.1, 0.9, "not decided"),
        (0.0, 0.9, "not decided"),
        (-0.9, -0.1, "does not hold"),
        (math.nan, math.nan, "not decided"),
    ],
)
def test_the_verdict_follows_the_rule(low, high, verdict):
    assert verdict_of(Interval(mean=0.0, low=low, high=high)) == verdict


def test_a_folder_without_the_pairs_gets_a_sentence(tmp_path):
    with pytest.raises(ValueError, match="cmn-eng"):
        list(run(Options(data=str(tmp_path))))


def test_pairs_from_files(tmp_path):
    """A few pairs of one's own, in the form of the shared ones, go the same way."""
    (tmp_path / "tatoeba").mkdir()
    for part, first in (("train", 0), ("dev", 900)):
        lines = [
            f"word{i} number {i}\t词{i}号码{i}"
            for i in range(first, first + 300 if part == "train" else first + 5)
        ]
        with gzip.open(tmp_path / "tatoeba" / f"cmn-eng.{part}.tsv.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    events = run(Options(data=str(tmp_path), steps=10, seeds=2))
    assert next(events).total == 2 * 2 * 10
    done = 0
    for event in events:
        done = getattr(event, "done", done)
        if done >= 3:
            break
    assert done == 3


@pytest.mark.skipif(not DATA.exists(), reason="the shared sentence pairs are not here")
def test_the_recipe_fits_the_shared_pairs():
    recipe = arm(read_recipe(RECIPES / "norm-quality.toml"), "post", 1, 10)
    prepared = prepare(recipe, DATA)
    assert len(prepared.trainer.train_data) > 20_000
    assert 1_000_000 < prepared.trainer.model.num_parameters() < 2_000_000
