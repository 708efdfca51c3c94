"""Sentence pairs from the network: downloaded with a checksum, unpacked, and split for training."""

import gzip
import zipfile
from collections.abc import Sequence
from pathlib import Path

from transformer.data.pairs import Pair, fetch, read_pairs, split_by_source
from transformer.files import write_atomically

LARGEST = 500_000_000
TEXT_SUFFIXES = (".tsv", ".txt")


def download_pairs(url: str, sha256: str, folder: Path, name: str, *, dev: int, seed: int) -> tuple[int, int]:
    """Download pairs and write ``name.train.tsv.gz`` and ``name.dev.tsv.gz``, no source in both.

    Args:
        url: A file of tab-separated pairs, plain, gzipped, or the only text in a zip archive beside its licence.
        sha256: Checksum it must have.
        folder: Where to write; the download is kept in its ``downloads``.
        name: What the two files are called; it may name a folder below `folder`.
        dev: Sources to hold out.
        seed: Which sources these are.

    Returns:
        How many pairs were written to each.

    Raises:
        ValueError: If it cannot be downloaded, is another file, or holds no pairs.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} must name files below the output folder.")
    path = fetch(url, sha256, folder / "downloads")
    pairs = read_pairs(unpack(path) if zipfile.is_zipfile(path) else path)
    parts = split_by_source(pairs, dev=dev, seed=seed)
    for part, chosen in zip(("train", "dev"), parts, strict=True):
        write_pairs(folder / f"{name}.{part}.tsv.gz", chosen)
    return len(parts[0]), len(parts[1])


def unpack(archive: Path) -> Path:
    """Take the largest text out of a zip archive and put it beside the archive.

    Raises:
        ValueError: If the archive is damaged, holds no text, or one that is too large.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            texts = [member for member in file.infolist() if member.filename.endswith(TEXT_SUFFIXES)]
            if not texts:
                raise ValueError(f"{archive} holds no file that ends with {' or '.join(TEXT_SUFFIXES)}.")
            largest = max(texts, key=lambda member: member.file_size)
            if largest.file_size > LARGEST:
                raise ValueError(f"{largest.filename} in {archive} is larger than {LARGEST:,} bytes.")
            content = file.read(largest)
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{archive} is a damaged archive ({error}).") from error
    path = archive.with_suffix(".tsv")
    write_atomically(path, content)
    return path


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Write pairs as gzipped lines, the same bytes for the same pairs."""
    lines = "".join(f"{pair.source}\t{pair.target}\n" for pair in pairs)
    write_atomically(path, gzip.compress(lines.encode(), mtime=0))
