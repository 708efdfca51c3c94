"""The store of all runs: one SQLite database, the only truth about them, which any number of processes reads and writes.

A run moves through states by compare-and-set: a change names the states it may come from and fails if the run is in
none of them. Each start of a run's worker is an *attempt* with a number; whatever a worker writes names its attempt, so that
one that was thought dead and wakes up again can change nothing.

Metrics are stored in pieces, a block of steps and a block of values for each series, as the worker sends them.
NaN and infinity are values like others: a training that diverges is a result.

Legend: N points, L layers.
"""

import itertools
import json
import math
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lab.runs.problems import RunProblem

State = Literal["queued", "starting", "running", "succeeded", "failed", "cancelled", "lost"]
Kind = Literal["training", "experiment"]
UNFINISHED: tuple[State, ...] = ("queued", "starting", "running")
WORKING: tuple[State, ...] = ("starting", "running")
RESUMABLE: tuple[State, ...] = ("failed", "cancelled", "lost")
# A run whose workers are lost so often in a row, without getting further, is left alone.
MOST_CRASHES = 3

SCHEMA = 1
BUSY_SECONDS = 20.0
# Letters and digits that no font confuses.
ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
ID_LENGTH = 8

TABLES = """
CREATE TABLE runs (
    id TEXT PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, owner TEXT NOT NULL, grp TEXT NOT NULL,
    state TEXT NOT NULL, spec TEXT NOT NULL, step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL,
    created REAL NOT NULL, queued REAL, started REAL, ended REAL, heartbeat REAL,
    seconds REAL NOT NULL DEFAULT 0, rate REAL, attempt INTEGER NOT NULL DEFAULT 0,
    pid INTEGER, process_started REAL, crashes INTEGER NOT NULL DEFAULT 0, crash_step INTEGER NOT NULL DEFAULT -1,
    error TEXT, facts TEXT NOT NULL DEFAULT '{}', outcome TEXT, stop_requested REAL, deleted REAL
);
CREATE INDEX runs_by_state ON runs (state);
CREATE TABLE points (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, series TEXT NOT NULL, width INTEGER NOT NULL,
    steps BLOB NOT NULL, measured BLOB NOT NULL
);
CREATE INDEX points_by_series ON points (run, series);
CREATE TABLE samples (run TEXT NOT NULL, step INTEGER NOT NULL, lines TEXT NOT NULL, PRIMARY KEY (run, step));
CREATE TABLE log (id INTEGER PRIMARY KEY, run TEXT NOT NULL, time REAL NOT NULL, kind TEXT NOT NULL, details TEXT NOT NULL);
CREATE INDEX log_by_run ON log (run);
"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as it stands.

    Attributes:
        id: What addresses name it by.
        kind: What it does.
        name: What its owner calls it.
        owner: Whose it is.
        group: ID that the runs of one comparison share, or empty.
        state: Where it stands.
        spec: A training's recipe, or an experiment's ``name`` and ``options``.
        step: Steps done.
        steps: Steps in all.
        created: When it was made, in seconds since 1970, as all times here.
        queued: When it was put into the queue last.
        started: When its last worker was started.
        ended: When it ended.
        heartbeat: When its worker was heard of last.
        seconds: Seconds of work, over all attempts.
        rate: Steps a second lately, while it runs.
        attempt: How often a worker was started for it.
        pid: Its worker's process.
        process_started: When that process started: with `pid` it names a process for good.
        crashes: Workers in a row that were lost without getting further.
        crash_step: Steps done when the last worker was lost.
        error: Why it failed: a code with details; see `lab.runs.problems`.
        facts: What is known since it began: parameters, vocabulary sizes, pairs, names of the layers.
        outcome: What an experiment found.
        stop_requested: When it was asked to stop.
        deleted: When it was deleted.
        shipped: Whether it is the training of a checkpoint that comes with the project; those cannot be changed.
    """

    id: str
    kind: Kind
    name: str
    owner: str
    group: str
    state: State
    spec: dict[str, Any]
    step: int
    steps: int
    created: float
    queued: float | None = None
    started: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    seconds: float = 0.0
    rate: float | None = None
    attempt: int = 0
    pid: int | None = None
    process_started: float | None = None
    crashes: int = 0
    crash_step: int = -1
    error: dict[str, Any] | None = None
    facts: dict[str, Any]
    outcome: dict[str, Any] | None = None
    stop_requested: float | None = None
    deleted: float | None = None
    shipped: bool = False

    @property
    def unfinished(self) -> bool:
        """Whether it waits or works, or will again by itself."""
        return self.state in UNFINISHED or (self.state == "lost" and self.crashes < MOST_CRASHES)

    @property
    def resumable(self) -> bool:
        """Whether it can be put into the queue again; a training that diverged would only diverge again."""
        diverged = self.error is not None and self.error["code"] == "diverged"
        kept = self.deleted is None and not self.shipped
        return self.state in RESUMABLE and kept and not self.unfinished and not diverged

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the rest will take at the present rate; None if that is not known."""
        return (self.steps - self.step) / self.rate if self.state == "running" and self.rate else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """What was measured over a run.

    Attributes:
        steps: Steps, rising, (N,).
        values: Values, (N,), or (N, L) with a column for each layer.
    """

    steps: NDArray[np.int64]
    values: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What a model wrote at a step.

    Attributes:
        step: Steps done.
        rows: Source, reference, and what the model wrote.
    """

    step: int
    rows: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class LogEntry:
    """Something that happened to a run."""

    time: float
    kind: str
    details: dict[str, Any]


