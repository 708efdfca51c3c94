"""What a run costs beside the training itself, and how fast its measurements are read.

1. A worker of the run system against a bare loop over the trainer's events, for the same recipe, each in a process of its
   own, in turns; the ratios of the medians, of the time on the clock and of the processor's. Both leave out reading the data
   and loading torch.
2. 100 runs of 10,000 points: a list of all, and one series of all laid over one another, against the usual table with a row
   a point.

    PYTHONPATH=. python benchmarks/worker.py
"""

import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RECIPE = "assets/presets/reverse.toml"
STEPS, TURNS = 300, 5
RUNS, POINTS = 100, 10_000


def main() -> None:
    if len(sys.argv) == 2:
        print(*{"bare": bare_seconds, "worker": worker_seconds}[sys.argv[1]]())
        return
    cost()
    reading()


def cost() -> None:
    seconds: dict[str, list[tuple[float, float]]] = {"bare": [], "worker": []}
    for _ in range(TURNS):
        for name, measured in seconds.items():
            command = [sys.executable, __file__, name]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            clock, processor = map(float, told.split()[-2:])
            measured.append((clock, processor))
    for kind, place in (("on the clock", 0), ("of the processor", 1)):
        bare, worker = (statistics.median(turn[place] for turn in measured) for measured in seconds.values())
        print(
            f"{STEPS} steps of {Path(RECIPE).stem}, {kind}: bare loop {bare:.2f} s, worker {worker:.2f} s: "
            f"{worker / bare - 1:+.1%}"
        )


def prepared():
    import torch

    from transformer.recipe import prepare, read_recipe

    torch.set_num_threads(1)
    return prepare(read_recipe(Path(RECIPE), (f"training.steps={STEPS}",)))


Seconds = tuple[float, float]


def now() -> Seconds:
    """The clock's time, and what this process has used of the processor's."""
    return time.perf_counter(), time.process_time()


def since(began: Seconds) -> Seconds:
    return time.perf_counter() - began[0], time.process_time() - began[1]


def bare_seconds() -> Seconds:
    training = prepared()
    began = now()
    for _event in training.trainer.events():
        pass
    return since(began)


def worker_seconds() -> Seconds:
    from lab.runs import training_worker
    from lab.runs.recorder import Recorder
    from lab.runs.settings import Settings
    from lab.runs.store import Store

    training = prepared()
    # The data is read already, as for the bare loop.
    training_worker.prepare = lambda *_: training
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data=Path(folder))
        store = Store(settings.database)
        spec = training.recipe.to_dict()
        store.add(kind="training", name="", owner="", group="", spec=spec, steps=STEPS, state="queued")
        run = store.claim(1)
        assert run is not None
        with Recorder(store, run.id, run.attempt) as recorder:
            began = now()
            training_worker.train(settings, store, run, recorder, recorder.should_stop.is_set)
            recorder.write()
            return since(began)


def reading() -> None:
    from lab.runs.store import Series, Store

    generator = np.random.default_rng(0)
    steps = np.arange(1, POINTS + 1)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "runs.sqlite")
        rows = sqlite3.connect(Path(folder) / "rows.sqlite")
        rows.execute(
            "CREATE TABLE points (run TEXT, series TEXT, step INTEGER, value REAL, PRIMARY KEY (run, series, step))"
            " WITHOUT ROWID"
        )
        ids = []
        for number in range(RUNS):
            spec = {"training": {"seed": number}}
            run_id = store.add(
                kind="training", name="", owner="", group="", spec=spec, steps=POINTS, state="succeeded"
            )
            values = generator.normal(size=POINTS)
            store.add_points(run_id, {"train_loss": Series(steps=steps, values=values)})
            rows.executemany(
                "INSERT INTO points VALUES (?, 'train_loss', ?, ?)",
                ((run_id, step, value) for step, value in zip(steps.tolist(), values.tolist(), strict=True)),
            )
            ids.append(run_id)
        rows.commit()

        def listed() -> None:
            assert len(store.runs()) == RUNS

        def overlaid() -> None:
            assert len(store.series(ids, ["train_loss"], most=400)) == RUNS

        def row_by_row() -> None:
            for run_id in ids:
                found = rows.execute(
                    "SELECT step, value FROM points WHERE run = ? AND series = 'train_loss' ORDER BY step",
                    (run_id,),
                ).fetchall()
                assert np.array(found).shape == (POINTS, 2)

        list_seconds, overlay, peer = (best(work) for work in (listed, overlaid, row_by_row))
        print(f"{RUNS} runs of {POINTS:,} points: listed in {1000 * list_seconds:.1f} ms")
        print(
            f"one series of all, thinned to 400 points a run: {1000 * overlay:.0f} ms; a table with a row a point takes "
            f"{peer / overlay:.1f} times that to read"
        )


def best(work) -> float:
    measured = []
    for _ in range(5):
        began = time.perf_counter()
        work()
        measured.append(time.perf_counter() - began)
    return min(measured)


if __name__ == "__main__":
    main()
