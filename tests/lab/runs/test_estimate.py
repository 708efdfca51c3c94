"""What a training is said to take: against real models, real batches, what autograd really keeps, and real refusals."""

import dataclasses
import json
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from lab.runs import estimate as module
from lab.runs.calibrate import Probe, Timed, calibrate, costs, nonnegative_least_squares
from lab.runs.estimate import (
    COUNTS,
    Calibration,
    check_fits,
    cut,
    estimate,
    facts_of_data,
    kept_elements,
    load_calibration,
    parameters_of,
    work,
)
from lab.runs.own_data import DEV_FILE, TRAIN_FILE, split, write_data
from lab.runs.problems import RunProblem
from transformer.config import ModelConfig
from transformer.data.batches import EncodedPairs, bucketed_batches, fixed_batches
from transformer.data.pairs import Pair
from transformer.loss import label_smoothed_loss
from transformer.model import Transformer
from transformer.recipe import Recipe, prepare
from transformer.trace import Trace
from transformer.train import Evaluated, StepEnd

VALUES = {
    "data": {"task": "reverse", "task_train": 400, "task_dev": 40},
    "source_vocabulary": {"level": "word"},
    "target_vocabulary": {"level": "word"},
    "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 2},
    "training": {"steps": 30, "batch_tokens": 300, "evaluate_every": 10, "label_smoothing": 0.0},
}
COSTS = dict.fromkeys(COUNTS, 1e-9) | {"steps": 1e-3, "layers": 1e-3}


def recipe(**changes):
    return Recipe.from_dict({name: {**VALUES[name], **changes.get(name, {})} for name in VALUES})


def calibration(**changes):
    values = {
        "training": COSTS, "evaluation": COSTS, "save_seconds": 0.01, "save_byte_seconds": 1e-8,
        "start_seconds": 1.0, "base_bytes": 10**8, "machine": module.machine_name(),
        "torch": torch.__version__, "date": "2026-01-01",
    }  # fmt: skip
    return Calibration(**{**values, **changes})


CONFIGS = st.builds(
    ModelConfig,
    source_size=st.just(9),
    target_size=st.just(9),
    d_model=st.sampled_from([8, 24]),
    num_heads=st.sampled_from([1, 2]),
    d_ff=st.integers(1, 20),
    encoder_layers=st.integers(0, 3),
    decoder_layers=st.integers(0, 3),
    attention=st.sampled_from(["dot_product", "additive"]),
    positions=st.sampled_from(["sinusoidal", "learned", "rotary", "alibi", "none"]),
    norm=st.sampled_from(["post", "pre", "deepnorm", "none"]),
    tied_embeddings=st.sampled_from(["none", "target", "all"]),
    max_length=st.integers(1, 30),
)


@settings(max_examples=80, deadline=None)
@given(CONFIGS, st.integers(1, 12), st.integers(1, 12))
def test_parameters_are_those_of_the_model(config, source_size, target_size):
    if config.tied_embeddings == "all":
        target_size = source_size
    config = dataclasses.replace(config, source_size=source_size, target_size=target_size)
    assert parameters_of(config) == Transformer(config).num_parameters()


def test_a_model_that_nobody_could_make_is_counted_at_once():
    began = time.process_time()
    huge = ModelConfig(
        source_size=65536, target_size=65536, d_model=65536, encoder_layers=1000, decoder_layers=1000
    )
    assert parameters_of(huge) > 10**13
    assert time.process_time() - began < 0.1


def kept_by_autograd(config, rows, source, target):
    """Bytes of what autograd keeps of a forward pass: each storage once, parameters left out."""
    model = Transformer(config).train()
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    source_ids = torch.randint(4, config.source_size, (rows, source))
    target_ids = torch.randint(4, config.target_size, (rows, target))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = label_smoothed_loss(model(source_ids, target_ids), target_ids)
    assert loss.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("shape", [(4, 20, 20), (3, 40, 6), (3, 6, 40)])
