"""The laboratory: everything that a page or the command line does with runs.

It reads and writes the store and makes sure that a supervisor looks after it. Whatever cannot be done is a `RunProblem`.
"""

import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock

from lab.runs import processes
from lab.runs.bundle import read_bundle, write_bundle
from lab.runs.estimate import check_fits, estimate, facts_of_data
from lab.runs.problems import RunProblem
from lab.runs.series import series_of
from lab.runs.settings import Settings
from lab.runs.shipped import PREFIX, shipped_folder, shipped_runs, shipped_series
from lab.runs.store import (
    RESUMABLE,
    UNFINISHED,
    LogEntry,
    Run,
    Samples,
    Series,
    Store,
    new_id,
    thinned,
)
from transformer.data.download import write_pairs
from transformer.data.pairs import Pair, read_pairs
from transformer.recipe import Recipe

WATCH_SECONDS = 2.0
TRAIN_FILE, DEV_FILE = "train.tsv.gz", "dev.tsv.gz"


class Laboratory:
    """Runs of one data folder.

    Args:
        settings: Which folder, and what is allowed.

    Raises:
        RunProblem: If the database cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.store = Store(settings.database)
        self._watch_lock = threading.Lock()
        self._watched = -WATCH_SECONDS

    # Reading

    def runs(self, *, deleted: bool = False) -> list[Run]:
        """All runs, newest first, then the trainings of the shipped checkpoints."""
        return [*self.store.runs(deleted=deleted), *([] if deleted else shipped_runs())]

    def get(self, run_id: str) -> Run:
        """The run of this ID.

        Raises:
            RunProblem: If there is none, or it was deleted.
        """
        found = self.store.get(run_id)
        if found is None and run_id.startswith(PREFIX):
            found = next((run for run in shipped_runs() if run.id == run_id), None)
        if found is None or found.deleted is not None:
            raise RunProblem("unknown_run", f"There is no run {run_id!r}.", run=run_id)
        return found

    def place(self, run: Run) -> int:
        """Its place in the queue, from 1; 0 if it does not wait."""
        if run.state != "queued":
            return 0
        waiting = [each.id for each in self.store.queue()]
        return waiting.index(run.id) + 1 if run.id in waiting else 0

    def folder(self, run_id: str) -> Path:
        """The folder of a run: its checkpoint, its metrics, its snapshots."""
        return shipped_folder(run_id) or self.settings.folder(run_id)

    def series(
        self, run_ids: Iterable[str], names: Iterable[str], *, most: int | None = None
    ) -> dict[tuple[str, str], Series]:
        """What was measured, by run and name; a run that lacks a series is left out.

        Args:
            run_ids: Which runs.
            names: Which series.
            most: Thin each series to about so many points that keep its extremes.
        """
        ids, wanted = list(run_ids), list(names)
        result = {
            (run_id, name): series if most is None else thinned(series, most)
            for run_id in ids
            if run_id.startswith(PREFIX)
            for name, series in shipped_series(run_id).items()
            if name in wanted
        }
        own = [run_id for run_id in ids if not run_id.startswith(PREFIX)]
        return {**result, **self.store.series(own, wanted, most=most)}

    def series_names(self, run_ids: Iterable[str]) -> list[str]:
        """Names of all series that one of these runs has, sorted."""
        ids = list(run_ids)
        shipped = {name for run_id in ids if run_id.startswith(PREFIX) for name in shipped_series(run_id)}
        return sorted({*shipped, *self.store.series_names(ids)})

    def samples(self, run_id: str) -> Samples | None:
        """What the model of a run wrote last."""
        return self.store.samples(run_id)

    def log(self, run_id: str) -> list[LogEntry]:
        """What happened to a run, oldest first."""
        return self.store.log(run_id)

    # Starting

    def start(
        self,
        recipe: Recipe,
        *,
        name: str,
        owner: str,
        pairs: tuple[Sequence[Pair], Sequence[Pair]] | None = None,
        data: Path | None = None,
        group: str = "",
    ) -> str:
        """Put a training into the queue.

        Args:
            recipe: What to train.
            name: What to call it.
            owner: Whose it is.
            pairs: Pairs to train on and to evaluate on, if the recipe names no task.
            data: Folder that holds the recipe's files instead.
            group: ID that the runs of one comparison share.

        Returns:
            Its ID.

        Raises:
            RunProblem: If it is more than is allowed, or than this machine can hold.
            ValueError: If a file of pairs is not right, or there are too few.
        """
        if not recipe.data.task and pairs is None:
            if data is None:
                raise RunProblem(
                    "bad_data",
                    f"This recipe reads {recipe.data.train}: name the folder that holds it with --data.",
                    reason=recipe.data.train,
                )
            pairs = read_pairs(data / recipe.data.train), read_pairs(data / recipe.data.dev)
        own = None if recipe.data.task else pairs
        estimated = estimate(recipe, facts_of_data(recipe, pairs=own), None)
        self.settings.data.mkdir(parents=True, exist_ok=True)
        check_fits(estimated, self.settings, disk=shutil.disk_usage(self.settings.data).free)
        run_id = new_id()
        folder = self.settings.folder(run_id)
        if own is not None:
            # The run keeps its data: what it was trained on stays the same, and goes with it where it goes.
            write_pairs(folder / "data" / TRAIN_FILE, own[0])
            write_pairs(folder / "data" / DEV_FILE, own[1])
            recipe = replace(recipe, data=replace(recipe.data, train=TRAIN_FILE, dev=DEV_FILE))
        try:
            self._add(
                run_id, kind="training", name=name, owner=owner, group=group, spec=recipe.to_dict(),
                steps=recipe.training.steps,
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return run_id

    def start_experiment(
        self, name: str, options: Mapping[str, Any], *, owner: str, group: str = "", steps: int = 1
    ) -> str:
        """Put an experiment into the queue.

        Args:
            name: Name of the experiment.
            options: Its options.
            owner: Whose it is.
            group: ID that the runs of one comparison share.
            steps: Units of work, if they are known.

        Returns:
            Its ID.

        Raises:
            RunProblem: If the owner has too many unfinished runs.
        """
        run_id = new_id()
        spec = {"name": name, "options": dict(options)}
        self._add(run_id, kind="experiment", name=name, owner=owner, group=group, spec=spec, steps=steps)
        return run_id

    def _add(self, run_id: str, **values: Any) -> None:
        self.store.add(run_id=run_id, state="queued", most_unfinished=self.settings.most_queued, **values)
        self.watch(at_once=True)

    # Changing

    def stop(self, run_id: str, owner: str | None = None) -> None:
        """Let a run save itself and end; one that waits ends at once, one that has ended stays as it is.

        Raises:
            RunProblem: If there is none, or it is somebody else's.
        """
        self._own(run_id, owner)
        if not self.store.move(
            run_id, "cancelled", before=("queued",), ended=time.time()
        ) and not self.store.request_stop(run_id):
            # Between being lost and being brought back.
            self.store.move(run_id, "cancelled", before=("lost",), ended=time.time())

    def resume(self, run_id: str, owner: str | None = None) -> None:
        """Put a run that was stopped or failed into the queue again; it goes on from its last checkpoint.

        Raises:
            RunProblem: If there is none, it is somebody else's, or there is nothing to resume.
        """
        run = self._own(run_id, owner)
        if not run.resumable or not self.store.move(
            run_id, "queued", before=RESUMABLE, queued=time.time(), error=None, stop_requested=None, crashes=0,
            crash_step=-1, ended=None,
        ):  # fmt: skip
            raise RunProblem(
                "nothing_to_resume", f"Run {run_id} is {run.state}; there is nothing to resume.", run=run_id
            )
        self.watch(at_once=True)

    def rename(self, run_id: str, name: str, owner: str | None = None) -> None:
        """Call a run something else.

        Raises:
            RunProblem: If there is none, or it is somebody else's.
        """
        self._own(run_id, owner)
        self.store.rename(run_id, name)

    def delete(self, run_id: str, owner: str | None = None) -> None:
        """Delete a run; for a day it can be brought back by `restore`.

        Raises:
            RunProblem: If there is none, it is somebody else's, or it still waits or works.
        """
        run = self._own(run_id, owner)
        if run.unfinished or not self.store.set_deleted(run_id, time.time()):
            raise RunProblem("still_running", f"Run {run_id} is {run.state}; stop it first.", run=run_id)

    def restore(self, run_id: str) -> None:
        """Bring a deleted run back.

        Raises:
            RunProblem: If there is none.
        """
        if not self.store.set_deleted(run_id, None):
            raise RunProblem("unknown_run", f"There is no run {run_id!r}.", run=run_id)

    def _own(self, run_id: str, owner: str | None) -> Run:
        run = self.get(run_id)
        if run.shipped or (self.settings.shared and owner is not None and owner != run.owner):
            raise RunProblem("not_yours", f"Run {run_id} cannot be changed by you.", run=run_id)
        return run

    # Taking away and bringing back

    def export(self, run_id: str) -> bytes:
        """A run as a bundle: one zip file.

        Raises:
            RunProblem: If there is none, or it has no checkpoint yet.
        """
        run = self.get(run_id)
        return write_bundle(self.folder(run_id), manifest_of(run))

    def import_bundle(self, content: bytes, owner: str) -> str:
        """Add the run of a bundle, and return its new ID.

        Raises:
            RunProblem: If it is no bundle or not safe; nothing is changed then.
        """
        bundle = read_bundle(content, settings=self.settings)
        run_id = new_id()
        folder = self.settings.folder(run_id)
        try:
            bundle.unpack(folder)
            manifest = bundle.manifest
            self.store.add(
                run_id=run_id, kind="training", name=manifest["name"], owner=owner, group="",
                spec=bundle.recipe.to_dict(), steps=bundle.recipe.training.steps, state=manifest["state"],
                step=manifest["step"], seconds=manifest["seconds"], facts=manifest["facts"], ended=time.time(),
            )  # fmt: skip
            self.store.add_points(run_id, series_of(bundle.records))
            self.store.write_log(run_id, "imported")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            self.store.forget(run_id)
            raise
        return run_id

    # The supervisor

    def watch(self, *, at_once: bool = False) -> None:
        """Make sure that a supervisor runs while there is work; call it as often as you like.

        Args:
            at_once: Look now, though it was looked a moment ago.
        """
        with self._watch_lock:
            now = time.monotonic()
            if not at_once and now - self._watched < WATCH_SECONDS:
                return
            self._watched = now
            left = self.store.runs(states=(*UNFINISHED, "lost"))
            if any(run.unfinished for run in left) and not self.supervised():
                processes.detach(
                    "lab.runs.supervisor",
                    log=self.settings.data / "supervisor.log",
                    environment=self.settings.variables(),
                )

    def supervised(self) -> bool:
        """Whether a supervisor holds the lock of this data folder."""
        lock = filelock.FileLock(self.settings.lock)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        lock.release()
        return False


def manifest_of(run: Run) -> dict[str, Any]:
    """What a bundle says of its run."""
    return {
        "name": run.name,
        "state": run.state,
        "recipe": run.spec,
        "step": run.step,
        "seconds": run.seconds,
        "created": run.created,
        "facts": run.facts,
    }
