"""What a worker has to say, collected as it comes and written to the store once a second by a thread of its own.

The thread shows that the worker lives, also while it reads data or evaluates, and brings back whether it is asked to
stop.
"""

import contextlib
import math
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from lab.runs.store import Samples, Series, Store, SupersededError

BEAT_SECONDS = 1.0
RATE_SECONDS = 6.0
Value = float | Sequence[float]


class Recorder:
    """Writes a worker's measurements; use it as a context manager.

    Args:
        store: Where to.
        run_id: Which run.
        attempt: The worker's attempt.

    Attributes:
        should_stop: Set when the run is asked to stop, or has gone on without this worker.
        superseded: Set when the run has gone on without this worker.
    """

    def __init__(self, store: Store, run_id: str, attempt: int) -> None:
        self.should_stop = threading.Event()
        self.superseded = threading.Event()
        self._store, self._run_id, self._attempt = store, run_id, attempt
        self._lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._points: dict[str, tuple[list[int], list[Value]]] = {}
        self._samples: Samples | None = None
        self._step = 0
        self._written_at = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="recorder", daemon=True)

    def __enter__(self) -> "Recorder":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()

    def begin_at(self, step: int) -> None:
        """Say at which step the work goes on after an interruption; what came before counts for no rate."""
        with self._lock:
            self._step = step
            self._recent.clear()

    def reach(self, step: int) -> None:
        """Say how many steps are done."""
        with self._lock:
            self._step = step

    def add(self, step: int, values: Mapping[str, Value]) -> None:
        """Add one point to each series."""
        with self._lock:
            self._step = step
            for name, value in values.items():
                steps, measured = self._points.setdefault(name, ([], []))
                steps.append(step)
                measured.append(value)

    def show(self, samples: Samples) -> None:
        """Say what the model writes now."""
        with self._lock:
            self._samples = samples

    def write(self) -> None:
        """Write everything that was collected.

        Raises:
            sqlite3.OperationalError: If it cannot be written now; it is kept for the next time.
            SupersededError: If the run has gone on without this worker.
        """
        with self._write_lock:
            with self._lock:
                points, self._points = self._points, {}
                samples, self._samples = self._samples, None
                step = self._step
            now = time.monotonic()
            try:
                asked = self._store.beat(
                    self._run_id,
                    self._attempt,
                    step=step,
                    seconds=now - self._written_at,
                    rate=self._rate(now, step),
                    points={name: piece(*collected) for name, collected in points.items()},
                    samples=samples,
                )
            except sqlite3.Error:
                self._keep(points, samples)
                raise
            self._written_at = now
        if asked:
            self.should_stop.set()

    def _keep(self, points: dict[str, tuple[list[int], list[Value]]], samples: Samples | None) -> None:
        with self._lock:
            for name, (steps, values) in self._points.items():
                before_steps, before_values = points.setdefault(name, ([], []))
                before_steps.extend(steps)
                before_values.extend(values)
            self._points = points
            self._samples = self._samples or samples

    def _rate(self, now: float, step: int) -> float | None:
        self._recent.append((now, step))
        while len(self._recent) > 2 and now - self._recent[1][0] > RATE_SECONDS:
            self._recent.popleft()
        then, before = self._recent[0]
        rate = (step - before) / (now - then) if now > then else 0.0
        return rate if rate > 0 and math.isfinite(rate) else None

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_SECONDS):
            try:
                self.write()
            except sqlite3.Error as error:
                tell(f"Nothing could be written to the store ({error}); trying again.")
            except SupersededError:
                self.superseded.set()
                self.should_stop.set()
                return


def tell(text: str) -> None:
    """Write a line of the worker's log, unless the disk is full."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def piece(steps: list[int], values: list[Value]) -> Series:
    """A piece of a series."""
    return Series(steps=np.array(steps, dtype=np.int64), values=np.array(values, dtype=np.float64))
