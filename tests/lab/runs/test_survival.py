"""Runs survive what happens to processes and disks: real supervisors and workers are killed, stopped and starved here.

A resumed run must end with the same weights, bit for bit, as one that nothing ever happened to.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lab.runs import processes
from lab.runs.problems import RunProblem
from lab.runs.series import series_of
from lab.runs.store import Store
from tests.lab.runs.conftest import TINY, tiny_recipe
from transformer.checkpoint import read_tensors
from transformer.recipe import Recipe, prepare
from transformer.training_folder import read_metrics, recorded_events

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(900)
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of a training to which nothing happened, made without the run system."""

    @functools.cache
    def train(**training):
        folder = tmp_path_factory.mktemp("undisturbed")
        list(recorded_events(prepare(tiny_recipe(**training)), folder))
        return read_tensors(folder / "model.safetensors")[0]

    return train


def assert_same(lab, run_id, expected):
    found = read_tensors(lab.folder(run_id) / "model.safetensors")[0]
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def assert_complete(lab, run_id, steps):
    """Each step is there once, and the database and the folder say the same."""
    series = lab.series([run_id], ["train_loss", "dev_loss"])
    assert series[run_id, "train_loss"].steps.tolist() == list(range(1, steps + 1))
    lines = series_of(read_metrics(lab.folder(run_id)))
    assert lines["train_loss"].values.tolist() == series[run_id, "train_loss"].values.tolist()
    assert lines["dev_loss"].values.tolist() == series[run_id, "dev_loss"].values.tolist()


# Long enough for something to happen to it twice; and one that is only ever stopped.
LONG = {"steps": 2500, "evaluate_every": 50}
ENDLESS = {"steps": 100_000, "evaluate_every": 50}


def test_a_run_trains_and_says_what_it_did(lab, recipe, until, undisturbed):
    run_id = lab.start(recipe(), name="copy", owner="ann")
    run = until(run_id, "succeeded")
    assert (run.step, run.steps, run.attempt, run.error) == (40, 40, 1, None)
    assert run.facts["train_pairs"] + run.facts["dropped"] == 320 - run.facts["dev_pairs"]
    assert run.facts["layers"] == ["encoder.0", "decoder.0"]
    assert run.seconds > 0
    assert run.started <= run.ended
    assert [entry.kind for entry in lab.log(run_id)] == ["created", "started", "succeeded"]
    assert lab.samples(run_id).step == 40
    assert_same(lab, run_id, undisturbed())
    assert_complete(lab, run_id, 40)


@POSIX
def test_a_killed_worker_costs_nothing(lab, recipe, until, kill_worker, undisturbed):
    run_id = lab.start(recipe(**LONG), name="copy", owner="ann")
    saved = lab.folder(run_id) / "training_state.safetensors"
    first = until(run_id, lambda run: run.step > 200 and saved.exists())
    kill_worker(run_id)
    until(run_id, lambda run: run.attempt == 2 and run.state == "running" and run.step > first.step)
    kill_worker(run_id)
    run = until(run_id, "succeeded")
    assert run.attempt == 3
    kinds = [entry.kind for entry in lab.log(run_id)]
    assert kinds.count("lost") == kinds.count("recovered") == kinds.count("resumed") == 2
    assert_same(lab, run_id, undisturbed(**LONG))
    assert_complete(lab, run_id, LONG["steps"])


@POSIX
def test_worker_and_supervisor_killed_together_cost_nothing(
    lab, recipe, until, kill_worker, supervisors, undisturbed
):
    run_id = lab.start(recipe(**LONG), name="copy", owner="ann")
    until(run_id, lambda run: run.step > 200)
    (supervisor,) = supervisors()
    supervisor.kill()
    kill_worker(run_id)
    supervisor.wait(10)
    until(run_id, "succeeded")
    assert_same(lab, run_id, undisturbed(**LONG))
    assert_complete(lab, run_id, LONG["steps"])


@POSIX
def test_a_killed_supervisor_is_replaced_by_one_that_adopts_the_worker(lab, recipe, until, supervisors):
    run_id = lab.start(recipe(**ENDLESS), name="copy", owner="ann")
    before = until(run_id, lambda run: run.step > 100)
    (supervisor,) = supervisors()
    supervisor.kill()
    supervisor.wait(10)
    assert not lab.supervised()
    after = until(run_id, lambda run: run.step > before.step + 100 and lab.supervised())
    assert (after.attempt, after.pid) == (1, before.pid)
    lab.stop(run_id)
    assert until(run_id, "cancelled").step < ENDLESS["steps"]


def test_two_supervisors_are_one(lab, recipe, until, supervisors):
    run_id = lab.start(recipe(**ENDLESS), name="copy", owner="ann")
    until(run_id, "running")
    command = [sys.executable, "-m", "lab.runs.supervisor"]
    environment = {**os.environ, "HEADLIGHT_DATA": str(lab.settings.data)}
    second = subprocess.run(command, cwd=ROOT, env=environment, timeout=60, capture_output=True)
    assert second.returncode == 0
    assert second.stderr == b""
    assert len(supervisors()) == 1
    assert lab.get(run_id).attempt == 1
    lab.stop(run_id)
    until(run_id, "cancelled")


