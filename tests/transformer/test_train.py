"""Training: reproducible and resumable bit for bit, with numbers that agree with plain computations."""

import copy
import itertools
from collections.abc import Callable

import pytest
import torch

from transformer.config import ModelConfig
from transformer.data.batches import EncodedPairs, bucketed_batches
from transformer.loss import label_smoothed_loss
from transformer.model import Transformer
from transformer.train import (
    Evaluated,
    Finished,
    LayersMeasured,
    Probe,
    ProbesRecorded,
    StepEnd,
    Trainer,
    TrainingConfig,
    snapshot_steps,
)
from transformer.vocabulary import BOS, EOS, PAD

# The losses of `test_golden_losses`, from torch 2.13 on a CPU. They change only if the computation does.
GOLDEN = (
    2.84065,
    2.7288,
    2.37348,
    2.46868,
    2.30408,
    2.27755,
    2.07975,
    1.98885,
    2.46673,
    2.70346,
    2.45402,
    2.26702,
    2.09988,
    2.22722,
    2.42928,
    2.37232,
    2.06964,
    2.24438,
    2.32326,
    2.29209,
)


def reversal(count: int, seed: int) -> EncodedPairs:
    generator = torch.Generator().manual_seed(seed)
    sources, targets = [], []
    for _ in range(count):
        length = int(torch.randint(2, 7, (1,), generator=generator))
        words = torch.randint(4, 11, (length,), generator=generator)
        sources.append(torch.cat((words, torch.tensor([EOS]))))
        targets.append(torch.cat((torch.tensor([BOS]), words.flip(0), torch.tensor([EOS]))))
    return EncodedPairs(sources=tuple(sources), targets=tuple(targets))


@pytest.fixture
def make_trainer(make_config: Callable[..., ModelConfig]) -> Callable[..., Trainer]:
    def make(*, model_changes=None, probes=True, **changes):
        torch.manual_seed(7)
        model = Transformer(make_config(**{"dropout": 0.2, **(model_changes or {})}))
        settings = {
            "steps": 12,
            "batch_tokens": 60,
            "schedule": "linear",
            "peak": 3e-3,
            "warmup_steps": 4,
            "evaluate_every": 5,
            "probe_count": 4,
            "average_decay": 0.9,
            "clip_norm": 1.0,
        }
        config = TrainingConfig(**{**settings, **changes})
        probe = Probe(source=torch.tensor([5, 6, 7, EOS]), target=torch.tensor([BOS, 7, 6, 5]))
        return Trainer(
            model=model,
            train=reversal(40, 1),
            dev=reversal(10, 2),
            config=config,
            probes=[probe] if probes else [],
        )

    return make


def comparable(event):
    """An event without its times."""
    if isinstance(event, StepEnd):
        return (event.step, event.epoch, event.loss, event.learning_rate, event.grad_norm, event.tokens)
    if isinstance(event, ProbesRecorded):
        return (event.step, [{name: t.tolist() for name, t in weights.items()} for weights in event.weights])
    if isinstance(event, Finished):
        return event.step
    return event  # nothing in it depends on the clock


def parameters_of(trainer):
    return [p.detach().clone() for p in (*trainer.model.parameters(), *trainer.averaged.parameters())]


def test_the_same_seed_gives_the_same_bits(make_trainer):
    first, second = make_trainer(), make_trainer()
    events = [comparable(event) for event in first.events()]
    torch.manual_seed(99)  # the world's randomness is not the training's
    again = []
    for event in second.events():
        torch.rand(3)
        again.append(comparable(event))
    assert events == again
    for one, other in zip(parameters_of(first), parameters_of(second), strict=True):
        assert torch.equal(one, other)
    other_seed = [comparable(event) for event in make_trainer(seed=2).events()]
    assert other_seed != events


def test_training_leaves_the_world_s_randomness_alone(make_trainer):
    torch.manual_seed(3)
    expected = torch.rand(4)
    trainer = make_trainer()
    torch.manual_seed(3)
    list(trainer.events())
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("stop", [1, 3, 5, 7, 10, 11])
@pytest.mark.parametrize("average_decay", [0.0, 0.9])
def test_a_resumed_training_goes_on_bit_for_bit(make_trainer, stop, average_decay):
    changes = {"average_decay": average_decay, "layers_every": 5}
    whole = make_trainer(**changes)
    expected = [comparable(event) for event in whole.events()]
    broken, before = make_trainer(**changes), []
    for event in broken.events():
        before.append(comparable(event))
        if event.step == stop and broken.ends_step(event):
            break
    state = broken.state()
    resumed = make_trainer(**changes)
    with torch.no_grad():
        for parameter in resumed.model.parameters():
            parameter.normal_()
    resumed.restore(copy.deepcopy(state))
    after = [comparable(event) for event in resumed.events()]
    assert before + after == expected
    for one, other in zip(parameters_of(whole), parameters_of(resumed), strict=True):
        assert torch.equal(one, other)


