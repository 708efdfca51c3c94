"""The app while runs train: how long a page takes, and what 50 people who watch a live run cost.

Each viewer is a session of its own that speaks Streamlit's protocol over a websocket, as the browser does, without painting.

1. A rerun of the page of heads on an idle server, before and after, and while two runs train (ratio of the medians).
2. 50 and 200 sessions that show one live run and ask for news as often as the page tells them to: the server's CPU, and the
   95th percentile of an answer's time, beside one session alone.

    PYTHONPATH=. python benchmarks/live_pages.py
"""

import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from lab.runs.laboratory import Laboratory
from lab.runs.settings import Settings
from transformer.recipe import read_recipe

ROOT = Path(__file__).parents[1]
LONG = read_recipe(ROOT / "assets/presets/reverse.toml", ("training.steps=100000",))
WARM_UP, RERUNS, VIEWERS, WATCHED_SECONDS = 20, 60, (1, 50, 200), 20.0
# What it takes until so many have come, and each knows how often to ask, is not counted.
SETTLE_SECONDS = 20.0


class Session:
    """One viewer of one page."""

    def __init__(self, connection: websockets.ClientConnection, page: str, query: str) -> None:
        self.connection = connection
        self.page, self.query = page, query
        self.script_hash = ""
        self.polls: dict[str, float] = {}

    async def run(self, fragment: str = "") -> float:
        """Run the page's script, or one fragment of it, and return the seconds until it has finished."""
        message = BackMsg()
        message.rerun_script.query_string = self.query
        message.rerun_script.page_name = self.page
        message.rerun_script.page_script_hash = self.script_hash
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = bool(fragment)
        began = time.perf_counter()
        await self.connection.send(message.SerializeToString())
        while True:
            answer = ForwardMsg()
            answer.ParseFromString(await self.connection.recv())
            kind = answer.WhichOneof("type")
            if kind == "navigation":
                self.script_hash = answer.navigation.page_script_hash
            if kind == "auto_rerun":
                self.polls[answer.auto_rerun.fragment_id] = answer.auto_rerun.interval
            if kind == "script_finished" and answer.script_finished in (
                ForwardMsg.FINISHED_SUCCESSFULLY,
                ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY,
            ):
                return time.perf_counter() - began


@contextlib.asynccontextmanager
async def session(port: int, page: str, query: str = ""):
    address = f"ws://127.0.0.1:{port}/_stcore/stream"
    async with websockets.connect(
        address, subprotocols=["streamlit"], max_size=None, origin=f"http://127.0.0.1:{port}"
    ) as connection:
        opened = Session(connection, page, query)
        await opened.run()
        await opened.run()
        yield opened


@contextlib.contextmanager
def server(data: Path) -> Iterator[tuple[int, psutil.Process]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--server.headless=true", f"--server.port={port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(ROOT / "app.py"), *options],
        cwd=ROOT,
        env={**os.environ, "HEADLIGHT_DATA": str(data), "HEADLIGHT_SLOTS": "2"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).close()
                break
            time.sleep(0.2)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


async def reruns(port: int) -> float:
    async with session(port, "attention_heads") as opened:
        return statistics.median([await opened.run() for _ in range(WARM_UP + RERUNS)][WARM_UP:])


async def watch(port: int, run_id: str, viewers: int, process: psutil.Process) -> tuple[float, float]:
    """CPU share of the server and the 95th percentile of an answer, in seconds."""
    async with contextlib.AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(session(port, "run", f"run={run_id}")) for _ in range(viewers)
        ]
        assert all(each.polls for each in opened), "the page of a live run asks for news"
        answers: list[float] = []
        begin = time.perf_counter() + SETTLE_SECONDS
        end = begin + WATCHED_SECONDS

        async def poll(viewer: Session, delay: float) -> None:
            await asyncio.sleep(delay)
            while time.perf_counter() < end:
                ((fragment, interval),) = viewer.polls.items()
                took = await viewer.run(fragment)
                if time.perf_counter() > begin:
                    answers.append(took)
                await asyncio.sleep(max(0.0, interval - took))

        polling = asyncio.gather(*(poll(each, place / viewers) for place, each in enumerate(opened)))
        await asyncio.sleep(SETTLE_SECONDS)
        before = process.cpu_times()
        await polling
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        return used / WATCHED_SECONDS, statistics.quantiles(answers, n=20)[-1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as (port, process):
        laboratory = Laboratory(Settings(data=Path(folder), slots=2))
        try:
            measure(laboratory, port, process)
        finally:
            stop(laboratory, [run.id for run in laboratory.runs() if run.unfinished])
            while laboratory.supervised():
                time.sleep(0.5)


def measure(laboratory: Laboratory, port: int, process: psutil.Process) -> None:
    before = asyncio.run(reruns(port))
    watched, other = (laboratory.start(LONG, name=name, owner="benchmark") for name in ("one", "two"))
    while any(laboratory.get(run_id).step < 50 for run_id in (watched, other)):
        time.sleep(0.2)
    busy = asyncio.run(reruns(port))
    stop(laboratory, [other])
    for viewers in VIEWERS:
        share, answer = asyncio.run(watch(port, watched, viewers, process))
        print(
            f"{viewers} viewers of a live run: {share:.0%} of a core, 95 % of answers within {1000 * answer:.0f} ms",
            flush=True,
        )
    stop(laboratory, [watched])
    after = asyncio.run(reruns(port))
    print(
        f"a rerun of the page of heads: idle {1000 * before:.0f} and {1000 * after:.0f} ms, while two runs train "
        f"{2 * busy / (before + after):.2f} times that"
    )


def stop(laboratory: Laboratory, run_ids: list[str]) -> None:
    """Stop runs, and wait until they have ended."""
    for run_id in run_ids:
        laboratory.stop(run_id)
    while any(laboratory.get(run_id).unfinished for run_id in run_ids):
        time.sleep(0.2)


if __name__ == "__main__":
    main()
