"""No test touches the runs of whoever runs it."""

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory):
    before = os.environ.get("HEADLIGHT_DATA")
    os.environ["HEADLIGHT_DATA"] = str(tmp_path_factory.mktemp("headlight"))
    yield
    os.environ.pop("HEADLIGHT_DATA")
    if before is not None:
        os.environ["HEADLIGHT_DATA"] = before
