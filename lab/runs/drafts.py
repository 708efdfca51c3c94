"""Tables that people brought to the form of a training, kept until the training is started.

A draft is named by a checksum of its content, and whoever knows the name may read it: so an address can hold a table, is
the same after a refresh, and can be sent to a class. The oldest drafts make room for new ones.
"""

import hashlib
import os
import re
import time
from pathlib import Path

from transformer.files import write_atomically

FOLDER = "drafts"
NAME = re.compile(r"[0-9a-f]{32}")
MOST_BYTES = 200_000_000
# A draft that somebody may still be looking at is not taken away.
LEAST_SECONDS = 3600.0


def keep_draft(data: Path, content: bytes) -> str:
    """Keep a table.

    Args:
        data: The data folder.
        content: The table.

    Returns:
        Its name.
    """
    name = hashlib.sha256(content).hexdigest()[:32]
    path = data / FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        os.utime(path)
    else:
        write_atomically(path, content)
        make_room(path.parent)
    return name


def read_draft(data: Path, name: str) -> bytes | None:
    """A table that was kept, or None if there is none of this name (any more)."""
    if not NAME.fullmatch(name):
        return None
    try:
        return (data / FOLDER / name).read_bytes()
    except OSError:
        return None


def make_room(folder: Path, most_bytes: int = MOST_BYTES, least_seconds: float = LEAST_SECONDS) -> None:
    """Delete the oldest drafts until the rest is small enough."""
    found = []
    for path in folder.iterdir():
        try:
            status = path.stat()
        except OSError:  # Somebody else made room at the same time.
            continue
        found.append((status.st_mtime, status.st_size, path))
    kept = sum(size for _, size, _ in found)
    for modified, size, path in sorted(found):
        if kept <= most_bytes or time.time() - modified < least_seconds:
            break
        path.unlink(missing_ok=True)
        kept -= size
