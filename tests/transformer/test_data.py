"""Pairs, toy tasks and batches."""

import gzip
import hashlib
import itertools
import re
from pathlib import Path

import pytest
import torch

from transformer.data.batches import bucketed_batches, encode_pairs, fixed_batches
from transformer.data.pairs import Pair, fetch, group_references, read_pairs, split_by_source, swap
from transformer.data.tasks import TASKS, task
from transformer.vocabulary import BOS, EOS, PAD, Vocabulary


def test_pairs_from_a_file(tmp_path: Path) -> None:
    text = "\ufeffHi.\t嗨。\tcredit\r\n\n  Run. \t 跑。\nline\u2028separator\tstays\n"
    expected = [
        Pair(source="Hi.", target="嗨。"),
        Pair(source="Run.", target="跑。"),
        Pair(source="line\u2028separator", target="stays"),
    ]
    (tmp_path / "a.tsv").write_bytes(text.encode())
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(text.encode()))
    assert read_pairs(tmp_path / "a.tsv") == expected
    assert read_pairs(tmp_path / "a.tsv.gz") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nonly one column\n", "line 2"),
        (b"a\tb\n\n\t\xe4\xb8\xad\n", "line 3"),
        (b"a\tb\n\xff\xfe\tb\n", "line 2.*UTF-8"),
        (b"", "no sentence pairs"),
        (b"\x1f\x8bnot gzip", "damaged"),
        (gzip.compress(b"a\tb\n" * 1000, mtime=0)[:-20], "damaged"),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.tsv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"bad\.tsv.*{message}"):
        read_pairs(tmp_path / "bad.tsv")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"):
        read_pairs(tmp_path / "missing.tsv")


def test_grouping_swapping_and_splitting() -> None:
    pairs = [Pair(source=str(i % 10), target=str(i)) for i in range(40)]
    assert group_references(pairs)["3"] == ["3", "13", "23", "33"]
    assert swap(pairs)[13] == Pair(source="13", target="3")
    train, dev = split_by_source(pairs, dev=3, seed=1)
    assert len(train) + len(dev) == 40
    assert len({p.source for p in dev}) == 3
    assert not {p.source for p in dev} & {p.source for p in train}
    assert split_by_source(pairs, dev=3, seed=1) == (train, dev)
    with pytest.raises(ValueError, match="10"):
        split_by_source(pairs, dev=10, seed=1)


def test_download_with_checksum(server, tmp_path: Path) -> None:
    folder, address = server
    content = b"a\tb\n"
    (folder / "pairs.tsv").write_bytes(content)
    path = fetch(f"{address}/pairs.tsv", hashlib.sha256(content).hexdigest(), tmp_path / "cache")
    assert read_pairs(path) == [Pair(source="a", target="b")]
    with pytest.raises(ValueError, match="SHA-256 differs"):
        fetch(f"{address}/pairs.tsv", "0" * 64, tmp_path / "other")
    assert not (tmp_path / "other" / "pairs.tsv").exists()
    with pytest.raises(ValueError, match="cannot be downloaded"):
        fetch(f"{address}/missing.tsv", "0" * 64, tmp_path / "cache")
    with pytest.raises(ValueError, match="64"):
        fetch(f"{address}/pairs.tsv", "abc", tmp_path / "cache")


@pytest.mark.parametrize("name", TASKS)
def test_tasks_are_seeded_and_their_links_tell_the_truth(name: str) -> None:
    examples = task(name).examples(3, 200)
    assert examples == task(name).examples(3, 200)
    assert examples != task(name).examples(4, 200)
    said: dict[str, str] = {}
    for example in examples:
        for (start, end), (target_start, target_end) in example.links:
            text, becomes = example.source[start:end], example.target[target_start:target_end]
            assert text
            # A word is repeated, or translated the same each time.
            assert becomes == (said.setdefault(text, becomes) if name == "translation" else text)


def test_what_the_tasks_ask_for() -> None:
    for example in task("copy").examples(1, 50):
        assert example.target == example.source
    for example in task("reverse").examples(1, 50):
        assert example.target.split() == example.source.split()[::-1]
    for example in task("sort").examples(1, 50):
        assert example.target.split() == sorted(example.source.split())
    for example in task("addition").examples(1, 50):
        assert int(example.target[::-1]) == sum(int(number) for number in example.source.split("+"))


