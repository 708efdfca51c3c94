"""Sentence pairs that a person pastes or uploads: read, checked line by line, split, and described.

A table is TSV or CSV, its first column the source and its second the target. Text is UTF-8, UTF-16 with a byte-order
mark, or GB18030, which Excel writes where Chinese is spoken. Fields may be quoted as in RFC 4180; in tab-separated text,
where quotation marks are mostly part of the sentences, only if the whole table is quoted that way.

What is wrong with the whole is a `RunProblem`:

=====================  ==============================================================================================
code                   details
=====================  ==============================================================================================
data_empty             (nothing but white space)
data_too_large         bytes, limit
data_too_many_pairs    limit
data_binary            kind: zip, office, xls, gzip, png, jpeg, gif, pdf, sqlite, elf, nul, control
data_encoding          line: the first that is not text
data_one_column        lines, excerpt: no line has a second column
data_too_few_pairs     sources, least: different sources
data_dev_size          dev, most, sources: so many sources cannot be held out
=====================  ==============================================================================================

What is wrong with a line is a `LineProblem`; the other lines are kept beside it:

=====================  ==============================================================================================
code                   details, beside excerpt
=====================  ==============================================================================================
line_columns           (there is only one column)
line_empty_side        side: source or target
line_too_long          side, characters, limit
line_character         side, character: such as U+0007
line_quote             (a quotation mark is opened and not closed, or text follows the closing one)
=====================  ==============================================================================================
"""

import codecs
import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from lab.runs.problems import RunProblem
from transformer.data.download import write_pairs
from transformer.data.pairs import Pair, shortened, split_by_source
from transformer.vocabulary import Level, build_normalizer, build_pre_tokenizer, is_han

Side = Literal["source", "target"]
Delimiter = Literal["\t", ",", ";"]

TRAIN_FILE = "train.tsv.gz"
DEV_FILE = "dev.tsv.gz"

MOST_PROBLEMS = 20
MOST_CHARACTERS = 2000
# A quoted field that is still open after so many lines was never closed.
MOST_LINES_OF_A_ROW = 20
DETECTION_LINES = 500
MOST_EXCERPT = 60
LEAST_SOURCES = 10
MOST_DEV = 500
SAMPLE = 2000
LONGEST = 200
LEAST_LENGTH, MOST_LENGTH = 16, 256

LINE_BREAKS = re.compile(r"[\t\n]+")
# Control characters but tab and line feed, and halves of characters.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
INVISIBLE = re.compile("[\\s\xad\u200b-\u200f\u2028-\u202e\u2060-\u2064]*")
NORMALIZER, WORDS = build_normalizer(lowercase=False), build_pre_tokenizer("word")

MAGIC = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "xls"),
    (b"\x1f\x8b", "gzip"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"%PDF-", "pdf"),
    (b"SQLite format 3\x00", "sqlite"),
    (b"\x7fELF", "elf"),
)
# Every Office document since 2007 is a zip archive that begins with this entry.
OFFICE_ENTRY = b"[Content_Types].xml"

# Common characters of Big5 come before the rare ones; punctuation comes first.
BIG5_COMMON, BIG5_RARE = b"\xa1", b"\xc9"

# What heads a column. A header names two roles, or two languages that differ.
ROLES = {
    "source": ("source", "src", "input", "源", "源文", "源语言", "源句", "源句子", "原文", "原句", "输入"),
    "target": ("target", "tgt", "trg", "output", "目标", "目标文", "目标语言", "目标句", "译文", "译句", "输出"),
}  # fmt: skip
LANGUAGES = {
    "en": ("en", "eng", "english", "英文", "英语"),
    "zh": ("zh", "zh-cn", "zh-tw", "cmn", "zho", "chinese", "mandarin", "中文", "汉语", "华语"),
    "de": ("de", "deu", "german", "deutsch", "德文", "德语"),
    "fr": ("fr", "fra", "french", "français", "法文", "法语"),
    "es": ("es", "spa", "spanish", "español", "西班牙文", "西班牙语"),
    "ja": ("ja", "jpn", "japanese", "日本語", "日文", "日语"),
    "ko": ("ko", "kor", "korean", "한국어", "韩文", "韩语"),
    "ru": ("ru", "rus", "russian", "русский", "俄文", "俄语"),
}
ROLE_OF = {word: role for role, words in ROLES.items() for word in words}
LANGUAGE_OF = {word: language for language, words in LANGUAGES.items() for word in words}


