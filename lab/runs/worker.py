"""The worker of one run: ``python -m lab.runs.worker RUN ATTEMPT``, started by the supervisor.

It consumes the events of a training or an experiment, and ends in one of these ways: all done (succeeded), asked to stop
(saved, cancelled), told by a signal (saved, back in the queue), or something went wrong (failed, with a code that
says what). Killed, it leaves a folder from which the next worker goes on.
"""

import errno
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from lab.runs import processes
from lab.runs.problems import RunProblem
from lab.runs.recorder import Recorder, tell
from lab.runs.settings import Settings, read_settings
from lab.runs.store import WORKING, Run, Store, SupersededError

# How long a worker tries to write how it ended, if the disk is full.
LAST_WORDS_SECONDS = 60.0
OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT if hasattr(errno, "EDQUOT") else errno.ENOSPC, errno.EFBIG}


def work(settings: Settings, run_id: str, attempt: int) -> None:
    """Work on a run until it ends."""
    store = Store(settings.database)
    interrupted = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: interrupted.set())
    run = store.get(run_id)
    now = time.time()
    if run is None or not store.move(
        run_id,
        "running",
        before=("starting",),
        attempt=attempt,
        log="started",
        details={"attempt": attempt},
        heartbeat=now,
        ended=None,
        **own_process(),
    ):
        return
    with Recorder(store, run_id, attempt) as recorder:

        def should_stop() -> bool:
            return recorder.should_stop.is_set() or interrupted.is_set()

        ending: dict[str, Any]
        try:
            outcome = consume(settings, store, run, recorder, should_stop)
            if outcome is not None:
                ending = {"to": "succeeded", "outcome": outcome or None}
            elif recorder.should_stop.is_set():
                ending = {"to": "cancelled"}
            else:
                ending = {"to": "queued", "log": "interrupted", "queued": time.time()}
        except SupersededError:
            return
        except Exception as error:
            tell(traceback.format_exc())
            ending = {"to": "failed", "error": problem_of(error).to_dict()}
        if recorder.superseded.is_set():
            return
        conclude(store, run_id, attempt, recorder, **ending)


def own_process() -> dict[str, Any]:
    """This process, as the store's columns."""
    return {"pid": os.getpid(), "process_started": processes.start_time(os.getpid())}


def conclude(store: Store, run_id: str, attempt: int, recorder: Recorder, *, to: Any, **columns: Any) -> None:
    """Write the last points and how the run ended, again and again while the disk is full."""
    deadline = time.monotonic() + LAST_WORDS_SECONDS
    while True:
        try:
            recorder.write()
            store.compact(run_id)
            details = columns.get("error") or {}
            ended = None if to == "queued" else time.time()
            store.move(
                run_id, to, before=WORKING, attempt=attempt, details=details, ended=ended, rate=None, crashes=0, **columns
            )  # fmt: skip
            return
        except SupersededError:
            return
        except sqlite3.OperationalError as error:
            tell(f"{error}; trying again.")
            if time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def problem_of(error: Exception) -> RunProblem:
    """What an error means to the run's owner."""
    if isinstance(error, RunProblem):
        return error
    if isinstance(error, OSError) and error.errno in OUT_OF_SPACE:
        return RunProblem("disk_full", "The disk is full; make room, then resume.")
    if isinstance(error, sqlite3.OperationalError) and "full" in str(error):
        return RunProblem("disk_full", "The disk is full; make room, then resume.")
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return RunProblem(
            "out_of_memory", "There was not enough memory; make the model or the batches smaller."
        )
    if isinstance(error, ValueError):
        return RunProblem("bad_data", str(error), reason=str(error))
    return RunProblem(
        "crashed", f"{type(error).__name__}: {error}", reason=f"{type(error).__name__}: {error}"
    )


def consume(
    settings: Settings, store: Store, run: Run, recorder: Recorder, should_stop: Callable[[], bool]
) -> dict[str, Any] | None:
    """Do the work of a run; returns what came out, or None if it was stopped.

    Raises:
        RunProblem: If it cannot go on.
    """
    # Here and not above, so that a worker is heard of before torch is loaded.
    import torch

    torch.set_num_threads(1)
    if run.kind == "experiment":
        from lab.runs.experiment_worker import experiment

        return experiment(settings, store, run, recorder, should_stop)
    from lab.runs.training_worker import train

    return train(settings, store, run, recorder, should_stop)


def main() -> None:
    """Run the command line."""
    processes.make_way()
    run_id, attempt = sys.argv[1:]
    work(read_settings(), run_id, int(attempt))


if __name__ == "__main__":
    main()
