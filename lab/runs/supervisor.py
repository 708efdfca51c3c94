"""The supervisor of a data folder: starts workers, stops overdue ones, and brings back the runs of lost ones.

``python -m lab.runs.supervisor`` is started by whoever finds work and no supervisor (`lab.runs.laboratory`). A lock
lets one at a time into a data folder; it is the operating system's, so it is free again however the supervisor ends. What
a supervisor needs to know stands in the store: one that was killed is replaced by one that adopts its workers. It
ends by itself once nothing is left to do.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from dataclasses import dataclass, field

import filelock

from lab.runs import processes
from lab.runs.problems import RunProblem
from lab.runs.settings import Settings, read_settings
from lab.runs.store import MOST_CRASHES, UNFINISHED, WORKING, Run, Store

TICK_SECONDS = 0.25
IDLE_SECONDS = 20.0
# A worker that is not heard of for so long, while its process is there, hangs.
SILENT_SECONDS = 90.0
DELETED_SECONDS = 24 * 3600.0


@dataclass(kw_only=True)
class Supervisor:
    """Looks after the runs of one data folder; made by whoever holds its lock."""

    settings: Settings
    store: Store
    children: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    # For each run its last heartbeat, and when, by this process's clock, it was first seen: a machine that slept has
    # old heartbeats but no silent workers.
    heard: dict[str, tuple[float | None, float]] = field(default_factory=dict)

    def tick(self) -> int:
        """Do what is to be done now; returns how many runs wait, work, or will again."""
        for run in self.store.runs(states=WORKING):
            self._look_after(run)
        for run in self.store.runs(states=("lost",)):
            if run.crashes < MOST_CRASHES:
                self.store.move(
                    run.id, "queued", before=("lost",), log="recovered", queued=time.time(), error=None
                )
        while (claimed := self.store.claim(self.settings.slots)) is not None:
            self._start(claimed)
        return sum(run.unfinished for run in self.store.runs())

    def _start(self, run: Run) -> None:
        log = self.settings.folder(run.id) / "worker.log"
        try:
            child = processes.detach(
                "lab.runs.worker",
                run.id,
                str(run.attempt),
                log=log,
                environment={**self.settings.variables(), "OMP_NUM_THREADS": "1"},
            )
        except OSError as error:
            problem = {"code": "crashed", "reason": str(error)}
            self.store.move(run.id, "failed", before=WORKING, error=problem, ended=time.time())
            return
        self.children[run.id] = child
        started = processes.start_time(child.pid)
        self.store.set_columns(run.id, run.attempt, pid=child.pid, process_started=started)

    def _look_after(self, run: Run) -> None:
        process = processes.find(run.pid, run.process_started)
        if process is None:
            self._ended(run)
            return
        overdue = run.stop_requested and time.time() - run.stop_requested > self.settings.grace_seconds
        if overdue or self._silent(run):
            processes.end(process)
            self._ended(run)

    def _silent(self, run: Run) -> bool:
        heartbeat, since = self.heard.get(run.id, (None, 0.0))
        if heartbeat != run.heartbeat:
            self.heard[run.id] = run.heartbeat, time.monotonic()
            return False
        return time.monotonic() - since > SILENT_SECONDS

    def _ended(self, run: Run) -> None:
        child = self.children.pop(run.id, None)
        exit_status = child.wait() if child is not None else None
        # It may have ended as it should between our reading of the store and our look for its process: then this changes
        # nothing, since it is in none of these states or in another attempt any more.
        if run.stop_requested:
            self.store.move(
                run.id,
                "cancelled",
                before=WORKING,
                attempt=run.attempt,
                log="killed",
                ended=time.time(),
                rate=None,
            )
            return
        crashes = run.crashes + 1 if run.step <= run.crash_step else 1
        problem = {"code": "killed", "times": crashes} if crashes >= MOST_CRASHES else None
        self.store.move(
            run.id,
            "lost",
            before=WORKING,
            attempt=run.attempt,
            details={"step": run.step, "exit": exit_status},
            error=problem,
            crashes=crashes,
            crash_step=max(run.step, run.crash_step),
            ended=time.time(),
            rate=None,
        )

    def purge(self) -> None:
        """Remove runs that were deleted a day ago."""
        for run in self.store.runs(deleted=True):
            if run.deleted is not None and time.time() - run.deleted > DELETED_SECONDS:
                shutil.rmtree(self.settings.folder(run.id), ignore_errors=True)
                self.store.forget(run.id)


def supervise(settings: Settings, *, wait_seconds: float = 5.0) -> bool:
    """Look after the runs of a data folder until nothing is left to do.

    Args:
        settings: Which folder, and how.
        wait_seconds: How long to wait for the lock.

    Returns:
        False if another supervisor holds the lock.
    """
    settings.data.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(settings.lock)
    try:
        lock.acquire(timeout=wait_seconds)
    except filelock.Timeout:
        return False
    try:
        store = Store(settings.database)
        supervisor = Supervisor(settings=settings, store=store)
        supervisor.purge()
        busy_at = time.monotonic()
        while True:
            try:
                if supervisor.tick():
                    busy_at = time.monotonic()
                elif time.monotonic() - busy_at > IDLE_SECONDS and _leave(store, lock):
                    return True
            except sqlite3.OperationalError as error:
                # A full disk, most likely: the workers say so themselves; what is to be done can wait.
                print(f"{error}; trying again.", file=sys.stderr, flush=True)
                time.sleep(1.0)
            time.sleep(TICK_SECONDS)
    finally:
        lock.release()


def _leave(store: Store, lock: filelock.BaseFileLock) -> bool:
    # Inside a transaction: whoever puts a run into the queue does so before it, and is seen, or after it, and finds the
    # lock free.
    with store.transaction() as connection:
        (count,) = connection.execute(
            f"SELECT count(*) FROM runs WHERE deleted IS NULL AND state IN ({', '.join('?' * len(UNFINISHED))})",
            UNFINISHED,
        ).fetchone()
        if count == 0:
            lock.release()
    return bool(count == 0)


def main() -> None:
    """Run the command line."""
    if hasattr(os, "nice"):
        os.nice(1)
    try:
        supervise(read_settings())
    except RunProblem as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