@dataclass(frozen=True, kw_only=True)
class LineProblem:
    """What is wrong with a line.

    Attributes:
        line: Its number, from 1.
        code: What it is.
        details: What belongs to it; ``excerpt`` is the beginning of the line.
    """

    line: int
    code: str
    details: dict[str, Any]

    def __str__(self) -> str:
        """The problem as an English sentence."""
        details = self.details
        said = {
            "line_columns": "there is only one column",
            "line_empty_side": f"the {details.get('side')} is empty",
            "line_too_long": f"the {details.get('side')} has {details.get('characters')} characters, "
            f"more than {details.get('limit')}",
            "line_character": f"the {details.get('side')} holds the control character {details.get('character')}",
            "line_quote": "a quotation mark is not closed, or text follows the closing one",
        }[self.code]
        return f"Line {self.line}: {said}: {details['excerpt']!r}."


@dataclass(frozen=True, kw_only=True)
class Table:
    """Pairs that were read, and what was wrong with other lines.

    Attributes:
        name: What the person calls the table.
        pairs: The good pairs, in order.
        lines: The line each of them begins on.
        problems: What is wrong with the first lines that are not good.
        skipped: How many lines are not good in all.
        columns: Columns of the widest row; those after the second are ignored.
        header: The names in the first line, if it is plainly a header.
        delimiter: What separates the columns.
        encoding: How the bytes were read: ``utf-8``, ``utf-16`` or ``gb18030``.
        duplicates: Pairs that stand in the table before; they are kept.
    """

    name: str
    pairs: tuple[Pair, ...]
    lines: tuple[int, ...]
    problems: tuple[LineProblem, ...]
    skipped: int
    columns: int
    header: tuple[str, ...] | None
    delimiter: Delimiter
    encoding: str
    duplicates: int


def read_table(content: bytes | str, *, name: str, limit_bytes: int, limit_pairs: int) -> Table:
    """Read a table of pairs.

    Args:
        content: A file's bytes, or pasted text.
        name: What to call it.
        limit_bytes: Most bytes, in UTF-8 if it is text.
        limit_pairs: Most pairs.

    Raises:
        RunProblem: If the whole cannot be used; see the table above.
    """
    text, encoding = as_text(content, limit_bytes)
    if not text.strip():
        raise RunProblem("data_empty", f"{name} is empty.")
    lines = text.split("\n")
    delimiter, quoted = detect(lines)
    pairs: list[Pair] = []
    numbers: list[int] = []
    problems: list[LineProblem] = []
    skipped = columns = 0
    header: tuple[str, ...] | None = None
    first = True
    for row in read_rows(lines, delimiter, quoted):
        fields = [cleaned(field) for field in row.fields or ()]
        if row.fields is not None and not any(fields):
            continue
        if first and is_header(fields):
            header = tuple(fields)
        else:
            columns = max(columns, width(fields))
            problem = problem_of(row, fields, lines[row.line - 1])
            if problem is None:
                pairs.append(Pair(source=fields[0], target=fields[1]))
                numbers.append(row.line)
                if len(pairs) > limit_pairs:
                    raise too_many_pairs(name, limit_pairs)
            else:
                skipped += 1
                if len(problems) < MOST_PROBLEMS:
                    problems.append(problem)
        first = False
    if not pairs and not problems:
        raise RunProblem("data_empty", f"{name} holds no pairs.")
    if columns < 2 and all(problem.code == "line_columns" for problem in problems):
        raise RunProblem(
            "data_one_column",
            f"No line of {name} has two columns: put a tab or a comma between source and target.",
            lines=skipped,
            excerpt=problems[0].details["excerpt"],
        )
    return Table(
        name=name,
        pairs=tuple(pairs),
        lines=tuple(numbers),
        problems=tuple(problems),
        skipped=skipped,
        columns=columns,
        header=header,
        delimiter=delimiter,
        encoding=encoding,
        duplicates=len(pairs) - len(set(pairs)),
    )


def width(fields: Sequence[str]) -> int:
    """Columns of a row, without the empty ones with which a spreadsheet fills it up."""
    return max((number for number, field in enumerate(fields, 1) if field), default=0)