@pytest.mark.parametrize(
    "changes",
    [
        {}, {"norm": "post"}, {"norm": "deepnorm"}, {"norm": "none"}, {"dropout": 0.1}, {"positions": "rotary"},
        {"positions": "alibi"}, {"attention_dropout": 0.1}, {"attention": "additive"},
        {"attention": "additive", "attention_dropout": 0.1, "dropout": 0.1},
        {"encoder_layers": 5}, {"decoder_layers": 5}, {"d_ff": 512}, {"num_heads": 16},
    ],
)  # fmt: skip
def test_activations_are_what_autograd_keeps(changes, shape):
    values = {
        "source_size": 20, "target_size": 20, "d_model": 64, "num_heads": 4, "d_ff": 128, "encoder_layers": 2,
        "decoder_layers": 2, "dropout": 0.0, "norm": "pre", "max_length": 64,
    }  # fmt: skip
    config = ModelConfig(**{**values, **changes})
    said = 4 * kept_elements(config, *(np.array([float(size)]) for size in shape))[0]
    log_softmax = 4 * shape[0] * shape[2] * config.target_size
    assert said + log_softmax == pytest.approx(kept_by_autograd(config, *shape), rel=0.06)


PAIRS = st.lists(st.tuples(st.integers(2, 9), st.integers(1, 9)), min_size=1, max_size=60)


def encoded(sizes):
    return EncodedPairs(
        sources=tuple(torch.full((source,), 5) for source, _ in sizes),
        targets=tuple(torch.full((target + 1,), 5) for _, target in sizes),
    )


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.integers(8, 100))
def test_evaluation_batches_are_those_of_the_training(sizes, batch_tokens):
    made = cut(np.array(sizes), batch_tokens, shuffled=False)
    real = list(fixed_batches(encoded(sizes), batch_tokens))
    assert made.rows.tolist() == [len(batch.source) for batch in real]
    assert made.source.tolist() == [batch.source.shape[1] for batch in real]
    assert made.target.tolist() == [batch.target_in.shape[1] for batch in real]
    assert made.target_tokens.tolist() == [batch.tokens for batch in real]
    assert made.count == len(real)
    positions = sum(batch.source.numel() + batch.target_in.numel() for batch in real)
    assert made.padding == pytest.approx(1 - sum(map(sum, sizes)) / positions)


@pytest.mark.parametrize(("count", "tolerance"), [(2000, 0.02), (30_000, 0.02)])
def test_training_batches_are_as_many_and_as_large(count, tolerance):
    generator = np.random.default_rng(3)
    sizes = np.stack([generator.poisson(9, count) + 2, generator.poisson(7, count) + 1], axis=1)
    sizes[17] = 60, 55
    made = cut(sizes, 800, shuffled=True)
    real = list(bucketed_batches(encoded(sizes.tolist()), batch_tokens=800, seed=5, epoch=2))
    assert made.count == pytest.approx(len(real), rel=tolerance)
    for mine, theirs in (
        (made.target_tokens, [batch.tokens for batch in real]),
        (made.rows * made.source, [batch.source.numel() for batch in real]),
    ):
        assert mine.mean() == pytest.approx(np.mean(theirs), rel=tolerance)
    assert made.source.max() == 60


def test_facts_are_those_of_the_prepared_training():
    chosen = recipe(data={"max_length": 9})
    facts, trainer = facts_of_data(chosen), prepare(chosen).trainer
    assert (facts.source_size, facts.target_size) == (
        trainer.model.config.source_size,
        trainer.model.config.target_size,
    )
    assert (len(facts.train), len(facts.dev)) == (len(trainer.train_data), len(trainer.dev_data))
    assert facts.dropped == trainer.train_data.dropped + trainer.dev_data.dropped > 0
    assert facts.longest == 9
    said = estimate(chosen, facts, None)
    assert said.parameters == trainer.model.num_parameters()
    epoch = list(bucketed_batches(trainer.train_data, batch_tokens=300, seed=1, epoch=0))
    assert said.steps_per_epoch == pytest.approx(len(epoch), rel=0.05)
    assert said.epochs == pytest.approx(30 / len(epoch), rel=0.05)
    assert said.tokens_per_step == pytest.approx(np.mean([batch.tokens for batch in epoch]), rel=0.05)
    assert said.evaluations == 3


