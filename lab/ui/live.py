"""Parts of pages that change while runs work: asked for again and again, at a pace that the server bears, and drawn once.

Two hundred people who watch one training ask for the same pictures. Each picture is made for the first who asks and
sent to the others as it is; and the more people watch, the longer each waits before asking again.
"""

import threading
import time
import uuid
from collections.abc import Callable, Hashable
from typing import Any

import streamlit as st

from lab.runs.laboratory import Laboratory
from lab.ui.language import language

# A second's pace is kept for so many people.
CROWD = 50
# Who has not asked for so many times the pace has left.
LEFT_AFTER = 4

_VIEWER = "viewer"


def live(news: Callable[..., None], *args: Any, busy: bool, least: float = 1.0) -> None:
    """Show a part of a page, again and again while it changes.

    Args:
        news: Called with `args` and the seconds between two calls, which are None if it is called once; the first thing
            that it does is `keep_pace`.
        args: Its arguments.
        busy: Whether it changes.
        least: Fewest seconds between two calls.
    """
    every = least * pace() if busy else None
    st.fragment(run_every=every)(news)(*args, every)


def keep_pace(every: float | None, *, busy: bool, least: float = 1.0) -> None:
    """Run the whole page again if it was settled there to ask too often, too seldom, or for what does not change.

    Args:
        every: Seconds between two calls; None if there is one.
        busy: Whether what is shown changes.
        least: Fewest seconds between two calls.
    """
    if busy != (every is not None):
        st.rerun()
    if every is not None:
        wanted = least * pace()
        # A crowd whose size is just at the limit does not change the pace again and again.
        if wanted > every or 2 * wanted < every:
            st.rerun()


class Audience:
    """Who watches something that changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[str, float] = {}

    def greet(self, viewer: str, now: float) -> float:
        """Note that somebody asks; returns by how much everybody's pace is longer than it would be alone.

        Args:
            viewer: Who asks.
            now: Seconds of any steady clock.
        """
        with self._lock:
            self._seen[viewer] = now
            patience = LEFT_AFTER * slowness(len(self._seen)) + 1
            self._seen = {each: seen for each, seen in self._seen.items() if now - seen < patience}
            return slowness(len(self._seen))


def slowness(viewers: int) -> float:
    """How many times a second's pace so many people must keep: 1, 2, 4, 8, ..."""
    factor = 1.0
    while viewers > factor * CROWD:
        factor *= 2
    return factor


def pace() -> float:
    """How many times its least pace a page keeps now."""
    viewer = st.session_state.setdefault(_VIEWER, uuid.uuid4().hex)
    return _audience().greet(viewer, time.monotonic())


@st.cache_resource(show_spinner=False)
def _audience() -> Audience:
    return Audience()


def drawn_once(draw: Callable[[], None], *key: Hashable) -> None:
    """Draw, or show what was drawn before for the same key and language.

    Args:
        draw: Draws elements: no widgets, and nothing that is one person's own.
        key: The drawing's name, and all that it depends on.
    """
    _drawn(language(), key, draw)


# The function has no part in what the drawing is remembered by: its name begins with an underscore.
@st.cache_data(max_entries=128, show_spinner=False)
def _drawn(speaking: str, key: tuple[Hashable, ...], _draw: Callable[[], None]) -> None:
    _draw()


def measured_version(lab: Laboratory) -> tuple[Hashable, ...]:
    """Differs once a run has measured more, or anything else was written: a part of a drawing's key, read before its numbers."""
    return str(lab.store.path), *lab.store.version()
