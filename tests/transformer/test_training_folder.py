"""A training that is stopped or whose files are damaged goes on and ends as if nothing had happened."""

import itertools
import math
import os

import pytest
import torch

from transformer import training_folder
from transformer.checkpoint import Snapshots, read_tensors
from transformer.recipe import Recipe, prepare
from transformer.train import Evaluated, Finished, StepEnd
from transformer.training_folder import read_metrics, recorded_events

VALUES = {
    "data": {"task": "copy", "task_train": 200, "task_dev": 20},
    "source_vocabulary": {"level": "word"},
    "target_vocabulary": {"level": "word"},
    "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 1},
    "training": {
        "steps": 30, "batch_tokens": 200, "evaluate_every": 5, "probe_count": 4, "schedule": "linear",
        "peak": 1e-2, "warmup_steps": 3, "average_decay": 0.9, "layers_every": 7,
    },
    "probes": [{"source": "1 2 3", "target": "1 2 3"}],
}  # fmt: skip


def prepared(**training):
    return prepare(Recipe.from_dict({**VALUES, "training": {**VALUES["training"], **training}}))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Sums of several threads are not the same bit for bit: which thread takes which part changes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _saves_after_each_step(monkeypatch):
    monkeypatch.setattr(training_folder, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(training_folder, "SAVE_SHARE", math.inf)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    list(recorded_events(prepared(), folder))
    return folder


def abandon(folder, step):
    """Train to a step and drop everything as a killed process would."""
    for event in recorded_events(prepared(), folder):
        if isinstance(event, StepEnd) and event.step == step:
            return


def weights(folder):
    return read_tensors(folder / "model.safetensors")[0]


def timeless(folder):
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second")}
        for line in read_metrics(folder)
    ]


def assert_equal_to(whole, folder):
    for name, tensor in weights(whole).items():
        assert torch.equal(weights(folder)[name], tensor), name
    assert timeless(folder) == timeless(whole)
    expected, found = Snapshots.load(whole), Snapshots.load(folder)
    assert found.steps == expected.steps
    name = "decoder.0.cross_attention.weights"
    for step in expected.steps:
        assert torch.equal(found.weights(0, step, name), expected.weights(0, step, name))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


TEXTS = ("snapshots.json", "config.json", "source_vocabulary.json")
TENSORS = ("training_state.safetensors", "snapshots.safetensors", "model.safetensors")


# Text carries no checksum: a flipped letter of a token is still a token.
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *itertools.product(TENSORS, (truncate, flip_a_bit, empty, os.remove)),
        *itertools.product(TEXTS, (truncate, empty, os.remove)),
    ],
)
def test_a_damaged_file_costs_a_few_steps_and_nothing_else(tmp_path, whole, damage, name):
    abandon(tmp_path, 23)
    damage(tmp_path / name)
    trained = prepared()
    events = recorded_events(trained, tmp_path, resume=True)
    assert trained.trainer.step == (22 if name.startswith("training_state") else 23)
    assert isinstance(list(events)[-1], Finished)
    assert_equal_to(whole, tmp_path)


# Step 6 ends with itself, 7 and 14 with the layers, 10 and 30 with an evaluation, 1 with the probes.
@pytest.mark.parametrize("stop", [1, 6, 7, 10, 14, 30])
def test_a_training_stopped_after_any_step_loses_no_line(tmp_path, whole, stop):
    first = prepared()
    list(recorded_events(first, tmp_path, should_stop=lambda: first.trainer.step >= stop))
    assert first.trainer.step == stop
    assert max(line["step"] for line in read_metrics(tmp_path)) == stop
    list(recorded_events(prepared(), tmp_path, resume=True))
    assert_equal_to(whole, tmp_path)


def test_the_layers_stand_in_the_metrics(whole):
    lines = [line for line in read_metrics(whole) if line["event"] == "LayersMeasured"]
    assert [line["step"] for line in lines] == [1, 7, 14, 21, 28]
    for line in lines:
        assert line["layers"] == ["encoder.0", "decoder.0"]
        for name in ("gradients", "streams", "updates", "weight_updates"):
            assert len(line[name]) == 2
            assert all(value > 0 and len(f"{value:.10g}") <= 10 for value in line[name])


def test_with_both_states_damaged_it_says_so(tmp_path):
    abandon(tmp_path, 23)
    truncate(tmp_path / "training_state.safetensors")
    truncate(tmp_path / "previous_training_state.safetensors")
    with pytest.raises(ValueError, match="is not a training state"):
        recorded_events(prepared(), tmp_path, resume=True)


def test_another_recipe_is_refused_by_its_difference(tmp_path):
    abandon(tmp_path, 7)
    with pytest.raises(ValueError, match=r"training\.seed was 1 and is 2"):
        recorded_events(prepared(seed=2), tmp_path, resume=True)


def test_it_saves_itself_between_evaluations(tmp_path):
    for event in recorded_events(prepared(evaluate_every=30), tmp_path):
        assert not isinstance(event, Evaluated)
        if event.step == 13:
            break
    trained = prepared(evaluate_every=30)
    recorded_events(trained, tmp_path, resume=True)
    assert trained.trainer.step == 13


def test_saving_takes_only_its_share_of_the_time(tmp_path, monkeypatch):
    """By a clock of our own on which each step takes one second and each save ten."""
    now = [0.0]
    saved = []
    monkeypatch.setattr(training_folder.time, "monotonic", lambda: now[0])

    def save(folder, state, origin):
        now[0] += 10.0
        saved.append(state.numbers["step"])

    monkeypatch.setattr(training_folder, "save_training_state", save)
    monkeypatch.setattr(training_folder, "SAVE_SECONDS", 5.0)
    monkeypatch.setattr(training_folder, "SAVE_SHARE", 0.5)
    for event in recorded_events(prepared(steps=60), tmp_path):
        now[0] += isinstance(event, StepEnd)
    # The first step, then 20 seconds after the save before was done, and one at the end.
    assert saved == [1, 21, 42, 60]