@pytest.mark.parametrize("every", [1, 7, 8, 29, 30, 31])
def test_evaluations_are_those_of_the_training(every):
    chosen = recipe(training={"evaluate_every": every})
    events = prepare(chosen).trainer.events()
    real = sum(isinstance(event, Evaluated) for event in events)
    assert estimate(chosen, facts_of_data(chosen), None).evaluations == real


def own_pairs(word="w"):
    return split([Pair(source=f"{word} {n}", target=f"{n} {word}") for n in range(40)])


def test_facts_are_remembered_until_the_data_changes(tmp_path):
    own = recipe(data={"task": "", "train": TRAIN_FILE, "dev": DEV_FILE})
    facts = facts_of_data(own, pairs=own_pairs())
    assert facts_of_data(own, pairs=own_pairs()) is facts
    assert (
        facts_of_data(recipe(data=own.to_dict()["data"], training={"steps": 3}), pairs=own_pairs()) is facts
    )
    assert facts_of_data(own, pairs=own_pairs("longer words")) is not facts
    write_data(tmp_path, *own_pairs())
    from_files = facts_of_data(own, tmp_path)
    assert np.array_equal(from_files.train, facts.train)
    assert facts_of_data(own, tmp_path) is from_files
    write_data(tmp_path, *own_pairs("one more word"))
    assert facts_of_data(own, tmp_path).longest > from_files.longest


def test_the_other_direction_of_pairs_that_are_brought():
    pairs = split([Pair(source=f"a b c {n}", target=f"{n}") for n in range(40)])
    there = facts_of_data(recipe(data={"task": "", "train": "a", "dev": "b"}), pairs=pairs)
    back = facts_of_data(recipe(data={"task": "", "train": "a", "dev": "b", "swap": True}), pairs=pairs)
    assert (there.source_size, there.target_size) == (back.target_size, back.source_size)
    assert there.source_size != there.target_size


def test_data_that_cannot_be_used_is_said():
    with pytest.raises(ValueError, match="--data"):
        facts_of_data(recipe(data={"task": "", "train": "a", "dev": "b"}))
    with pytest.raises(ValueError, match="at least 1"):
        facts_of_data(recipe(data={"max_length": 2}))