def test_pronouns_fit_one_noun_only_and_are_replaced_by_it() -> None:
    seen = set()
    for example in task("anaphora").examples(1, 400):
        (start, end), (noun_start, noun_end) = example.reference
        pronoun, noun = example.source[start:end], example.source[noun_start:noun_end]
        assert example.target == example.source[:start] + noun + example.source[end:]
        assert noun_end <= start
        seen.add(pronoun)
    assert seen == {"he", "she", "it", "他", "她", "它"}


def test_cause_and_effect_name_a_cause_of_two() -> None:
    for example in task("cause_effect").examples(1, 100):
        ((span, _),) = example.links
        cause = example.source[span[0] : span[1]]
        assert cause in example.target
        assert example.target.startswith(("because", "因为"))


def test_translation_says_the_same_in_another_order():
    order = ("yesterday", "this morning", "last year", "on monday")
    possessives = 0
    for example in task("translation").examples(1, 200):
        assert {example.source[a:b] for (a, b), _ in example.links} >= {
            time for time in order if time in example.source
        }
        # Every word but "the", "of" and the full stop is linked, and so is every character but 的 and 。
        said = "".join(example.source[a:b] for (a, b), _ in sorted(example.links)).replace(" ", "")
        assert said == re.sub(r"\b(the(?! (garden|station|bridge|lake|house))|of)\b|[ .]", "", example.source)
        spans = sorted(target for _, target in example.links)
        between = [example.target[b:a] for (_, b), (a, _) in itertools.pairwise(spans)]
        assert set(between) <= {"", "的"}
        assert example.target[spans[-1][1] :] == "。"
        # The time is said last in English and first in Chinese.
        assert max(example.links)[1][0] == 0
        if " of the " in example.source:
            possessives += 1
            assert "的" in between
    assert possessives > 50


def test_training_and_development_examples_are_disjoint() -> None:
    train, dev = task("anaphora").split(1, train=500, dev=100)
    assert (len(train), len(dev)) == (500, 100)
    assert not {e.source for e in train} & {e.source for e in dev}
    assert len({e.source for e in dev}) == 100
    with pytest.raises(ValueError, match="too few"):
        task("cause_effect").split(1, train=10, dev=100000)
    with pytest.raises(ValueError, match="reverse"):
        task("unknown")


@pytest.fixture(scope="module")
def data():
    pairs = [Pair(source=e.source, target=e.target) for e in task("addition").examples(1, 300)]
    pairs += [Pair(source="1" * 50, target="2"), Pair(source=" ", target="3")]
    vocabulary = Vocabulary.train([p.source + p.target for p in pairs], level="character")
    return encode_pairs(pairs, vocabulary, vocabulary, max_length=40)


def test_pairs_too_long_or_empty_are_counted(data) -> None:
    assert (len(data), data.dropped) == (300, 2)


def rows(batches) -> list[tuple]:
    return sorted(
        (tuple(s[s != PAD].tolist()), tuple(i[i != PAD].tolist()), tuple(o[o != PAD].tolist()))
        for batch in batches
        for s, i, o in zip(batch.source, batch.target_in, batch.target_out, strict=True)
    )


def test_a_pass_holds_every_pair_once_within_the_budget(data) -> None:
    expected = sorted(
        (tuple(s.tolist()), tuple(t[:-1].tolist()), tuple(t[1:].tolist()))
        for s, t in zip(data.sources, data.targets, strict=True)
    )
    batches = list(bucketed_batches(data, batch_tokens=200, seed=1, epoch=0))
    assert rows(batches) == rows(fixed_batches(data, 200)) == expected
    for batch in batches:
        assert batch.source.numel() + batch.target_in.numel() <= 200
        assert batch.tokens == (batch.target_out != PAD).sum()
        assert (batch.target_in[:, 0] == BOS).all()
        assert not (batch.target_in == EOS).any()
    padding = 1 - sum(b.tokens + (b.source != PAD).sum() for b in batches) / sum(
        b.source.numel() + b.target_in.numel() for b in batches
    )
    assert padding < 0.2


def test_the_order_is_the_seeds_and_can_be_taken_up_in_the_middle(data) -> None:
    def sources(**changes):
        settings = {"batch_tokens": 200, "seed": 1, "epoch": 0} | changes
        return [batch.source for batch in bucketed_batches(data, **settings)]

    first, again, later = sources(), sources(), sources(start=5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[5:], later, strict=True))
    for changed in (sources(epoch=1), sources(seed=2)):
        assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, changed, strict=False))