class SupersededError(Exception):
    """The run has gone on without this worker, which must change nothing any more."""


class Store:
    """The database of all runs; safe to share between threads.

    Args:
        path: The database, made if need be.

    Raises:
        RunProblem: If the file is no database of this format, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit: transactions are begun by hand, IMMEDIATE, so that no reader has to be upgraded.
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._create()
        except (sqlite3.DatabaseError, OSError) as error:
            raise RunProblem(
                "bad_database", f"The database of runs {path} cannot be used: {error}.", reason=str(error)
            ) from error

    def _create(self) -> None:
        with self.transaction() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in TABLES.split(";\n"):
                    if statement.strip():
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA}")
            elif version != SCHEMA:
                raise sqlite3.DatabaseError(f"its format is {version}, this program knows {SCHEMA}")

    def close(self) -> None:
        """Let go of the database."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write everything inside or nothing; nobody else writes meanwhile."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def version(self) -> tuple[int, int]:
        """Differs from what it was once anything was written: a key for what is read from here."""
        with self._lock:
            (others,) = self._connection.execute("PRAGMA data_version").fetchone()
            return others, self._connection.total_changes

    def _select(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    # Runs

    def add(
        self,
        *,
        kind: Kind,
        name: str,
        owner: str,
        group: str,
        spec: Mapping[str, Any],
        steps: int,
        state: State,
        run_id: str | None = None,
        most_unfinished: int | None = None,
        **columns: Any,
    ) -> str:
        """Add a run and return its ID.

        Args:
            kind: What it does.
            name: What its owner calls it.
            owner: Whose it is.
            group: ID that the runs of one comparison share, or empty.
            spec: A training's recipe, or an experiment's name and options.
            steps: Steps in all.
            state: State to begin in.
            run_id: Its ID; by default a new one.
            most_unfinished: How many unfinished runs the owner may have with this one.
            **columns: Further columns.

        Raises:
            RunProblem: If the owner has too many unfinished runs.
        """
        now = time.time()
        values = {
            "id": run_id or new_id(), "kind": kind, "name": name, "owner": owner, "grp": group, "state": state,
            "spec": to_json(spec), "steps": steps, "created": now, "queued": now if state == "queued" else None,
            **{column: encoded(value) for column, value in columns.items()},
        }  # fmt: skip
        with self.transaction() as connection:
            if most_unfinished is not None:
                (count,) = connection.execute(
                    f"SELECT count(*) FROM runs WHERE owner = ? AND deleted IS NULL AND state IN {marks(UNFINISHED)}",
                    (owner, *UNFINISHED),
                ).fetchone()
                if count >= most_unfinished:
                    raise RunProblem(
                        "too_many_runs",
                        f"{most_unfinished} runs wait or work already; stop one of them, or wait until one ends.",
                        limit=most_unfinished,
                    )
            connection.execute(
                f"INSERT INTO runs ({', '.join(values)}) VALUES {marks(values)}", tuple(values.values())
            )
            write_log(connection, values["id"], "created", {})
        return str(values["id"])

    def get(self, run_id: str) -> Run | None:
        """The run of this ID, deleted or not."""
        rows = self._select("SELECT * FROM runs WHERE id = ?", (run_id,))
        return run_of(rows[0]) if rows else None

    def runs(self, *, deleted: bool = False, states: Iterable[State] | None = None) -> list[Run]:
        """All runs, newest first.

        Args:
            deleted: Whether to list the deleted ones, instead of the others.
            states: Only runs in one of these.
        """
        query = f"SELECT * FROM runs WHERE deleted IS {'NOT ' if deleted else ''}NULL"
        chosen = tuple(states) if states is not None else ()
        if states is not None:
            query += f" AND state IN {marks(chosen)}"
        return [run_of(row) for row in self._select(f"{query} ORDER BY created DESC, rowid DESC", chosen)]

    def move(
        self,
        run_id: str,
        to: State,
        *,
        before: Iterable[State],
        attempt: int | None = None,
        log: str | None = None,
        details: Mapping[str, Any] | None = None,
        **columns: Any,
    ) -> bool:
        """Change a run's state, if it is in one of the states `before`.

        Args:
            run_id: Which run.
            to: State to move to.
            before: States to move from.
            attempt: The attempt that must be the run's present one, for a worker.
            log: Kind of the log's entry; by default the new state.
            details: What the log says beside.
            **columns: Further columns to set.

        Returns:
            Whether it was moved.
        """
        allowed = tuple(before)
        changes = {"state": to, **{column: encoded(value) for column, value in columns.items()}}
        condition = f"id = ? AND state IN {marks(allowed)}"
        values: tuple[Any, ...] = (run_id, *allowed)
        if attempt is not None:
            condition += " AND attempt = ?"
            values = (*values, attempt)
        with self.transaction() as connection:
            sets = ", ".join(f"{column} = ?" for column in changes)
            moved = connection.execute(
                f"UPDATE runs SET {sets} WHERE {condition}", (*changes.values(), *values)
            ).rowcount
            if moved:
                write_log(connection, run_id, log or to, details or {})
        return bool(moved)

    def request_stop(self, run_id: str) -> bool:
        """Ask a working run to stop; returns whether it works and had not been asked."""
        with self.transaction() as connection:
            changed = connection.execute(
                f"UPDATE runs SET stop_requested = ? WHERE id = ? AND stop_requested IS NULL AND state IN {marks(WORKING)}",
                (time.time(), run_id, *WORKING),
            ).rowcount
            if changed:
                write_log(connection, run_id, "stop_requested", {})
        return bool(changed)

    def set_deleted(self, run_id: str, deleted: float | None) -> bool:
        """Delete a run that does not work, or take that back; returns whether it was changed."""
        with self.transaction() as connection:
            return bool(
                connection.execute(
                    f"UPDATE runs SET deleted = ? WHERE id = ? AND state NOT IN {marks(UNFINISHED)}",
                    (deleted, run_id, *UNFINISHED),
                ).rowcount
            )

    def rename(self, run_id: str, name: str) -> None:
        """Call a run something else."""
        with self.transaction() as connection:
            connection.execute("UPDATE runs SET name = ? WHERE id = ?", (name, run_id))

    def forget(self, run_id: str) -> None:
        """Remove all that is known of a run."""
        with self.transaction() as connection:
            for table, column in (("points", "run"), ("samples", "run"), ("log", "run"), ("runs", "id")):
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (run_id,))

    # The queue

    def queue(self) -> list[Run]:
        """The waiting runs in the order in which they will start.

        The next is of the owner with the fewest working runs; among owners with equally many, of the one whose last
        start is longest ago; among those, whoever has waited longest.
        """
        with self._lock:
            served = last_starts(self._connection)
        return order_of_start(self.runs(states=UNFINISHED), served)

    def claim(self, slots: int) -> Run | None:
        """Take the next run out of the queue, if fewer than `slots` work; its attempt is a new one."""
        with self.transaction() as connection:
            rows = connection.execute(
                f"SELECT * FROM runs WHERE deleted IS NULL AND state IN {marks(UNFINISHED)}", UNFINISHED
            ).fetchall()
            unfinished = [run_of(row) for row in rows]
            waiting = sum(run.state == "queued" for run in unfinished)
            if not waiting or len(unfinished) - waiting >= slots:
                return None
            following, now = order_of_start(unfinished, last_starts(connection))[0], time.time()
            connection.execute(
                "UPDATE runs SET state = 'starting', attempt = attempt + 1, pid = NULL, process_started = NULL,"
                " stop_requested = NULL, error = NULL, heartbeat = ?, started = ?, rate = NULL WHERE id = ?",
                (now, now, following.id),
            )
            row = connection.execute("SELECT * FROM runs WHERE id = ?", (following.id,)).fetchone()
        return run_of(row)

    # What a worker writes

    @contextmanager
    def _working(self, run_id: str, attempt: int) -> Iterator[sqlite3.Connection]:
        with self.transaction() as connection:
            row = connection.execute(
                f"SELECT 1 FROM runs WHERE id = ? AND attempt = ? AND state IN {marks(WORKING)}",
                (run_id, attempt, *WORKING),
            ).fetchone()
            if row is None:
                raise SupersededError(run_id)
            yield connection

    def set_columns(self, run_id: str, attempt: int, **columns: Any) -> None:
        """Set columns of a working run.

        Raises:
            SupersededError: If another attempt works on it, or none.
        """
        with self._working(run_id, attempt) as connection:
            sets = ", ".join(f"{column} = ?" for column in columns)
            connection.execute(
                f"UPDATE runs SET {sets} WHERE id = ?", (*map(encoded, columns.values()), run_id)
            )

    def beat(
        self,
        run_id: str,
        attempt: int,
        *,
        step: int,
        seconds: float,
        rate: float | None,
        points: Mapping[str, Series],
        samples: Samples | None,
    ) -> bool:
        """Write that a worker lives, and what it has measured since the last time.

        Args:
            run_id: Which run.
            attempt: The worker's attempt.
            step: Steps done.
            seconds: Seconds of work since the last time.
            rate: Steps a second lately.
            points: What was measured, by series.
            samples: What the model writes.

        Returns:
            Whether the run is asked to stop.

        Raises:
            SupersededError: If another attempt works on it, or none.
        """
        with self._working(run_id, attempt) as connection:
            connection.execute(
                "UPDATE runs SET heartbeat = ?, step = ?, seconds = seconds + ?, rate = ? WHERE id = ?",
                (time.time(), step, seconds, rate, run_id),
            )
            write_points(connection, run_id, points)
            if samples is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO samples VALUES (?, ?, ?)",
                    (run_id, samples.step, to_json(samples.rows)),
                )
            row = connection.execute("SELECT stop_requested FROM runs WHERE id = ?", (run_id,)).fetchone()
        return row["stop_requested"] is not None

    def keep_until(self, run_id: str, attempt: int, step: int) -> None:
        """Forget what was measured after `step`: a resumed training measures it again.

        Raises:
            SupersededError: If another attempt works on the run, or none.
        """
        with self._working(run_id, attempt) as connection:
            for name in series_names(connection, [run_id]):
                found = read_points(connection, run_id, name)
                kept = found.steps <= step
                replace_points(
                    connection, run_id, name, Series(steps=found.steps[kept], values=found.values[kept])
                )
            connection.execute("DELETE FROM samples WHERE run = ? AND step > ?", (run_id, step))
            connection.execute("UPDATE runs SET step = ? WHERE id = ?", (step, run_id))

    # What was measured

    def add_points(self, run_id: str, points: Mapping[str, Series]) -> None:
        """Add points to a run that no worker works on, such as an imported one."""
        with self.transaction() as connection:
            write_points(connection, run_id, points)

    def compact(self, run_id: str) -> None:
        """Join the pieces of each series into one, which is read faster."""
        with self.transaction() as connection:
            for name in series_names(connection, [run_id]):
                replace_points(connection, run_id, name, read_points(connection, run_id, name))

    def series_names(self, run_ids: Iterable[str]) -> list[str]:
        """Names of all series that one of these runs has, sorted."""
        with self._lock:
            return series_names(self._connection, list(run_ids))

    def series(
        self, run_ids: Iterable[str], names: Iterable[str], *, most: int | None = None
    ) -> dict[tuple[str, str], Series]:
        """What was measured, by run and name; a run that lacks a series is left out.

        Args:
            run_ids: Which runs.
            names: Which series.
            most: Thin each series to about so many points; see `thinned`.
        """
        wanted = list(names)
        result = {}
        with self._lock:
            for run_id in run_ids:
                for name in wanted:
                    found = read_points(self._connection, run_id, name)
                    if len(found.steps):
                        result[run_id, name] = thinned(found, most) if most is not None else found
        return result

    def samples(self, run_id: str) -> Samples | None:
        """What the model wrote last."""
        rows = self._select(
            "SELECT step, lines FROM samples WHERE run = ? ORDER BY step DESC LIMIT 1", (run_id,)
        )
        if not rows:
            return None
        lines = json.loads(rows[0]["lines"])
        return Samples(step=rows[0]["step"], rows=tuple((line[0], line[1], line[2]) for line in lines))

    # The log

    def write_log(self, run_id: str, kind: str, **details: Any) -> None:
        """Write that something happened."""
        with self.transaction() as connection:
            write_log(connection, run_id, kind, details)

    def log(self, run_id: str) -> list[LogEntry]:
        """What happened, oldest first."""
        rows = self._select("SELECT time, kind, details FROM log WHERE run = ? ORDER BY id", (run_id,))
        return [
            LogEntry(time=row["time"], kind=row["kind"], details=json.loads(row["details"])) for row in rows
        ]


