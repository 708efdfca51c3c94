"""Laboratories on temporary data folders, with supervisors and workers that are real processes."""

import contextlib
import io
import os
import signal
import time
import zipfile

import psutil
import pytest

from lab.runs import processes
from lab.runs.laboratory import Laboratory
from lab.runs.settings import read_settings
from transformer.data.download import write_pairs
from transformer.data.pairs import Pair
from transformer.recipe import Recipe

PATIENCE_SECONDS = 240
TINY = {
    "data": {"task": "copy", "task_train": 300, "task_dev": 20},
    "source_vocabulary": {"level": "word"},
    "target_vocabulary": {"level": "word"},
    "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "encoder_layers": 1, "decoder_layers": 1},
    "training": {
        "steps": 40, "batch_tokens": 200, "evaluate_every": 5, "probe_count": 4, "schedule": "linear",
        "peak": 1e-2, "warmup_steps": 3, "average_decay": 0.9,
    },
    "probes": [{"source": "1 2 3", "target": "1 2 3"}],
}  # fmt: skip


@pytest.fixture
def recipe():
    """A recipe of a training that takes a moment: ``recipe(steps=..., ...)``."""

    return tiny_recipe


def tiny_recipe(**training):
    """A recipe of a training that takes a moment."""
    return Recipe.from_dict({**TINY, "training": {**TINY["training"], **training}})


@pytest.fixture
def make_laboratory(tmp_path):
    """A laboratory in a folder, with settings of the environment: ``make_laboratory(HEADLIGHT_SLOTS="2")``."""
    folders = []

    def make(folder=tmp_path / "data", **environment):
        folders.append(folder)
        return Laboratory(read_settings({"HEADLIGHT_DATA": str(folder), **environment}))

    yield make
    for process in our_processes(folders):
        with contextlib.suppress(psutil.Error):
            process.kill()


@pytest.fixture
def lab(make_laboratory):
    return make_laboratory()


def write_own_pairs(folder):
    """The pairs of one's own on which the trainings of the tests of bundles are, in their two files."""
    pairs = [Pair(source=f"{n} {n + 1}", target=f"{n + 1} {n}") for n in range(60)]
    write_pairs(folder / "train.tsv.gz", pairs[:50])
    write_pairs(folder / "dev.tsv.gz", pairs[50:])


def zipped(files, how=zipfile.ZIP_DEFLATED):
    """An archive of files, by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def our_processes(folders, module="lab.runs."):
    """Processes that work for one of these data folders."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("HEADLIGHT_DATA") in map(str, folders)
            if ours and any(part.startswith(module) for part in process.cmdline()):
                found.append(process)
    return found


@pytest.fixture
def supervisors(lab):
    """The processes that supervise the laboratory's folder."""
    return lambda: our_processes([lab.settings.data], "lab.runs.supervisor")


@pytest.fixture
def until(lab):
    """Wait until a run is in a state, or a condition holds of it: ``until(id, "running")``."""

    def wait(run_id, what, laboratory=lab, watch=True):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            run = laboratory.get(run_id)
            if run.state == what if isinstance(what, str) else what(run):
                return run
            told = f"{run}\n{log_of(laboratory, run_id)}"
            assert isinstance(what, str) is False or run.unfinished or run.state == what, told
            assert time.monotonic() < deadline, told
            if watch:
                laboratory.watch()
            time.sleep(0.05)

    return wait


def log_of(laboratory, run_id):
    entries = "\n".join(f"{entry.kind} {entry.details}" for entry in laboratory.log(run_id))
    output = laboratory.settings.folder(run_id) / "worker.log"
    supervisor = laboratory.settings.data / "supervisor.log"
    return entries + "".join(path.read_text() for path in (output, supervisor) if path.exists())


@pytest.fixture
def kill_worker(lab):
    """End a run's worker as a crash would."""

    def kill(run_id):
        run = lab.get(run_id)
        process = processes.find(run.pid, run.process_started)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)

    return kill