def too_many_pairs(name: str, limit: int) -> RunProblem:
    """What is said of a table with more pairs than are allowed."""
    return RunProblem(
        "data_too_many_pairs", f"{name} has more than {limit:,} pairs; leave some out.", limit=limit
    )


def as_text(content: bytes | str, limit_bytes: int) -> tuple[str, str]:
    """The text of a file, its lines ending with line feeds, and its encoding.

    Raises:
        RunProblem: If it is too large, or not text.
    """
    size = len(content)
    if isinstance(content, str) and size <= limit_bytes:
        size = len(content.encode("utf-8", "surrogatepass"))
    if size > limit_bytes:
        raise RunProblem(
            "data_too_large",
            f"The table has {size:,} bytes, more than the {limit_bytes:,} that are allowed.",
            bytes=size,
            limit=limit_bytes,
        )
    text, encoding = (content, "utf-8") if isinstance(content, str) else decoded(content)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        raise binary("nul")
    sample = text[:10_000]
    if len(CONTROL.findall(sample)) > max(2, len(sample) / 20):
        raise binary("control")
    return text, encoding


def decoded(content: bytes) -> tuple[str, str]:
    """Bytes as text, and their encoding.

    Raises:
        RunProblem: If they are not text.
    """
    for magic, kind in MAGIC:
        if content.startswith(magic):
            office = kind == "zip" and OFFICE_ENTRY in content[:100]
            raise binary("office" if office else kind)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return content.decode("utf-16"), "utf-16"
        except UnicodeDecodeError as error:
            before = error.object[: error.start // 2 * 2]
            raise not_text(before.decode("utf-16", "replace").count("\n") + 1) from error
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        # Before anything is guessed: no encoding that is accepted here has zero bytes.
        if b"\0" in content:
            raise binary("nul") from error
        guessed = chinese(content)
        if guessed is not None:
            return guessed, "gb18030"
        raise not_text(content[: error.start].count(b"\n") + 1) from error


def chinese(content: bytes) -> str | None:
    """The text of bytes that are GB18030, or None.

    That they can be decoded says little: é and a letter after it make a rare character too. So most of what is not ASCII
    must be among the characters of everyday Chinese: GB 2312, or the first level of Big5.
    """
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return None
    beyond = [character for character in text if character > "\x7f"][:5000]

    def common(character: str) -> bool:
        return (
            character.encode("gb2312", "ignore") != b""
            or BIG5_COMMON <= character.encode("big5", "ignore") < BIG5_RARE
        )

    return text if sum(map(common, beyond)) > 0.9 * len(beyond) else None


def binary(kind: str) -> RunProblem:
    """What is said of a file that is no text."""
    return RunProblem(
        "data_binary",
        {
            "office": "This is an Office document; save the sheet as CSV (UTF-8) and bring that.",
            "xls": "This is an Excel workbook; save the sheet as CSV (UTF-8) and bring that.",
            "zip": "This is an archive; unpack it and bring the table in it.",
            "gzip": "This is a compressed file; unpack it first.",
        }.get(kind, "This is no text; bring sentence pairs as TSV or CSV."),
        kind=kind,
    )


def not_text(line: int) -> RunProblem:
    """What is said of bytes that no known encoding has."""
    return RunProblem(
        "data_encoding",
        f"Line {line} is not UTF-8 text; save the table as UTF-8 and bring it again.",
        line=line,
    )


class Row(NamedTuple):
    """A row as it stands.

    Attributes:
        line: The line it begins on, from 1.
        lines: How many lines it takes.
        fields: Its fields; None if its quotation marks do not match.
    """

    line: int
    lines: int
    fields: list[str] | None


def read_rows(lines: Sequence[str], delimiter: Delimiter, quoted: bool) -> Iterator[Row]:
    """The rows of a table; one that cannot be read costs its first line only.

    Args:
        lines: The lines, without their ends.
        delimiter: What separates the columns.
        quoted: Whether quotation marks enclose fields.
    """
    index = 0
    while index < len(lines):
        if quoted and '"' in lines[index]:
            row = read_quoted_row(lines, index, delimiter)
        else:
            row = Row(line=index + 1, lines=1, fields=lines[index].split(delimiter))
        yield row
        index += row.lines


def read_quoted_row(lines: Sequence[str], index: int, delimiter: Delimiter) -> Row:
    """The row that begins on a line and may go on over the next ones."""
    window = (f"{line}\n" for line in lines[index : index + MOST_LINES_OF_A_ROW])
    reader = csv.reader(window, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        fields = next(reader)
    except csv.Error:
        return Row(line=index + 1, lines=1, fields=None)
    return Row(line=index + 1, lines=reader.line_num, fields=fields)


def detect(lines: Sequence[str]) -> tuple[Delimiter, bool]:
    """What separates the columns, and whether quotation marks enclose fields.

    It is what most lines hold, outside of quotation marks. A comma or semicolon may stand in a sentence and a tab hardly
    does, so the tab comes first where as many lines hold it; the next is what cuts the lines into equally many columns.
    """
    sample = [line for line in lines if line.strip()][:DETECTION_LINES]
    quoted_tabs = written_with_quotes(lines)

    def merit(delimiter: Delimiter) -> tuple[int, bool, int]:
        quoted = quoted_tabs if delimiter == "\t" else True
        widths = [len(row.fields or ()) for row in read_rows(sample, delimiter, quoted)]
        cut = Counter(width for width in widths if width > 1)
        return cut.total(), delimiter == "\t", max(cut.values(), default=0)

    delimiters: tuple[Delimiter, ...] = ("\t", ",", ";")
    delimiter = max(delimiters, key=merit)
    return delimiter, quoted_tabs if delimiter == "\t" else True


def written_with_quotes(lines: Sequence[str]) -> bool:
    """Whether tab-separated lines were written by a program that encloses fields in quotation marks.

    If so it did that to all fields, to those that need it, or, as Excel does, to those with a comma too, and never
    otherwise; then writing the rows again that way gives the same lines. In sentences that hold quotations it does not,
    or a quotation goes on in the next sentence and a tab stands in it.
    """
    if not any('"' in line for line in lines):
        return False
    ways: list[Callable[[str], bool]] = [
        lambda field: True,
        lambda field: '"' in field or "\n" in field,
        lambda field: '"' in field or "\n" in field or "," in field,
    ]
    for row in read_rows(lines, "\t", quoted=True):
        if row.fields is None or any("\t" in field for field in row.fields):
            return False
        text = "\n".join(lines[row.line - 1 : row.line - 1 + row.lines])
        if text:
            ways = [way for way in ways if text == "\t".join(enclosed(field, way) for field in row.fields)]
        if not ways:
            return False
    return True


def enclosed(field: str, way: Callable[[str], bool]) -> str:
    """A field as a program writes it that encloses in quotation marks what `way` says."""
    doubled = field.replace('"', '""')
    return f'"{doubled}"' if way(field) else field


def cleaned(field: str) -> str:
    """A field as a sentence: on one line, without white space around it.

    A byte-order mark within a table comes from files that were joined.
    """
    if "\n" in field or "\t" in field:
        field = LINE_BREAKS.sub(" ", field)
    return field.replace("\ufeff", "").strip()


def is_header(fields: Sequence[str]) -> bool:
    """Whether a first row plainly names its columns: as source and target, or as two languages."""
    if len(fields) < 2:
        return False
    first, second = (field.casefold() for field in fields[:2])
    for names in (ROLE_OF, LANGUAGE_OF):
        if first in names and second in names and names[first] != names[second]:
            return True
    return False


def problem_of(row: Row, fields: Sequence[str], text: str) -> LineProblem | None:
    """What is wrong with a row, if anything."""

    def problem(code: str, **details: Any) -> LineProblem:
        return LineProblem(line=row.line, code=code, details={**details, "excerpt": excerpt(text)})

    if row.fields is None:
        return problem("line_quote")
    if len(fields) < 2:
        return problem("line_columns")
    sides: tuple[Side, ...] = ("source", "target")
    for side, field in zip(sides, fields, strict=False):
        if INVISIBLE.fullmatch(field):
            return problem("line_empty_side", side=side)
        if len(field) > MOST_CHARACTERS:
            return problem("line_too_long", side=side, characters=len(field), limit=MOST_CHARACTERS)
        found = CONTROL.search(field)
        if found:
            return problem("line_character", side=side, character=f"U+{ord(found[0]):04X}")
    return None


def excerpt(text: str) -> str:
    """The beginning of a line, fit to be shown."""
    return CONTROL.sub("\ufffd", shortened(text, MOST_EXCERPT).replace("\t", " "))


def split(pairs: Sequence[Pair], *, dev: int | None = None, seed: int = 1) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into those to train on and those to evaluate on, so that no source is in both.

    Args:
        pairs: What to split.
        dev: Sources to hold out; by default a tenth, at least 2 and at most 500.
        seed: Which sources these are.

    Raises:
        RunProblem: If there are fewer than 10 different sources, or `dev` leaves less than half of them.
    """
    sources = len({pair.source for pair in pairs})
    if sources < LEAST_SOURCES:
        raise RunProblem(
            "data_too_few_pairs",
            f"There are {sources} different sources; a training needs at least {LEAST_SOURCES}.",
            sources=sources,
            least=LEAST_SOURCES,
        )
    held_out = suggested_dev(sources) if dev is None else dev
    if not 1 <= held_out <= sources // 2:
        raise RunProblem(
            "data_dev_size",
            f"{held_out} of {sources} different sources cannot be held out; choose from 1 to {sources // 2}.",
            dev=held_out,
            most=sources // 2,
            sources=sources,
        )
    return split_by_source(pairs, dev=held_out, seed=seed)


def suggested_dev(sources: int) -> int:
    """How many of so many different sources to hold out."""
    return min(max(2, sources // 10), MOST_DEV)


def write_data(folder: Path, train: Sequence[Pair], dev: Sequence[Pair]) -> None:
    """Write both parts, as a recipe with ``data.train = TRAIN_FILE`` and ``data.dev = DEV_FILE`` reads them."""
    write_pairs(folder / TRAIN_FILE, train)
    write_pairs(folder / DEV_FILE, dev)


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """Settings that suit some pairs.

    Attributes:
        source_level: Level of the source vocabulary.
        target_level: Level of the target vocabulary.
        source_size: Most tokens of the source vocabulary.
        target_size: Most tokens of the target vocabulary.
        max_length: Longest side in tokens, so that no pair is left out unless it is very long.
    """

    source_level: Level
    target_level: Level
    source_size: int
    target_size: int
    max_length: int


def suggest(pairs: Sequence[Pair]) -> Suggestion:
    """Settings that suit these pairs."""
    source, target = (suggest_side([getattr(pair, side) for pair in pairs]) for side in ("source", "target"))
    longest = max(source[2], target[2]) + 1  # the end of the sequence is a token too
    return Suggestion(
        source_level=source[0],
        target_level=target[0],
        source_size=source[1],
        target_size=target[1],
        max_length=min(max(-(-longest // 8) * 8, LEAST_LENGTH), MOST_LENGTH),
    )


def suggest_side(texts: Sequence[str]) -> tuple[Level, int, int]:
    """Level and size of a vocabulary that suits texts, and about how many tokens the longest then has.

    Chinese, and texts without spaces such as sums, are cut into characters; a small language whose words come back again
    and again into words; anything else into sub-words, of which a large text can teach more.
    """
    sample = texts[:: -(-len(texts) // SAMPLE)] if len(texts) > SAMPLE else texts
    counts = Counter(piece for text in sample for piece in word_pieces(text))
    total = round(counts.total() * len(texts) / len(sample))
    letters = [character for text in sample for character in text if not character.isspace()]
    spaced = sum(" " in text for text in sample)
    longest = sorted(texts, key=len)[-LONGEST:]
    if sum(map(is_han, letters)) > len(letters) / 2 or spaced < len(sample) / 20:
        return "character", 8000, max(map(len, longest))
    if len(counts) <= 1000 and counts.total() >= 10 * len(counts):
        return "word", 8000, max(len(word_pieces(text)) for text in longest)
    size = 500 if total < 2_000 else 1000 if total < 10_000 else 2000 if total < 50_000 else 4000
    # How many sub-words there are is known only once they are learnt; two a word are many.
    return "bpe", size, max(min(len(text), 2 * len(word_pieces(text))) for text in longest)


def word_pieces(text: str) -> list[str]:
    """The words of a text, each Chinese character and each digit being one."""
    return [piece for piece, _ in WORDS.pre_tokenize_str(NORMALIZER.normalize_str(text))]
