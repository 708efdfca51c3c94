"""The app in a real browser: a server, Chromium, and pages that are watched for errors while they are used."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import expect

# A busy machine may need long for what an idle one does at once.
expect.set_options(timeout=30_000)

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Streamlit first asks below the page's path for its own addresses, is told 404, and goes on at the root.
EXPECTED_404 = ("/_stcore/health", "/_stcore/host-config")


@pytest.fixture(scope="session")
def browser_path() -> str:
    names = ("chromium", "google-chrome", "chromium-browser")
    found = os.environ.get("E2E_BROWSER") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        reason = "no Chromium was found: install Debian's package chromium, or name one in E2E_BROWSER"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return found


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args, browser_path):
    sandbox = [] if os.name == "nt" or os.geteuid() else ["--no-sandbox"]
    return {**browser_type_launch_args, "executable_path": browser_path, "args": [*FLAGS, *sandbox]}


@contextmanager
def running(script: Path, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Serve a Streamlit script on a free port, with a home of its own; yields the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script)]
    options = ["--server.headless=true", f"--server.port={port}"]
    log = folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, *options], cwd=ROOT, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), **environment},
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 90
            while True:
                try:
                    urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).close()
                    break
                except OSError:
                    if server.poll() is not None or time.monotonic() > deadline:
                        pytest.fail(f"the server did not start:\n{log.read_text()}")
                    time.sleep(0.2)
            yield address
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.fixture(scope="session")
def serve(tmp_path_factory):
    """Start a server of its own for a script: ``with serve(script, NAME=value) as address``."""

    def start(script: Path = ROOT / "app.py", **environment: str):
        return running(script, tmp_path_factory.mktemp("home"), environment)

    return start


@pytest.fixture(scope="session")
def app(serve) -> Iterator[str]:
    """Address of the app."""
    with serve() as address:
        yield address


@pytest.fixture
def visit(browser) -> Iterator:
    """Open an address as a person would, and wait until the page is there.

    ``visit(address, locale=..., width=..., height=..., theme=...)`` returns the page. At the end no page may have shown an
    exception, reported an error, or asked another machine for anything.
    """
    opened = []

    def open_page(
        address: str, *, locale: str = "en-GB", width: int = 1400, height: int = 900, theme: str = "light"
    ):
        context = browser.new_context(
            viewport={"width": width, "height": height}, locale=locale, color_scheme=theme, accept_downloads=True
        )  # fmt: skip
        page = context.new_page()
        origin = "/".join(address.split("/")[:3])
        local = (origin, origin.replace("http", "ws", 1), "data:", "blob:", "about:", "file:")
        complaints: list[str] = []

        def note_console(message) -> None:
            if message.type == "error" and not message.location.get("url", "").endswith(EXPECTED_404):
                complaints.append(f"console: {message.text} ({message.location.get('url')})")

        def note_request(request) -> None:
            if not request.url.startswith(local):
                complaints.append(f"asked another machine: {request.url}")

        page.on("console", note_console)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", note_request)
        opened.append((context, page, complaints))
        page.goto(address)
        if not address.startswith("file:"):
            wait_idle(page)
        return page

    yield open_page
    found = []
    for context, page, complaints in opened:
        found += complaints
        exceptions = page.locator("[data-testid=stException]")
        found += exceptions.all_inner_texts()
        context.close()
    assert not found


@pytest.fixture
def idle():
    """Wait until the script has run and the page shows it: ``idle(page)``."""
    return wait_idle


# Nothing ran, and something stood on the page, for a while: one run may follow another.
SETTLED = """() => {
  const app = document.querySelector("[data-testid=stApp]");
  const settled = app?.dataset.testScriptState === "notRunning" &&
    document.querySelector("[data-testid=stMainBlockContainer] [data-testid=stElementContainer]") &&
    !document.querySelector("[data-testid=stSkeleton], [data-testid=stAppSkeleton]");
  if (!settled) window.settledSince = undefined;
  else window.settledSince ??= performance.now();
  return settled && performance.now() - window.settledSince > 400;
}"""


def wait_idle(page) -> None:
    page.evaluate("() => { window.settledSince = undefined; }")
    page.wait_for_function(SETTLED, timeout=90_000)
