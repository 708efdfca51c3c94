"""The store: states by compare-and-set, the fairness of the queue, fenced workers, and numbers as they were measured."""

import itertools
import math
import sqlite3
import threading

import numpy as np
import pytest

from lab.runs.problems import RunProblem
from lab.runs.store import Samples, Series, Store, SupersededError, order_of_start, thinned


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs.sqlite")


def add(store, owner="ann", state="queued", **columns):
    return store.add(
        kind="training",
        name="reverse",
        owner=owner,
        group="",
        spec={"a": 1},
        steps=10,
        state=state,
        **columns,
    )


def line(*values):
    steps = np.arange(1, len(values) + 1)
    return Series(steps=steps, values=np.array(values, dtype=float))


def beat(store, run, *, step=1, points=None, samples=None):
    return store.beat(
        run.id, run.attempt, step=step, seconds=1.0, rate=2.0, points=points or {}, samples=samples
    )


def test_a_run_comes_back_as_it_was_put_in(store):
    run_id = add(store, owner="安", step=3)
    run = Store(store.path).get(run_id)
    assert (run.owner, run.state, run.spec, run.step, run.steps, run.attempt) == (
        "安", "queued", {"a": 1}, 3, 10, 0,
    )  # fmt: skip
    assert run.unfinished
    assert not run.resumable
    assert [entry.kind for entry in store.log(run_id)] == ["created"]


