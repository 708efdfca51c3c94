"""Drafts: what was brought is found again under its name, and nothing else is."""

import os
import time

import pytest

from lab.runs.drafts import FOLDER, keep_draft, make_room, read_draft


def test_a_table_is_found_again_under_a_name_that_only_its_content_decides(tmp_path):
    contents = [b"a\tb\n", b"a\tb", "你好\t".encode("gb18030"), b"\x00\xff"]
    names = [keep_draft(tmp_path, content) for content in contents]
    assert len(set(names)) == 4
    assert [read_draft(tmp_path, name) for name in names] == contents
    assert keep_draft(tmp_path, contents[0]) == names[0]
    assert len(list((tmp_path / FOLDER).iterdir())) == 4


@pytest.mark.parametrize(
    "name", ["", "0" * 32, "../runs.sqlite", "/etc/passwd", "A" * 32, "0" * 32 + "\n", "0" * 31]
)
def test_no_other_file_is_ever_read(tmp_path, name):
    (tmp_path / "runs.sqlite").write_bytes(b"secret")
    assert read_draft(tmp_path, name) is None


def test_the_oldest_make_room_but_none_of_the_last_hour(tmp_path):
    names = [keep_draft(tmp_path, bytes([number]) * 1000) for number in range(5)]
    folder = tmp_path / FOLDER
    for age, name in enumerate(reversed(names)):
        moment = time.time() - 3000 * age
        os.utime(folder / name, (moment, moment))
    make_room(folder, most_bytes=1500)
    # Two are younger than an hour, so they stay although they are more than is allowed.
    assert {path.name for path in folder.iterdir()} == {*names[3:]}
    make_room(folder, most_bytes=1500, least_seconds=0.0)
    assert {path.name for path in folder.iterdir()} == {names[4]}
