"""Pairs that a person brings: what is read, what is said of the rest, and that nothing else can happen."""

import contextlib
import csv
import io
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.runs.own_data import (
    DEV_FILE,
    MOST_CHARACTERS,
    TRAIN_FILE,
    LineProblem,
    read_table,
    split,
    suggest,
    write_data,
)
from lab.runs.problems import RunProblem
from transformer.data.batches import encode_pairs
from transformer.data.pairs import Pair, parse_pairs, read_pairs
from transformer.data.tasks import task
from transformer.recipe import DataConfig, load_data
from transformer.vocabulary import Vocabulary

# The most processor time for one megabyte, several times what it takes.
SECONDS_PER_MEGABYTE = 5.0


def read(content, limit_bytes=10**6, limit_pairs=10**5):
    return read_table(content, name="mine", limit_bytes=limit_bytes, limit_pairs=limit_pairs)


def sides(table):
    return [(pair.source, pair.target) for pair in table.pairs]


def code(content, **limits):
    with pytest.raises(RunProblem) as caught:
        read(content, **limits)
    assert str(caught.value).endswith(".")
    return caught.value.code


def codes(table):
    return [(problem.line, problem.code) for problem in table.problems]


def check(table):
    """What holds for every table, whatever it was read from."""
    for pair in table.pairs:
        for text in (pair.source, pair.target):
            assert text == text.strip() != ""
            assert not set("\t\n\r\0\ufeff") & set(text)
            assert len(text) <= MOST_CHARACTERS
            text.encode("utf-8")
    assert len(table.lines) == len(table.pairs)
    assert list(table.lines) == sorted(set(table.lines))
    assert len(table.problems) == min(table.skipped, 20)
    assert not {problem.line for problem in table.problems} & set(table.lines)
    for problem in table.problems:
        str(problem).encode("utf-8")
        assert not any(ord(character) < 32 for character in problem.details["excerpt"])


PIECES = st.sampled_from(
    [
        b'"',
        b"\t",
        b",",
        b";",
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\x07",
        b"ab",
        "你好".encode(),
        b"x y",
    ]
)
BYTES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.text(max_size=100).map(lambda text: text.encode("utf-16", "surrogatepass")),
    st.lists(PIECES, max_size=60).map(b"".join),
    st.tuples(st.sampled_from([b"\xff\xfe", b"\xfe\xff", b"\x89PNG", b"PK\x03\x04"]), st.binary(max_size=99)).map(
        b"".join
    ),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(BYTES)
def test_any_bytes_are_a_table_or_a_problem(content):
    with contextlib.suppress(RunProblem):
        check(read(content))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=200))
def test_any_text_is_a_table_or_a_problem(content):
    with contextlib.suppress(RunProblem):
        check(read(content))


SENTENCE = st.text(
    st.one_of(
        st.sampled_from(" .!?'\"\n你好，。；äé"),
        st.characters(exclude_categories=("Cc", "Cf", "Cs", "Z"), exclude_characters="\ufeff,;"),
    ),
    min_size=1,
    max_size=30,
).filter(lambda text: text.strip())


def one_line(text):
    """White space around it gone, line breaks and tabs become one space: by hand, not by the module's pattern."""
    written = []
    for character in text.strip():
        breaks = character in "\n\t\r"
        if breaks and written and written[-1] == "\n":
            continue
        written.append("\n" if breaks else character)
    return "".join(written).replace("\n", " ")


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=8),
    st.sampled_from(["\t", ",", ";"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_csv_writer_wrote_is_read_again(rows, delimiter, quoting, end, encoding):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)
    table = read(file.getvalue().encode(encoding))
    assert sides(table) == [(one_line(source), one_line(target)) for source, target in rows]
    assert table.delimiter == delimiter
    assert table.skipped == 0


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(SENTENCE, SENTENCE), min_size=10, max_size=20, unique_by=lambda row: one_line(row[0]))
)
def test_pairs_survive_their_files(tmp_path_factory, rows):
    pairs = [Pair(source=one_line(source), target=one_line(target)) for source, target in rows]
    folder = tmp_path_factory.mktemp("data")
    parts = split(pairs, seed=3)
    write_data(folder, *parts)
    assert (read_pairs(folder / TRAIN_FILE), read_pairs(folder / DEV_FILE)) == parts
    assert load_data(DataConfig(train=TRAIN_FILE, dev=DEV_FILE), folder) == parts


