"""Sentence pairs: from tab-separated files, from the network with a checksum, grouped and split by their sources."""

import gzip
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A source and the target it should become."""

    source: str
    target: str


def read_pairs(path: Path) -> list[Pair]:
    """Read pairs from a UTF-8 file of tab-separated lines, source first; further columns are ignored.

    Args:
        path: The file, plain or gzipped. Empty lines are skipped.

    Raises:
        ValueError: If the file cannot be read or a line is not a pair; the sentence names file and line.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: this is not UTF-8 text.") from error
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "the gzip data is damaged"
        raise ValueError(f"{path} cannot be read ({reason}).") from error
    return parse_pairs(text, str(path))


def parse_pairs(text: str, name: str) -> list[Pair]:
    """Take lines of tab-separated pairs apart.

    Args:
        text: The lines.
        name: What to call the text in an error.

    Raises:
        ValueError: If a line is not a pair, or there is none.
    """
    pairs = []
    # Only line feeds end a line: str.splitlines would also cut at characters that stand inside sentences.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 2 or not columns[0] or not columns[1]:
            raise ValueError(
                f"{name}, line {number}: expected a source, a tab and a target, got {shortened(line)!r}."
            )
        pairs.append(Pair(source=columns[0], target=columns[1]))
    if not pairs:
        raise ValueError(f"{name} holds no sentence pairs.")
    return pairs


def shortened(text: str, length: int = 60) -> str:
    """The text, or its beginning with dots."""
    text = text.strip()
    return text if len(text) <= length else f"{text[: length - 1]}…"


def swap(pairs: Sequence[Pair]) -> list[Pair]:
    """The same pairs in the other direction."""
    return [Pair(source=pair.target, target=pair.source) for pair in pairs]


def group_references(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """All targets of each source, in the order of the first appearance."""
    references: dict[str, list[str]] = {}
    for pair in pairs:
        known = references.setdefault(pair.source, [])
        if pair.target not in known:
            known.append(pair.target)
    return references


def split_by_source(pairs: Sequence[Pair], *, dev: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split off the pairs of `dev` sources, so that no source is in both parts.

    Raises:
        ValueError: If there are not more sources than `dev`.
    """
    sources = list(group_references(pairs))
    if not 0 < dev < len(sources):
        raise ValueError(
            f"{dev} sources cannot be split off from {len(sources)} different ones; "
            f"choose from 1 to {len(sources) - 1}."
        )
    held_out = set(random.Random(seed).sample(sources, dev))
    return (
        [pair for pair in pairs if pair.source not in held_out],
        [pair for pair in pairs if pair.source in held_out],
    )


def fetch(url: str, sha256: str, folder: Path) -> Path:
    """Download a file once and check it.

    Args:
        url: Where it is.
        sha256: Checksum it must have.
        folder: Where to keep it.

    Returns:
        The file's path.

    Raises:
        ValueError: If it cannot be downloaded, or is not the file that was expected.
    """
    if len(sha256) != 64:
        raise ValueError(f"{sha256!r} is not a SHA-256 checksum: it must have 64 hexadecimal digits.")
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(url, known_hash=f"sha256:{sha256}", path=folder, fname=url.rsplit("/", 1)[-1])
        )
    except ValueError as error:
        raise ValueError(
            f"{url} is not the file that was expected: its SHA-256 differs from {sha256}."
        ) from error
    except Exception as error:  # pooch lets every kind of network error through
        raise ValueError(f"{url} cannot be downloaded ({error}).") from error