def test_only_one_of_many_takes_a_change_of_state(store):
    run_id = add(store)
    stores = [Store(store.path) for _ in range(8)]
    barrier = threading.Barrier(len(stores))
    moved = []

    def move(each):
        barrier.wait()
        moved.append(each.move(run_id, "cancelled", before=("queued",)))

    threads = [threading.Thread(target=move, args=(each,)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(moved) == [False] * 7 + [True]


def test_only_as_many_are_claimed_as_there_are_slots_however_many_claim(store):
    for _ in range(6):
        add(store)
    stores = [Store(store.path) for _ in range(6)]
    claimed = []
    threads = [threading.Thread(target=lambda each=each: claimed.append(each.claim(3))) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = [run.id for run in claimed if run is not None]
    assert len(ids) == len(set(ids)) == 3
    assert {run.attempt for run in claimed if run is not None} == {1}


def test_the_queue_is_fair_between_owners(store):
    """By brute force: whoever has the fewest working runs is next, then whoever waited longest."""
    owners = ["ann", "ann", "ann", "ann", "bob", "cid", "bob"]
    ids = [add(store, owner=owner, queued=float(number)) for number, owner in enumerate(owners)]
    expected, working, waiting = [], dict.fromkeys(owners, 0), list(zip(ids, owners, strict=True))
    while waiting:
        least = min(working[owner] for _, owner in waiting)
        following = next(each for each in waiting if working[each[1]] == least)
        waiting.remove(following)
        working[following[1]] += 1
        expected.append(following[0])
    assert [run.id for run in store.queue()] == expected
    assert [store.claim(99).id for _ in ids] == expected
    assert [owners[ids.index(each)] for each in expected[:3]] == ["ann", "bob", "cid"]


def test_a_resumption_counts_as_a_start(store):
    """Ann's run was started first of all, and again last: it is Bob's turn, though Ann has waited longer."""
    first, second = add(store, owner="ann"), add(store, owner="bob")
    for run_id in (first, second, first):
        assert store.claim(1).id == run_id
        store.move(run_id, "cancelled", before=("starting",))
        if run_id == second:
            store.move(first, "queued", before=("cancelled",))
    for owner in ("ann", "bob"):
        add(store, owner=owner)
    assert [run.owner for run in store.queue()] == ["bob", "ann"]


def test_order_of_start_counts_the_working_ones(store):
    first = add(store, owner="ann")
    store.claim(1)
    waiting = [add(store, owner="ann"), add(store, owner="bob")]
    assert [run.id for run in order_of_start(store.runs(), {})] == [waiting[1], waiting[0]]
    assert first not in [run.id for run in store.queue()]


def test_a_worker_of_an_earlier_attempt_can_change_nothing(store):
    add(store)
    old = store.claim(1)
    store.move(old.id, "lost", before=("starting",))
    store.move(old.id, "queued", before=("lost",))
    new = store.claim(1)
    assert (old.attempt, new.attempt) == (1, 2)
    with pytest.raises(SupersededError):
        beat(store, old, points={"train_loss": line(1.0)})
    with pytest.raises(SupersededError):
        store.keep_until(old.id, old.attempt, 0)
    assert not store.move(old.id, "succeeded", before=("starting", "running"), attempt=old.attempt)
    assert store.series([old.id], ["train_loss"]) == {}
    assert store.get(old.id).state == "starting"
    assert beat(store, new) is False


def test_a_stop_reaches_the_worker_once(store):
    run_id = add(store)
    run = store.claim(1)
    assert beat(store, run) is False
    assert store.request_stop(run_id)
    assert not store.request_stop(run_id)
    assert beat(store, run) is True


def test_numbers_come_back_bit_for_bit_in_order_whatever_they_are(store):
    add(store)
    run = store.claim(1)
    values = [1.0, math.nan, math.inf, -math.inf, 5e-324, -0.0, math.pi]
    for number, value in enumerate(values):
        piece = Series(steps=np.array([number]), values=np.array([value]))
        layers = Series(steps=np.array([number]), values=np.array([[value, 2.0, 3.0]]))
        beat(store, run, points={"a": piece, "layers": layers})
    found = store.series([run.id], ["a", "layers", "none"])
    assert set(found) == {(run.id, "a"), (run.id, "layers")}
    assert found[run.id, "a"].values.tobytes() == np.array(values).tobytes()
    assert found[run.id, "a"].steps.tolist() == list(range(7))
    assert found[run.id, "layers"].values.shape == (7, 3)
    store.compact(run.id)
    again = store.series([run.id], ["a", "layers"])
    assert again[run.id, "a"].values.tobytes() == np.array(values).tobytes()
    assert store.series_names([run.id]) == ["a", "layers"]


def test_what_came_after_the_checkpoint_is_forgotten(store):
    add(store)
    run = store.claim(1)
    for step in (1, 2, 3, 4):
        piece = Series(steps=np.array([step]), values=np.array([float(step)]))
        beat(store, run, step=step, points={"a": piece}, samples=Samples(step=step, rows=(("s", "t", "w"),)))
    store.keep_until(run.id, run.attempt, 2)
    assert store.series([run.id], ["a"])[run.id, "a"].values.tolist() == [1.0, 2.0]
    assert store.samples(run.id).step == 2
    assert store.get(run.id).step == 2


@pytest.mark.parametrize("count", [1, 50, 999, 10_000])
def test_thinning_keeps_ends_and_extremes(count):
    generator = np.random.default_rng(count)
    values = generator.normal(size=count)
    values[count // 3] = 50.0
    values[count // 2] = -50.0
    kept = thinned(Series(steps=np.arange(count) * 7, values=values), 100)
    assert len(kept.steps) <= 102
    assert (np.diff(kept.steps) > 0).all()
    assert np.isin(kept.steps, np.arange(count) * 7).all()
    assert (kept.values == values[kept.steps // 7]).all()
    assert {0, (count - 1) * 7} <= set(kept.steps.tolist())
    assert {values.max(), values.min()} <= set(kept.values.tolist())


def test_thinning_keeps_what_is_no_number():
    values = np.zeros(5000)
    values[3210] = math.nan
    kept = thinned(Series(steps=np.arange(5000), values=values), 100)
    assert kept.steps[np.isnan(kept.values)].tolist() == [3210]


def test_an_owner_has_a_limit_and_others_do_not_count(store):
    for _ in range(2):
        add(store, most_unfinished=2)
    with pytest.raises(RunProblem) as problem:
        add(store, most_unfinished=2)
    assert (problem.value.code, problem.value.details) == ("too_many_runs", {"limit": 2})
    add(store, owner="bob", most_unfinished=2)
    add(store, state="succeeded")


def test_the_version_changes_with_every_write_of_anybody_and_not_otherwise(store):
    other = Store(store.path)
    versions = [store.version(), store.version()]
    run_id = add(other)
    versions.append(store.version())
    store.write_log(run_id, "note")
    versions.append(store.version())
    assert versions[0] == versions[1]
    assert len(set(versions)) == 3


def test_deleted_runs_are_out_of_sight_and_come_back(store):
    run_id, working = add(store, state="succeeded"), add(store)
    assert store.set_deleted(run_id, 1.0)
    assert not store.set_deleted(working, 1.0)
    assert [run.id for run in store.runs()] == [working]
    assert [run.id for run in store.runs(deleted=True)] == [run_id]
    assert store.set_deleted(run_id, None)
    store.forget(run_id)
    assert store.get(run_id) is None
    assert store.log(run_id) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"not a database at all, but some text" * 200])
def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "runs.sqlite"
    path.write_bytes(content)
    if not content:
        Store(path)
        return
    with pytest.raises(RunProblem, match=r"runs\.sqlite cannot be used"):
        Store(path)


def test_a_database_of_another_format_is_refused(store):
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(RunProblem, match="its format is 99"):
        Store(store.path)


def test_a_write_that_fails_in_the_middle_changes_nothing(store):
    run_id = add(store)

    def write_half() -> None:
        with store.transaction() as connection:
            connection.execute("UPDATE runs SET state = 'failed' WHERE id = ?", (run_id,))
            connection.execute("UPDATE nothing SET a = 1")

    with pytest.raises(sqlite3.OperationalError):
        write_half()
    assert store.get(run_id).state == "queued"


def test_ids_do_not_repeat(store):
    ids = [add(store, state="succeeded") for _ in range(200)]
    assert len(set(ids)) == 200
    assert all(len(each) == 8 for each in ids)
    assert not any(character in "il1o0" for character in itertools.chain(*ids))
