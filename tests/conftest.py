"""No test touches the runs of whoever runs it."""

import contextlib
import os

import psutil
import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory):
    before = os.environ.get("HEADLIGHT_DATA")
    os.environ["HEADLIGHT_DATA"] = str(tmp_path_factory.mktemp("headlight"))
    yield
    folder = os.environ.pop("HEADLIGHT_DATA")
    if before is not None:
        os.environ["HEADLIGHT_DATA"] = before
    # Workers outlive whoever started them; not these.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("HEADLIGHT_DATA") == folder and process.pid != os.getpid():
                process.kill()


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The laboratory of a folder in which nothing works: states stay as a test sets them."""
    from lab.runs.laboratory import Laboratory
    from lab.ui import runs

    monkeypatch.setenv("HEADLIGHT_DATA", str(tmp_path))
    monkeypatch.setattr(Laboratory, "watch", lambda self, at_once=False: None)
    runs._laboratory.clear()
    yield runs.laboratory()
    runs._laboratory.clear()


@pytest.fixture
def measured_machine(monkeypatch):
    """A machine that was measured, with round numbers, so that no page measures this one while tests use it."""
    import torch

    from lab.runs.estimate import COUNTS, Calibration, machine_name
    from lab.ui import estimates

    calibration = Calibration(
        training=dict.fromkeys(COUNTS, 0.0) | {"steps": 0.01},
        evaluation=dict.fromkeys(COUNTS, 0.0),
        save_seconds=0.0,
        save_byte_seconds=0.0,
        start_seconds=0.0,
        base_bytes=300_000_000,
        machine=machine_name(),
        torch=torch.__version__,
        date="2026-11-24T00:00:00+00:00",
    )
    monkeypatch.setattr(estimates, "load_calibration", lambda _path: calibration)
    return calibration
