"""The Chinese catalogues hold exactly the messages of the code, each once, with the same places to fill."""

import re
import string
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po

ROOT = Path(__file__).parents[1]
CATALOGUES = sorted((ROOT / "assets" / "locales" / "zh" / "LC_MESSAGES").glob("*.po"))
SOURCES = [ROOT / "app.py", *sorted((ROOT / "pages").glob("*.py")), *sorted((ROOT / "lab").rglob("*.py"))]
# What a word of the field is called in Chinese, everywhere.
GLOSSARY = {
    "encoder": "编码器",
    "decoder": "解码器",
    "token": "词元",
    "embedding": "嵌入",
    "attention": "注意力",
    "self-attention": "自注意力",
    "cross-attention": "交叉注意力",
    "attention weight": "注意力权重",
    "query": "查询",
    "key": "键",
    "head": "头",
    "masked": "掩码",
    "positional encoding": "位置编码",
    "greedy": "贪心",
    "beam search": "束搜索",
    "checkpoint": "检查点",
}


def messages_of_the_code() -> set[str]:
    found: set[str] = set()
    for path in SOURCES:
        for _, message, _, _ in extract_from_file("python", path, keywords={"_": None}):
            found.add(message)
    return found


@pytest.fixture(scope="module")
def translated() -> list[tuple[str, str]]:
    entries = []
    for path in CATALOGUES:
        with path.open("rb") as file:
            entries += [(entry.id, entry.string) for entry in read_po(file, charset="utf-8") if entry.id]
    return entries


def test_every_message_is_translated_and_nothing_else_is(translated):
    ids = {message for message, _ in translated}
    assert messages_of_the_code() - ids == set()
    assert ids - messages_of_the_code() == set()


def test_no_translation_is_empty_or_said_twice(translated):
    assert [message for message, translation in translated if not translation.strip()] == []
    ids = [message for message, _ in translated]
    assert sorted({message for message in ids if ids.count(message) > 1}) == []


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_places_to_fill_agree(translated):
    wrong = []
    for message, translation in translated:
        try:
            if fields(message) != fields(translation):
                wrong.append(message)
        except ValueError:
            # Formulas have braces of their own and are never filled.
            assert ".format" not in message
    assert wrong == []


@pytest.mark.parametrize("term", GLOSSARY)
def test_words_of_the_field_are_the_glossarys(term, translated):
    named = re.compile(rf"\b{term}s?\b", re.IGNORECASE)
    wrong = [
        message
        for message, translation in translated
        if named.search(re.sub(r"{\w*}", "", message)) and GLOSSARY[term] not in translation
    ]
    assert wrong == []