def test_a_state_is_a_copy(make_trainer):
    trainer = make_trainer()
    events = trainer.events()
    while trainer.step < 3:
        next(events)
    state = trainer.state()
    frozen = copy.deepcopy(state)
    for _ in events:
        pass
    assert state.numbers == frozen.numbers
    assert all(torch.equal(state.tensors[name], frozen.tensors[name]) for name in frozen.tensors)


def test_a_state_of_another_model_is_refused(make_trainer):
    state = make_trainer().state()
    with pytest.raises(ValueError, match="does not belong to this model"):
        make_trainer(model_changes={"d_ff": 32}).restore(state)
    with pytest.raises(ValueError, match="does not belong to this model"):
        make_trainer(model_changes={"encoder_layers": 3}).restore(state)


@pytest.mark.parametrize("layers_every", [0, 1, 5, 7])
@pytest.mark.parametrize("probes", [True, False])
def test_a_step_ends_with_its_last_event(make_trainer, layers_every, probes):
    trainer = make_trainer(layers_every=layers_every, probes=probes)
    events = list(trainer.events())[:-1]
    for event, following in itertools.pairwise(events):
        assert trainer.ends_step(event) == (following.step > event.step > 0), event
    assert trainer.ends_step(events[-1])


def test_the_events_and_their_order(make_trainer):
    events = list(make_trainer(layers_every=6).events())
    kinds = [(type(event), event.step) for event in events]
    recorded = snapshot_steps(12, 4)
    expected = [(ProbesRecorded, 0)]
    for step in range(1, 13):
        expected.append((StepEnd, step))
        if step in (1, 6, 12):
            expected.append((LayersMeasured, step))
        if step in recorded:
            expected.append((ProbesRecorded, step))
        if step in (5, 10, 12):
            expected.append((Evaluated, step))
    assert kinds == [*expected, (Finished, 12)]
    assert [
        event.tokens > 0 and event.tokens_per_second > 0 for event in events if isinstance(event, StepEnd)
    ]
    (weights,) = events[0].weights
    assert weights["encoder.0.self_attention.weights"].shape == (2, 4, 4)
    assert weights["decoder.1.cross_attention.weights"].shape == (2, 4, 4)
    assert len(weights) == 6


def test_snapshot_steps_are_spaced_logarithmically():
    assert snapshot_steps(1000, 4) == [0, 1, 10, 100, 1000]
    assert snapshot_steps(4096, 13) == [0, *(2**i for i in range(13))]
    assert snapshot_steps(5, 15) == [0, 1, 2, 3, 4, 5]
    assert snapshot_steps(100, 0) == []
    assert snapshot_steps(100, 1) == [0, 1, 100]
    steps = snapshot_steps(6000, 15)
    assert steps[0] == 0
    assert steps[-1] == 6000
    assert all(one < other for one, other in itertools.pairwise(steps))