def new_id() -> str:
    """A new ID of a run."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))


def last_starts(connection: sqlite3.Connection) -> dict[str, float]:
    """When a run of each owner was started last."""
    rows = connection.execute("SELECT owner, max(coalesce(started, 0)) FROM runs GROUP BY owner").fetchall()
    return {row[0]: float(row[1]) for row in rows}


def order_of_start(unfinished: Iterable[Run], served: Mapping[str, float]) -> list[Run]:
    """The waiting ones of the unfinished runs, in the order in which they start if none of them ends meanwhile.

    Args:
        unfinished: All runs that wait or work.
        served: When a run of each owner was started last.
    """
    last = dict(served)
    working: dict[str, int] = {}
    waiting: list[Run] = []
    for run in unfinished:
        if run.state == "queued":
            waiting.append(run)
        else:
            working[run.owner] = working.get(run.owner, 0) + 1
    waiting.sort(key=lambda run: (run.created if run.queued is None else run.queued, run.created, run.id))
    order = []
    while waiting:
        # The first of the least.
        following = min(waiting, key=lambda run: (working.get(run.owner, 0), last.get(run.owner, 0.0)))
        waiting.remove(following)
        last[following.owner] = max(last.values(), default=0.0) + 1.0
        working[following.owner] = working.get(following.owner, 0) + 1
        order.append(following)
    return order


def thinned(series: Series, most: int) -> Series:
    """About `most` points of a series: the first, the last, and the extremes of each stretch between.

    A single peak stays visible, and so does a value that is no number. Of a series of layers every so many rows are kept.
    """
    count = len(series.steps)
    if count <= most:
        return series
    if series.values.ndim == 2:
        kept = np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))
    else:
        edges = np.linspace(0, count, max(1, most // 2) + 1).astype(np.int64)
        chosen = {0, count - 1}
        for start, end in itertools.pairwise(edges):
            stretch = series.values[start:end]
            finite = np.isfinite(stretch)
            if finite.any():
                chosen.add(int(start + np.where(finite, stretch, math.inf).argmin()))
                chosen.add(int(start + np.where(finite, stretch, -math.inf).argmax()))
            if not finite.all():
                chosen.add(int(start + finite.argmin()))
        kept = np.array(sorted(chosen))
    return Series(steps=series.steps[kept], values=series.values[kept])


def run_of(row: sqlite3.Row) -> Run:
    """A run from its row."""
    values = dict(row)
    values["group"] = values.pop("grp")
    for name in ("spec", "error", "facts", "outcome"):
        values[name] = None if values[name] is None else json.loads(values[name])
    return Run(**values)


def marks(values: Iterable[Any]) -> str:
    """Placeholders for values, in brackets."""
    return f"({', '.join('?' for _ in values)})"


def to_json(value: Any) -> str:
    """JSON as it is stored."""
    return json.dumps(value, ensure_ascii=False)


def encoded(value: Any) -> Any:
    """A value as a column holds it."""
    return to_json(value) if isinstance(value, (dict, list)) else value


def write_log(connection: sqlite3.Connection, run_id: str, kind: str, details: Mapping[str, Any]) -> None:
    """Write an entry of the log."""
    connection.execute(
        "INSERT INTO log (run, time, kind, details) VALUES (?, ?, ?, ?)",
        (run_id, time.time(), kind, to_json(dict(details))),
    )


def write_points(connection: sqlite3.Connection, run_id: str, points: Mapping[str, Series]) -> None:
    """Add a piece to each series."""
    connection.executemany(
        "INSERT INTO points (run, series, width, steps, measured) VALUES (?, ?, ?, ?, ?)",
        [
            (
                run_id, name, 0 if piece.values.ndim == 1 else piece.values.shape[1],
                piece.steps.astype("<i8").tobytes(), piece.values.astype("<f8").tobytes(),
            )
            for name, piece in points.items()
            if len(piece.steps)
        ],
    )  # fmt: skip


def read_points(connection: sqlite3.Connection, run_id: str, name: str) -> Series:
    """A series from its pieces."""
    rows = connection.execute(
        "SELECT width, steps, measured FROM points WHERE run = ? AND series = ? ORDER BY id", (run_id, name)
    ).fetchall()
    steps = np.frombuffer(b"".join(row["steps"] for row in rows), "<i8")
    values = np.frombuffer(b"".join(row["measured"] for row in rows), "<f8")
    width = rows[0]["width"] if rows else 0
    return Series(steps=steps, values=values.reshape(-1, width) if width else values)


def replace_points(connection: sqlite3.Connection, run_id: str, name: str, series: Series) -> None:
    """Put a series into one piece."""
    connection.execute("DELETE FROM points WHERE run = ? AND series = ?", (run_id, name))
    write_points(connection, run_id, {name: series})


def series_names(connection: sqlite3.Connection, run_ids: list[str]) -> list[str]:
    """Names of the series of runs, sorted."""
    rows = connection.execute(
        f"SELECT DISTINCT series FROM points WHERE run IN {marks(run_ids)} ORDER BY series", run_ids
    ).fetchall()
    return [row["series"] for row in rows]
