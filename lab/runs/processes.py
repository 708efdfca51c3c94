"""Processes by number and start time: a number alone may be given to another process once the first has ended."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
# The start is computed from the time of the boot, which moves when the clock is set.
SAME_START_SECONDS = 2.0
GONE_SECONDS = 10.0
WORKER_NICENESS = 5


def find(pid: int | None, started: float | None) -> psutil.Process | None:
    """The process of this number that started then, if it still works."""
    if pid is None or started is None:
        return None
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < SAME_START_SECONDS
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def start_time(pid: int) -> float | None:
    """When a process started, or None if it has ended already."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def make_way() -> None:
    """Let other processes go first: a page must stay quick while something trains."""
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
        return
    process.nice(WORKER_NICENESS)
    # Where Linux shares the time out between sessions, the niceness of a process counts inside its session only.
    session = Path("/proc/self/autogroup")
    if session.exists():
        with contextlib.suppress(OSError):
            session.write_text(str(WORKER_NICENESS))


def end(process: psutil.Process) -> None:
    """End a process at once, and wait until it is gone."""
    try:
        process.kill()
        process.wait(GONE_SECONDS)
    except psutil.Error:
        pass


def detach(module: str, *arguments: str, log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` as a process that outlives this one.

    Args:
        module: What to run.
        arguments: Its arguments.
        log: File that its output is appended to.
        environment: Variables beside this process's own.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    detached: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        detached = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **detached,
        )
