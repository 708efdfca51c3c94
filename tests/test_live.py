"""What changes is drawn once for all viewers, and asked for at a pace that the server bears."""

import itertools

import pytest
from streamlit.testing.v1 import AppTest

from lab.ui.live import CROWD, Audience, slowness


def page():
    import streamlit as st

    from lab.ui.language import _, language
    from lab.ui.live import drawn_once

    def draw():
        made.append(language())
        st.caption(_("step"))

    made = st.session_state["made"]
    drawn_once(draw, "a drawing", st.session_state["version"])
    drawn_once(lambda: st.caption("another"), "another", st.session_state["version"])


def test_a_drawing_is_made_once_for_everybody():
    made = []

    def captions(version, language):
        app = AppTest.from_function(page)
        app.session_state["made"] = made
        app.session_state["version"] = version
        app.session_state["language_in_use"] = language
        app.run()
        assert not app.exception
        return [caption.value for caption in app.caption]

    assert captions(1, "en") == captions(1, "en") == ["step", "another"]
    assert made == ["en"]
    assert captions(1, "zh") == captions(1, "zh") == ["步数", "another"]
    assert made == ["en", "zh"]
    captions(2, "en")
    assert made == ["en", "zh", "en"]


@pytest.mark.parametrize("viewers", [1, 50, 200, 1000])
def test_everybody_together_asks_no_more_often_than_a_crowd_does(viewers):
    """Each asks when its time has come, for five minutes of a clock of our own."""
    audience = Audience()
    next_time = dict.fromkeys(range(viewers), 0.0)
    asked = []
    for tick in itertools.count():
        now = tick / 10
        if now > 300:
            break
        for viewer, due in next_time.items():
            if due <= now:
                pace = audience.greet(str(viewer), now)
                next_time[viewer] = now + pace
                asked.append(now)
    late = [time for time in asked if time > 60]
    assert len(late) / 240 <= CROWD * 1.05
    # And no less often than need be.
    assert len(late) / 240 >= min(viewers, CROWD / 2) * 0.95


def test_who_has_left_slows_nobody_down():
    audience = Audience()
    for viewer in range(4 * CROWD):
        audience.greet(str(viewer), 0.0)
    assert audience.greet("0", 1.0) == 4
    assert audience.greet("0", 30.0) == 1


def test_a_crowd_keeps_the_pace_of_one():
    assert [slowness(count) for count in (1, CROWD, CROWD + 1, 2 * CROWD, 2 * CROWD + 1)] == [1, 1, 2, 2, 4]