def test_an_estimate_is_live():
    facts = facts_of_data(recipe(data={"task_train": 20_000}))
    taken = []
    for width in (16, 32, 64):
        for batch_tokens in (1000, 3000):
            chosen = recipe(model={"d_model": width}, training={"batch_tokens": batch_tokens + width})
            began = time.process_time()
            estimate(chosen, facts, calibration())
            taken.append(time.process_time() - began)
    assert sorted(taken)[len(taken) // 2] < 0.05


def test_memory_is_the_sum_of_its_parts():
    facts = facts_of_data(recipe())
    plain = estimate(recipe(), facts, calibration()).memory
    weights = 4 * estimate(recipe(), facts, None).parameters
    assert (plain.base, plain.weights, plain.gradients) == (10**8, weights, weights)
    assert (plain.moments, plain.average, plain.saving) == (2 * weights, 0, 9 * weights)
    assert plain.total == 10**8 + plain.data + 13 * weights + plain.activations + plain.logits
    averaged = estimate(recipe(training={"average_decay": 0.9}), facts, calibration()).memory
    assert (averaged.average, averaged.saving) == (weights, 12 * weights)
    larger = estimate(recipe(training={"batch_tokens": 3000}), facts, calibration()).memory
    assert larger.activations > 5 * plain.activations


def test_time_is_the_sum_of_its_parts():
    facts = facts_of_data(recipe())
    once = calibration(
        training=dict.fromkeys(COUNTS, 0.0) | {"steps": 1.0}, evaluation=dict.fromkeys(COUNTS, 0.0),
        save_seconds=0.0, save_byte_seconds=0.0, start_seconds=5.0,
    )  # fmt: skip
    said = estimate(recipe(), facts, once)
    assert said.step_seconds == 1.0
    assert said.seconds == pytest.approx(5 + facts.seconds + 30 * module.WORKER_SHARE)
    evaluating = dataclasses.replace(once, training=dict.fromkeys(COUNTS, 0.0), evaluation=once.training)
    batches = len(list(fixed_batches(prepare(recipe()).trainer.dev_data, 300)))
    said = estimate(recipe(), facts, evaluating)
    assert said.seconds == pytest.approx(5 + facts.seconds + 3 * batches * module.WORKER_SHARE)
    measuring = estimate(recipe(training={"layers_every": 2}), facts, evaluating)
    assert measuring.seconds - said.seconds == pytest.approx(30 * module.WORKER_SHARE)
    saving = estimate(recipe(), facts, dataclasses.replace(once, save_seconds=0.01))
    assert saving.seconds - estimate(recipe(), facts, once).seconds == pytest.approx(0.01 + 30 * 0.01 / 5)
    assert estimate(recipe(), facts, None).seconds is None


def test_counts_are_those_of_a_forward_pass():
    """Multiplications against torch's own count, everything else against what is plain."""
    config = ModelConfig(
        source_size=11,
        target_size=13,
        d_model=16,
        num_heads=2,
        d_ff=24,
        encoder_layers=2,
        decoder_layers=3,
        dropout=0.1,
    )
    amounts = work(config, *(np.array([size]) for size in (3.0, 7.0, 5.0)))
    # Under a trace, for torch does not count what its fused attention does.
    with FlopCounterMode(display=False) as counter:
        Transformer(config).eval()(
            torch.randint(4, 11, (3, 7)), torch.randint(4, 13, (3, 5)), Trace(keep="*")
        )
    assert 2 * amounts["multiplications"][0] == counter.get_total_flops()
    assert amounts["scores"][0] == 3 * 2 * (2 * 7 * 7 + 3 * 5 * 5 + 3 * 5 * 7)
    assert amounts["pairs"][0] == 3
    assert amounts["logits"][0] == 3 * 5 * 13
    assert amounts["dropped"][0] == 16 * 3 * (7 * (2 * 2 + 1) + 5 * (3 * 3 + 1))
    assert set(amounts) == set(COUNTS)


@pytest.mark.parametrize("seed", range(5))
def test_least_squares_that_are_not_negative(seed):
    generator = np.random.default_rng(seed)
    matrix = generator.random((12, 5))
    right = matrix @ np.array([1.0, 0.0, 2.0, 0.0, 0.5]) + generator.normal(0, 0.3, 12)
    found = nonnegative_least_squares(matrix, right)
    assert (found >= 0).all()
    # The conditions of Karush, Kuhn and Tucker: nothing is gained by a change that is allowed.
    gradient = matrix.T @ (matrix @ found - right)
    assert np.abs(gradient[found > 0]).max() < 1e-6
    assert (gradient[found == 0] > -1e-6).all()


def test_costs_explain_what_they_made():
    table = np.array(
        [
            [work(each, *(np.array([s]) for s in (rows, 9.0, 9.0)))[name][0] for name in COUNTS]
            for each, rows in MADE
        ]
    )
    true = np.array([1e-3, 1e-5, 2e-4, 5e-11, 5e-9, 2e-9, 1e-8, 1e-8, 5e-9, 4e-9])
    found = costs(table, table @ true)
    assert np.array([found[name] for name in COUNTS]) == pytest.approx(true, rel=0.05)


def config(**changes):
    values = {"source_size": 30, "target_size": 30, "d_model": 16, "num_heads": 2, "d_ff": 32, "encoder_layers": 1,
              "decoder_layers": 1, "dropout": 0.0}  # fmt: skip
    return ModelConfig(**{**values, **changes})


MADE = [
    (config(), 2.0), (config(), 90.0), (config(encoder_layers=5), 2.0), (config(d_model=128), 40.0), (config(d_ff=512), 40.0),
    (config(num_heads=16), 40.0), (config(dropout=0.1), 40.0), (config(attention="additive"), 40.0),
    (config(target_size=5000), 40.0), (config(source_size=9000, d_model=64), 1.0), (config(decoder_layers=4), 60.0),
]  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    """This machine, from the probe of the command line, on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield calibrate(seconds=0.0)
    torch.set_num_threads(before)


def test_a_probe_says_how_long_other_trainings_take(measured):
    """Within a factor two here, where others use the machine too; `benchmarks/estimate.py` says how well it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for model, rows in (
        ({"d_model": 96, "d_ff": 200, "encoder_layers": 3, "decoder_layers": 1}, 40),
        ({}, 200),
    ):
        timed = Timed(Probe(rows=rows, length=10, model=model))
        for _ in range(7):
            timed.measure()
        said = module.seconds_of(measured.training, work(timed.config, *timed.shape))[0]
        assert 0.5 < said / np.median(timed.steps) < 2.0
    torch.set_num_threads(before)


def test_a_calibration_is_read_again_and_only_where_it_was_made(tmp_path, measured):
    path = tmp_path / "calibration.json"
    assert load_calibration(path) is None
    path.write_text(measured.to_json())
    assert load_calibration(path) == measured
    values = json.loads(measured.to_json())
    for wrong in (
        {"machine": "another"}, {"torch": "0.1"}, {"format": 1}, {"training": {}}, {"save_seconds": -1.0},
        {"evaluation": dict.fromkeys(COUNTS, float("nan"))}, {"base_bytes": "many"}, {"training": [1]},
    ):  # fmt: skip
        path.write_text(json.dumps({**values, **wrong}))
        assert load_calibration(path) is None, wrong
    for broken in ("", "{}", "[]", "nothing", "\0", measured.to_json()[:-20]):
        path.write_text(broken)
        assert load_calibration(path) is None, broken


@pytest.mark.slow
def test_the_command_writes_a_calibration(tmp_path):
    path = tmp_path / "deep" / "calibration.json"
    subprocess.run([sys.executable, "-m", "lab.runs.calibrate", str(path)], check=True)
    assert load_calibration(path) is not None


LIMITS = SimpleNamespace(most_steps=100, most_parameters=10**6)


def refused(chosen, **free):
    said = estimate(chosen, facts_of_data(chosen), calibration())
    with pytest.raises(RunProblem) as caught:
        check_fits(said, LIMITS, **{"memory": 10**12, "disk": 10**12, **free})
    assert str(caught.value).endswith(".")
    return said, caught.value.code, caught.value.details


def test_what_does_not_fit_is_refused():
    said, code, details = refused(recipe(training={"steps": 101}))
    assert (code, details) == ("too_many_steps", {"steps": 101, "limit": 100})
    said, code, details = refused(recipe(model={"d_model": 512}))
    assert (code, details) == ("too_many_parameters", {"parameters": said.parameters, "limit": 10**6})
    said, code, details = refused(recipe(model={"max_length": 9}))
    assert (code, details) == ("sequence_too_long", {"longest": 13, "limit": 9})
    said, code, details = refused(recipe(), memory=10**8)
    assert (code, details) == ("not_enough_memory", {"bytes": said.memory.total, "available": 9 * 10**7})
    said, code, details = refused(recipe(), disk=1000)
    assert (code, details) == ("not_enough_disk", {"bytes": said.disk, "available": 1000})
    check_fits(said, LIMITS)


def test_a_sequence_that_is_too_long_would_have_ended_the_training():
    """What `sequence_too_long` saves one from, and where it begins."""
    with pytest.raises(ValueError, match="at most"):
        list(prepare(recipe(model={"max_length": 12})).trainer.events())
    chosen = recipe(model={"max_length": 13})
    check_fits(estimate(chosen, facts_of_data(chosen), None), LIMITS, memory=10**12)
    events = prepare(chosen).trainer.events()
    assert sum(isinstance(event, StepEnd) for event in events) == 30