UNQUOTED = SENTENCE.map(lambda text: one_line(text.replace('"', "”"))).filter(bool)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(UNQUOTED, UNQUOTED, st.sampled_from(["", "\tCC-BY", "\tx\ty"])), min_size=1, max_size=8
    )
)
def test_plain_lines_are_read_as_a_training_reads_them(rows):
    text = "".join(f"{source}\t{target}{rest}\n" for source, target, rest in rows)
    assert list(read(text).pairs) == parse_pairs(text, "mine")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Quotations as the sentences of Tatoeba have them are part of the sentence.
        ('"Hi!"\t"你好！"\nA "b" c.\t"甲"乙。\n', [('"Hi!"', '"你好！"'), ('A "b" c.', '"甲"乙。')]),
        ('"Hi, Tom."\t你好。\nWell, yes.\t是。\n', [('"Hi, Tom."', "你好。"), ("Well, yes.", "是。")]),
        ('"It rained.\t“下雨了。\nAnd snowed."\t也下雪了。”\n', [('"It rained.', "“下雨了。"), ('And snowed."', "也下雪了。”")]),
        # As Excel writes tab-separated text: quoted where there is a comma or a quotation mark.
        ('"Hi, Tom."\t你好。\n"He said ""no""."\t他说“不”。\nYes.\t是。\n',
         [("Hi, Tom.", "你好。"), ('He said "no".', "他说“不”。"), ("Yes.", "是。")]),
        # Commas in the sentences of a table with semicolons.
        ("Well, yes.;是。\nNo.;不。\n", [("Well, yes.", "是。"), ("No.", "不。")]),
        ("a,b;c\nd,e\n", [("a", "b;c"), ("d", "e")]),
        ('"a", "b"\n', [("a", "b")]),
        # Rows that a spreadsheet filled up, and rows of nothing.
        ("a,b,,\n,,,\n\nc,d,,\n", [("a", "b"), ("c", "d")]),
        ("a\tb\r\n\r\nc\td", [("a", "b"), ("c", "d")]),
        ("a\tb\rc\td\r", [("a", "b"), ("c", "d")]),
        ("\ufeffa\tb\n\ufeffc\td\n", [("a", "b"), ("c", "d")]),
    ],
)  # fmt: skip
def test_tables_as_programs_write_them(text, expected):
    table = read(text)
    assert sides(table) == expected
    assert table.skipped == 0


@pytest.mark.parametrize(
    ("first", "header"),
    [
        ("source\ttarget", True), ("Source\tTARGET", True), ("en\tzh", True), ("English\t中文", True),
        ("源\t目标", True), ("原文\t译文\t出处", True), ("input\toutput", True), ("zh\ten", True),
        # Sentences, however short; a word list of languages is no header either.
        ("en\ten", False), ("English\t英语", False), ("the source\tthe target", False), ("source\t源", False),
        ("hello\t你好", False), ("source\t中文", False),
    ],
)  # fmt: skip
def test_a_header_is_one_only_if_plainly_so(first, header):
    table = read(f"{first}\na\tb\n")
    assert (table.header is not None) == header
    assert len(table.pairs) == 2 - header
    assert table.lines[-1] == 2


