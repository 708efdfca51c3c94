"""What a person sees when a worker or the server is killed while a run trains: it goes on by itself."""

import contextlib
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import expect

from lab.runs.laboratory import Laboratory
from lab.runs.settings import read_settings
from transformer.recipe import read_recipe

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
RECIPE = read_recipe(
    ROOT / "assets" / "presets" / "reverse.toml",
    (
        "training.steps=100000",
        "data.task_train=300",
        "data.task_dev=30",
        "model.d_model=16",
        "training.batch_tokens=200",
    ),
)
LONG = 180_000


@pytest.fixture
def lab(tmp_path):
    laboratory = Laboratory(read_settings({"HEADLIGHT_DATA": str(tmp_path / "data")}))
    yield laboratory
    for run in laboratory.runs():
        if run.unfinished:
            laboratory.stop(run.id)
    wait_for(lambda: not any(run.unfinished for run in laboratory.runs()))


def wait_for(condition, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.2)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_killed_worker_is_seen_and_replaced(serve, lab, visit):
    run_id = lab.start(RECIPE, name="long", owner="test")
    with serve(HEADLIGHT_DATA=str(lab.settings.data)) as address:
        page = visit(f"{address}/run?lang=en&run={run_id}")
        status = page.locator("[data-testid=stProgress]")
        expect(status).to_contain_text("running", timeout=LONG)
        wait_for(lambda: lab.get(run_id).step > 50)
        before = lab.get(run_id)
        os.kill(before.pid, signal.SIGKILL)
        expect(page.get_by_text("Brought back into the queue by itself.")).to_be_visible(timeout=LONG)
        expect(page.get_by_text("A worker began, attempt 2.")).to_be_visible(timeout=LONG)
        expect(status).to_contain_text("running", timeout=LONG)
        wait_for(lambda: lab.get(run_id).step > before.step)
        assert lab.get(run_id).pid != before.pid
        page.goto("about:blank")  # it would ask a server that is gone for news


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_server_and_workers_killed_together_come_back_with_the_server(serve, lab, visit):
    """As when a laptop's battery is empty: nothing is left but the disk."""
    run_id = lab.start(RECIPE, name="long", owner="test")
    with serve(HEADLIGHT_DATA=str(lab.settings.data)) as address:
        page = visit(f"{address}/run?lang=zh&run={run_id}", locale="zh-CN")
        expect(page.locator("[data-testid=stProgress]")).to_contain_text("训练中", timeout=LONG)
        wait_for(lambda: lab.get(run_id).step > 50)
        page.goto("about:blank")
    before = lab.get(run_id)
    for pid in (*supervisors(lab), before.pid):
        os.kill(pid, signal.SIGKILL)
    assert lab.get(run_id).state == "running"  # nobody was there to say that it is not
    with serve(HEADLIGHT_DATA=str(lab.settings.data)) as address:
        page = visit(f"{address}/run?lang=zh&run={run_id}", locale="zh-CN")
        expect(page.locator("[data-testid=stProgress]")).to_contain_text("训练中", timeout=LONG)
        wait_for(lambda: lab.get(run_id).attempt == 2 and lab.get(run_id).step > before.step)
        page.goto("about:blank")


def supervisors(lab):
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            ours = process.environ().get("HEADLIGHT_DATA") == str(lab.settings.data)
            if ours and "lab.runs.supervisor" in process.cmdline():
                found.append(process.pid)
    return found