def test_stopped_and_resumed_it_ends_as_if_it_had_not_been(lab, recipe, until, undisturbed):
    run_id = lab.start(recipe(**LONG), name="copy", owner="ann")
    until(run_id, lambda run: run.step > 150)
    lab.stop(run_id)
    stopped = until(run_id, "cancelled")
    assert 150 < stopped.step < LONG["steps"]
    assert stopped.resumable
    lab.resume(run_id)
    assert until(run_id, "succeeded").step == LONG["steps"]
    (resumed,) = [entry for entry in lab.log(run_id) if entry.kind == "resumed"]
    assert resumed.details["step"] == stopped.step
    assert_same(lab, run_id, undisturbed(**LONG))
    assert_complete(lab, run_id, LONG["steps"])
    with pytest.raises(RunProblem, match="nothing to resume"):
        lab.resume(run_id)


@POSIX
def test_a_worker_told_by_a_signal_saves_itself_and_goes_back_into_the_queue(lab, recipe, until):
    run_id = lab.start(recipe(**LONG), name="copy", owner="ann")
    run = until(run_id, lambda run: run.step > 150)
    os.kill(run.pid, signal.SIGTERM)
    run = until(run_id, "succeeded")
    kinds = [entry.kind for entry in lab.log(run_id)]
    assert "interrupted" in kinds
    assert "lost" not in kinds
    (resumed,) = [entry for entry in lab.log(run_id) if entry.kind == "resumed"]
    assert resumed.details["step"] > 150
    assert run.attempt == 2


def damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@POSIX
@pytest.mark.parametrize("how_many", [1, 2])
def test_damaged_checkpoints_cost_steps_and_not_the_run(
    lab, recipe, until, kill_worker, undisturbed, how_many
):
    run_id = lab.start(recipe(**LONG), name="copy", owner="ann")
    folder = lab.folder(run_id)
    # It is saved when it is stopped, and was once before: there are two to choose from.
    until(run_id, lambda run: (folder / "training_state.safetensors").exists())
    lab.stop(run_id)
    assert until(run_id, "cancelled").step < LONG["steps"]
    for name in ("training_state.safetensors", "previous_training_state.safetensors")[:how_many]:
        damage(folder / name)
    lab.resume(run_id)
    until(run_id, "succeeded")
    kinds = [entry.kind for entry in lab.log(run_id)]
    assert ("damaged" in kinds) == (how_many == 2)
    assert_same(lab, run_id, undisturbed(**LONG))
    assert_complete(lab, run_id, LONG["steps"])


@POSIX
def test_a_worker_that_dies_again_and_again_is_left_alone(lab, recipe, until, monkeypatch):
    """Its folder is a file: no worker can write there, and none can say so in time."""
    run_id = lab.start(recipe(**ENDLESS), name="copy", owner="ann")
    deadline = time.monotonic() + 120
    while lab.get(run_id).state != "lost" or lab.get(run_id).unfinished:
        assert time.monotonic() < deadline
        run = lab.get(run_id)
        process = processes.find(run.pid, run.process_started)
        if run.state == "starting" and process is not None:
            process.kill()
        lab.watch()
        time.sleep(0.01)
    run = lab.get(run_id)
    assert run.error == {"code": "killed", "times": 3}
    assert run.attempt == 3
    assert run.resumable
    lab.resume(run_id)
    until(run_id, "running")
    lab.stop(run_id)
    until(run_id, "cancelled")


@POSIX
def test_a_worker_that_does_not_stop_is_ended_after_its_grace(make_laboratory, recipe, until):
    lab = make_laboratory(HEADLIGHT_GRACE="1")
    run_id = lab.start(recipe(**LONG), name="copy", owner="ann")
    run = until(run_id, lambda run: run.step > 100, laboratory=lab)
    os.kill(run.pid, signal.SIGSTOP)  # it hears nothing any more
    lab.stop(run_id)
    until(run_id, "cancelled", laboratory=lab)
    assert processes.find(run.pid, run.process_started) is None
    assert "killed" in [entry.kind for entry in lab.log(run_id)]
    lab.resume(run_id)
    until(run_id, "succeeded", laboratory=lab)


def test_divergence_is_a_result_with_its_step(lab, recipe, until):
    diverging = recipe(steps=200, schedule="constant", peak=1e5, warmup_steps=0)
    run_id = lab.start(diverging, name="copy", owner="ann")
    run = until(run_id, "failed")
    assert run.error["code"] == "diverged"
    losses = lab.series([run_id], ["train_loss"])[run_id, "train_loss"]
    assert run.error["step"] == losses.steps[-1]
    assert not torch.tensor(losses.values[-1]).isfinite()
    assert torch.tensor(losses.values[:-1]).isfinite().all()
    assert not run.resumable