def test_bad_lines_are_named_and_the_good_ones_kept():
    text = 'source,target\na,b\nonly one\nc,\n,d\n"open,e\nf,g,h\na,b\nbe\x07ll,x\n' + f"i,{'j' * 2001}\n"
    table = read(text)
    assert sides(table) == [("a", "b"), ("f", "g"), ("a", "b")]
    assert table.lines == (2, 7, 8)
    assert codes(table) == [
        (3, "line_columns"), (4, "line_empty_side"), (5, "line_empty_side"), (6, "line_quote"),
        (9, "line_character"), (10, "line_too_long"),
    ]  # fmt: skip
    details = {problem.line: problem.details for problem in table.problems}
    assert (details[4]["side"], details[5]["side"]) == ("target", "source")
    assert details[9] == {"side": "source", "character": "U+0007", "excerpt": "be\ufffdll,x"}
    assert (details[10]["characters"], details[10]["limit"]) == (2001, 2000)
    assert (table.skipped, table.columns, table.duplicates) == (6, 3, 1)
    assert table.header == ("source", "target")
    assert all(str(problem).startswith(f"Line {problem.line}: ") for problem in table.problems)


def test_lines_are_counted_through_fields_of_several_lines():
    table = read('"a\nb",c\nbad\nd,e\n')
    assert sides(table) == [("a b", "c"), ("d", "e")]
    assert table.lines == (1, 4)
    assert codes(table) == [(3, "line_columns")]


def test_lines_are_counted_whatever_ends_them():
    for end in ("\n", "\r\n", "\r"):
        assert read(end.join(["a\tb", "", "c\td", "bad", "e\tf"])).lines == (1, 3, 5)


def test_a_quotation_mark_that_is_never_closed_costs_one_line():
    rows = [f"s{n},t{n}" for n in range(50)]
    rows[7] = '"s7,t7'
    table = read("\n".join(rows))
    assert len(table.pairs) == 49
    assert codes(table) == [(8, "line_quote")]


def test_only_the_first_problems_are_listed_and_all_are_counted():
    table = read("a\tb\n" + "one\n" * 100 + "c\td\n")
    assert (len(table.problems), table.skipped, len(table.pairs)) == (20, 100, 2)
    assert table.problems[-1] == LineProblem(line=21, code="line_columns", details={"excerpt": "one"})


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "a\tb\n")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "expected", "kind"),
    [
        (b"", "data_empty", None),
        (b" \r\n\t\n", "data_empty", None),
        (b",,,\n,\n", "data_empty", None),
        (b"\xef\xbb\xbf", "data_empty", None),
        (b"source\ttarget\n", "data_empty", None),
        (b"one\ntwo\nthree\n", "data_one_column", None),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "data_binary", "png"),
        (zipped("a.tsv"), "data_binary", "zip"),
        (zipped("[Content_Types].xml"), "data_binary", "office"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "data_binary", "xls"),
        (b"a\tb\nc\0\td\n", "data_binary", "nul"),
        ("a\tb\n".encode("utf-16-le"), "data_binary", "nul"),
        (b"\x01\x02\x03\x04a\tb\n", "data_binary", "control"),
        (bytes(range(128, 256)) * 9, "data_encoding", None),
        ("a\tb\nélan vital\tçà et là\n".encode("latin-1"), "data_encoding", None),
        # These bytes are characters of GB18030 too, which nobody writes.
        ("élève\tévêque\nMüller\tKönig\n".encode("latin-1"), "data_encoding", None),
        (b"\xff\xfea", "data_encoding", None),
    ],
)  # fmt: skip
def test_what_is_no_table_is_named(content, expected, kind):
    with pytest.raises(RunProblem) as caught:
        read(content)
    assert (caught.value.code, caught.value.details.get("kind")) == (expected, kind)


def test_the_line_that_is_no_text_is_named():
    for content in ("a\tb\nc\td\né,\t.\n".encode("latin-1"), "a\tb\nc\td\n".encode("utf-16") + b"\x00\xd8"):
        with pytest.raises(RunProblem) as caught:
            read(content)
        assert caught.value.details == {"line": 3}


@pytest.mark.parametrize(
    "text", ["你好，世界。\tHello, world.\n我喜欢读书。\tI like reading.\n", "我們學習。\tWe learn.\n"]
)
@pytest.mark.parametrize("encoding", ["gb18030", "utf-8", "utf-8-sig", "utf-16"])
def test_chinese_in_the_encodings_of_excel(text, encoding):
    table = read(text.encode(encoding))
    assert list(table.pairs) == parse_pairs(text, "mine")
    assert table.encoding == encoding.removesuffix("-sig")


