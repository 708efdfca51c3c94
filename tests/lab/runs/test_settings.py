"""Settings come from the environment, and another process reads the same ones."""

import os
from pathlib import Path

import pytest

from lab.runs.settings import Settings, read_settings


def test_another_process_reads_the_same_settings():
    settings = Settings(
        data=Path("/tmp/somewhere").absolute(), slots=3, most_steps=7, most_parameters=11, most_queued=2,
        upload_bytes=1_000_000, bundle_bytes=9_000_000, grace_seconds=4.0, shared=True,
    )  # fmt: skip
    assert read_settings(settings.variables()) == settings
    # Each differs from what it is by default, so that none can be forgotten; that of the slots depends on the machine.
    default = vars(read_settings({}))
    assert all(value != default[name] for name, value in vars(settings).items() if name != "slots")


def test_one_core_is_left_to_the_pages(monkeypatch):
    for cores, slots in ((1, 1), (2, 1), (8, 7), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        assert read_settings({}).slots == slots


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "²"])
def test_a_value_that_is_not_allowed_is_named(text):
    with pytest.raises(ValueError, match="HEADLIGHT_SLOTS"):
        read_settings({"HEADLIGHT_SLOTS": text})