def test_what_cannot_be_prepared_is_refused_or_fails_in_a_sentence(lab, until):
    impossible = Recipe.from_dict({**TINY, "data": {"task": "copy", "task_train": 300, "max_length": 1}})
    with pytest.raises(ValueError, match="at least 1"):
        lab.start(impossible, name="copy", owner="ann")
    assert lab.store.runs() == []
    run_id = lab.store.add(
        kind="training",
        name="copy",
        owner="ann",
        group="",
        spec=impossible.to_dict(),
        steps=1,
        state="queued",
    )
    run = until(run_id, "failed")
    assert run.error["code"] == "bad_data"
    assert "must be at least 1" in run.error["sentence"]


def test_what_is_more_than_allowed_is_refused(make_laboratory, recipe):
    lab = make_laboratory(HEADLIGHT_STEPS="100", HEADLIGHT_PARAMETERS="10000", HEADLIGHT_QUEUE="1")
    with pytest.raises(RunProblem, match="200 steps are more than the 100"):
        lab.start(recipe(steps=200), name="copy", owner="ann")
    large = Recipe.from_dict({**TINY, "model": {**TINY["model"], "d_ff": 4096}})
    with pytest.raises(RunProblem) as problem:
        lab.start(large, name="copy", owner="ann")
    assert problem.value.code == "too_many_parameters"
    assert lab.store.runs() == []
    run_id = lab.start(recipe(steps=100), name="copy", owner="ann")
    with pytest.raises(RunProblem) as problem:
        lab.start(recipe(steps=100), name="copy", owner="ann")
    assert problem.value.code == "too_many_runs"
    assert len(list((lab.settings.data / "runs").glob("*"))) <= 1
    lab.stop(run_id)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a full disk needs a file system of its own, which only root may mount, on Linux")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_fails_the_run_and_loses_nothing(make_laboratory, small_disk, recipe, until, undisturbed):
    lab = make_laboratory(small_disk / "data")
    run_id = lab.start(recipe(**LONG), name="copy", owner="ann")
    until(run_id, lambda run: run.step > 100, laboratory=lab)
    filling = small_disk / "filling"
    with filling.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    time.sleep(8)  # several heartbeats and a checkpoint find no room
    filling.unlink()
    run = until(run_id, lambda run: run.state != "running" or run.step == run.steps, laboratory=lab)
    if run.state != "succeeded":
        assert run.error is None or run.error["code"] == "disk_full", run
    run = until(run_id, lambda run: not run.unfinished, laboratory=lab)
    if run.resumable:
        lab.resume(run_id)
    until(run_id, "succeeded", laboratory=lab)
    assert_same(lab, run_id, undisturbed(**LONG))
    assert_complete(lab, run_id, LONG["steps"])


def test_as_many_runs_work_at_once_as_there_are_slots(make_laboratory, recipe, until):
    lab = make_laboratory(HEADLIGHT_SLOTS="2")
    ids = [lab.start(recipe(**ENDLESS), name="copy", owner="ann") for _ in range(3)]
    for run_id in ids[:2]:
        until(run_id, "running", laboratory=lab)
    assert lab.get(ids[2]).state == "queued"
    lab.stop(ids[0])
    until(ids[2], "running", laboratory=lab)


def test_two_owners_take_turns(make_laboratory, recipe, until):
    lab = make_laboratory(HEADLIGHT_SLOTS="1")
    ids = [lab.start(recipe(**LONG), name="first", owner="ann")]
    until(ids[0], "running", laboratory=lab)
    ids += [lab.start(recipe(), name=owner, owner=owner) for owner in ("ann", "bob")]
    assert [lab.place(lab.get(run_id)) for run_id in ids[1:]] == [2, 1]
    for run_id in ids:
        until(run_id, "succeeded", laboratory=lab)
    started = {run_id: lab.get(run_id).started for run_id in ids}
    assert sorted(ids, key=started.__getitem__) == [ids[0], ids[2], ids[1]]


def test_a_supervisor_with_nothing_to_do_leaves_and_comes_back(lab, recipe, until, monkeypatch):
    run_id = lab.start(recipe(), name="copy", owner="ann")
    until(run_id, "succeeded")
    deadline = time.monotonic() + 60
    while lab.supervised():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    until(lab.start(recipe(), name="copy", owner="ann"), "succeeded")


def test_a_process_number_that_was_given_away_is_not_the_worker(lab):
    """Our own process, seen as one that started at another time."""
    started = processes.start_time(os.getpid())
    assert processes.find(os.getpid(), started) is not None
    assert processes.find(os.getpid(), started - 60) is None
    assert processes.find(None, None) is None


def test_a_zombie_is_no_worker():
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = processes.start_time(child.pid)
    deadline = time.monotonic() + 20
    while processes.find(child.pid, started) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child.wait()


def test_the_database_says_the_same_to_a_new_reader(lab, recipe, until):
    run_id = lab.start(recipe(), name="copy", owner="ann")
    until(run_id, "succeeded")
    again = Store(lab.settings.database)
    assert again.get(run_id) == lab.store.get(run_id)