def test_limits():
    assert code(b"a\tb\n" * 30, limit_bytes=100) == "data_too_large"
    assert code("你\tb\n" * 10, limit_bytes=40) == "data_too_large"
    assert len(read("你\tb\n" * 10, limit_bytes=60).pairs) == 10
    assert code("a\tb\n" * 11, limit_pairs=10) == "data_too_many_pairs"
    assert len(read("a\tb\n" * 10, limit_pairs=10).pairs) == 10
    began = time.perf_counter()
    assert code(bytes(10**8)) == "data_too_large"
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    "line",
    ['"', '"a,b', '"a\tb', 'a"b\tc', '""\t""', "a\tb", ",", "\t", "\r", '"a","b"', "a;b,c\td", "字" * 90, '"' * 999, "x" * 9999],
)  # fmt: skip
def test_a_table_of_any_such_lines_is_read_fast(line):
    content = (line + "\n").encode() * (10**6 // (len(line.encode()) + 1))
    began = time.process_time()
    with contextlib.suppress(RunProblem):
        check(read(content, limit_bytes=10**7, limit_pairs=10**5))
    assert time.process_time() - began < SECONDS_PER_MEGABYTE


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=80), st.integers(0, 5))
def test_no_source_is_in_both_parts_and_nothing_is_lost(numbers, seed):
    pairs = [Pair(source=f"s{s}", target=f"t{t}") for s, t in numbers]
    sources = {pair.source for pair in pairs}
    if len(sources) < 10:
        with pytest.raises(RunProblem) as caught:
            split(pairs, seed=seed)
        assert caught.value.details == {"sources": len(sources), "least": 10}
        return
    train, dev = split(pairs, seed=seed)
    assert {pair.source for pair in train} | {pair.source for pair in dev} == sources
    assert not {pair.source for pair in train} & {pair.source for pair in dev}
    assert sorted(map(repr, train + dev)) == sorted(map(repr, pairs))
    assert len({pair.source for pair in dev}) == max(2, len(sources) // 10)
    assert split(pairs, seed=seed) == (train, dev)


@pytest.mark.parametrize("dev", [0, -1, 11, 10**6])
def test_as_many_as_one_may_hold_out(dev):
    pairs = [Pair(source=str(n), target=str(n)) for n in range(20)]
    with pytest.raises(RunProblem) as caught:
        split(pairs, dev=dev)
    assert caught.value.details == {"dev": dev, "most": 10, "sources": 20}
    assert len(split(pairs, dev=10)[1]) == 10


def examples(name, count=800):
    return [Pair(source=e.source, target=e.target) for e in task(name).examples(1, count)]


@pytest.mark.parametrize(
    ("pairs", "levels"),
    [
        (examples("reverse"), ("word", "word")),
        (examples("addition"), ("character", "character")),
        (examples("translation"), ("word", "character")),
        ([Pair(source=word, target=word[::-1]) for word in ("attention", "head", "layer")], ("character", "character")),
        ([Pair(source=f"word{n} is number {n} of a long list of words", target="词" * 5) for n in range(3000)],
         ("word", "character")),
        ([Pair(source=f"{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{chr(97 + n // 676)} goes", target="x y") for n in range(3000)],
         ("bpe", "word")),
    ],
)  # fmt: skip
def test_suggestions_fit_the_data(pairs, levels):
    made = suggest(pairs)
    assert (made.source_level, made.target_level) == levels
    vocabularies = [
        Vocabulary.train([getattr(pair, side) for pair in pairs], level=level, size=size)
        for side, level, size in (
            ("source", made.source_level, made.source_size),
            ("target", made.target_level, made.target_size),
        )
    ]
    encoded = encode_pairs(pairs, *vocabularies, made.max_length)
    assert encoded.dropped == 0
    longest = max(len(ids) for ids in (*encoded.sources, *encoded.targets))
    assert made.max_length <= 2 * longest + 16