@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
def test_a_step_is_what_a_plain_loop_does(make_trainer, clip_norm):
    """Loss, gradient norm, clipping, the step and the average against a loop without the trainer."""
    # The gradient of a key's bias is rounding noise about 0: with a tiny epsilon Adam would make it steps.
    trainer = make_trainer(model_changes={"dropout": 0.0}, clip_norm=clip_norm, layers_every=1, epsilon=1e-3)
    model = copy.deepcopy(trainer.model)
    average = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.98), eps=1e-3, weight_decay=0.0)
    batches = bucketed_batches(reversal(40, 1), batch_tokens=60, seed=1, epoch=0)
    events = trainer.events()
    for number, batch in zip(range(1, 6), batches, strict=False):
        event = next(event for event in events if isinstance(event, StepEnd))
        measured = next(events)
        loss = label_smoothed_loss(model(batch.source, batch.target_in), batch.target_out, 0.1)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.sqrt(sum(g.pow(2).sum() for g in gradients))
        assert event.loss == pytest.approx(loss.item(), rel=1e-5)
        assert event.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        assert event.tokens == int((batch.target_out != PAD).sum())
        by_name = dict(zip((name for name, _ in model.named_parameters()), gradients, strict=True))
        assert measured.layers == ("encoder.0", "encoder.1", "decoder.0", "decoder.1")
        for layer, gradient in zip(measured.layers, measured.gradients, strict=True):
            squares = sum(g.pow(2).sum() for name, g in by_name.items() if name.startswith(f"{layer}."))
            assert gradient == pytest.approx(squares.sqrt().item(), rel=1e-4)
        factor = min(1.0, clip_norm / norm.item()) if clip_norm else 1.0
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient * factor
        rate = 3e-3 * number / 4 if number < 4 else 3e-3 * (12 - number) / 8
        assert event.learning_rate == pytest.approx(rate)
        optimizer.param_groups[0]["lr"] = rate
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        optimizer.step()
        for layer, change in zip(measured.layers, measured.weight_updates, strict=True):
            names = [name for name in before if name.startswith(f"{layer}.")]
            old = torch.cat([before[name].flatten() for name in names])
            new = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
            assert change == pytest.approx(((new - old).norm() / old.norm()).item(), rel=1e-3)
        decay = min(0.9, (1 + number) / (10 + number))
        average = [
            decay * a + (1 - decay) * p.detach() for a, p in zip(average, model.parameters(), strict=True)
        ]
        for a, ours in zip(average, trainer.averaged.parameters(), strict=True):
            torch.testing.assert_close(ours, a, atol=1e-5, rtol=1e-4)


def test_the_average_keeps_tied_weights_tied(make_trainer):
    trainer = make_trainer()
    list(trainer.events())
    assert trainer.averaged.output_projection.weight is trainer.averaged.target_embedding.weight
    assert trainer.averaged is not trainer.model
    without = make_trainer(average_decay=0.0)
    assert without.averaged is without.model


def test_evaluation_against_single_sentences(make_trainer):
    trainer = make_trainer(steps=60, peak=1e-2)
    list(trainer.events())
    evaluated = trainer.evaluate()
    total, tokens, right, exact = 0.0, 0, 0, 0
    dev = reversal(10, 2)
    for source, target in zip(dev.sources, dev.targets, strict=True):
        logits = trainer.averaged(source[None], target[None, :-1])[0]
        total -= logits.log_softmax(dim=-1).gather(1, target[1:, None]).sum().item()
        hits = (logits.argmax(dim=-1) == target[1:]).tolist()
        tokens, right, exact = tokens + len(hits), right + sum(hits), exact + all(hits)
    assert evaluated.loss == pytest.approx(total / tokens, rel=1e-4)
    assert evaluated.accuracy == pytest.approx(right / tokens)
    assert evaluated.sequence_accuracy == pytest.approx(exact / 10)


def test_measuring_the_layers_changes_nothing(make_trainer):
    plain, measured = make_trainer(), make_trainer(layers_every=1)
    events = [comparable(event) for event in plain.events()]
    with_layers = list(measured.events())
    assert sum(isinstance(event, LayersMeasured) for event in with_layers) == 12
    assert [comparable(e) for e in with_layers if not isinstance(e, LayersMeasured)] == events
    for one, other in zip(parameters_of(plain), parameters_of(measured), strict=True):
        assert torch.equal(one, other)


def test_nothing_to_train_on_is_refused(make_config):
    with pytest.raises(ValueError, match="0 sentence pairs to train on and 3"):
        Trainer(
            model=Transformer(make_config()),
            train=EncodedPairs(sources=(), targets=()),
            dev=reversal(3, 1),
            config=TrainingConfig(steps=1),
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"peak": -1.0}, "peak is -1"),
        ({"peak": float("nan")}, "peak is nan"),
        ({"beta1": 1.0}, "beta1 is 1"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"seed": -1}, "seed is -1"),
        ({"layers_every": -1}, "layers_every is -1"),
        ({"layers_every": True}, "layers_every is True"),
    ],
)
def test_bad_settings(changes, words):
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**{"steps": 10, **changes})


def test_golden_losses(make_trainer):
    trainer = make_trainer(steps=20, schedule="noam", peak=0.5, warmup_steps=10)
    losses = [event.loss for event in trainer.events() if isinstance(event, StepEnd)]
    assert losses == pytest.approx(GOLDEN, abs=1e-4)


def test_it_learns(make_trainer):
    trainer = make_trainer(
        steps=150, peak=1e-2, warmup_steps=20, model_changes={"dropout": 0.0}, probes=False
    )
    evaluations = [event for event in trainer.events() if isinstance(event, Evaluated)]
    assert evaluations[-1].loss < 0.75 * evaluations[0].loss
