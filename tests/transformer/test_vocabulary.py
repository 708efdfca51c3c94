"""Vocabularies: what goes in comes out, every token knows its place, and no text can pose as a special token."""

import json
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformer.vocabulary import SPECIAL_TOKENS, UNK, Vocabulary

ENGLISH = [
    "The book she bought yesterday is very interesting.",
    "I don't know where the books are.",
    "She walks, he walked; they are walking!",
    "Where did you go last night? 3.50 dollars (really)",
]
CHINESE = ["她昨天买的那本书很有意思。", "我喜欢在图书馆看书。", "你昨晚去哪儿了？我叫Tom，今年20岁。"]


@pytest.fixture(scope="module")
def english() -> Vocabulary:
    return Vocabulary.train(ENGLISH, level="bpe", size=120)


@pytest.fixture(scope="module")
def mixed() -> Vocabulary:
    return Vocabulary.train([*ENGLISH, *CHINESE], level="bpe", size=400)


@pytest.mark.parametrize("level", ["bpe", "word", "character"])
def test_texts_of_the_training_come_back(level: str) -> None:
    vocabulary = Vocabulary.train([*ENGLISH, *CHINESE], level=level, size=2000)
    for text in [*ENGLISH, *CHINESE]:
        encoded = vocabulary.encode(text)
        assert vocabulary.decode(encoded.ids) == text
        assert not any(encoded.unknown)


def test_of_too_many_characters_the_most_frequent_stay_and_chance_has_no_say() -> None:
    """Hundreds of characters occur once, and only some of them fit."""
    once = [chr(code) for code in range(0x4E00, 0x4E00 + 400)]
    texts = [*("".join(once[start : start + 8]) for start in range(0, 400, 8)), "我们我们我们", "我们"]
    made = [Vocabulary.train(texts, level="bpe", size=204) for _ in range(3)]
    tokens = [[vocabulary.token(index) for index in range(204)] for vocabulary in made]
    assert tokens[0] == tokens[1] == tokens[2]
    # The two frequent ones, and of the others the first.
    assert set(tokens[0]) == {*SPECIAL_TOKENS, "我", "们", *once[:198]}


def test_byte_pair_merges_are_those_of_the_published_algorithm() -> None:
    # Sennrich et al. 2016, algorithm 1, by hand: l-o and lo-w are the most frequent pairs, then the space before.
    vocabulary = Vocabulary.train(["low low low low low"], level="bpe", size=20)
    assert len(vocabulary.encode("low").ids) == 1
    assert vocabulary.encode("lo").ids != vocabulary.encode("low").ids


def test_chinese_characters_are_never_joined(mixed: Vocabulary) -> None:
    encoded = mixed.encode("她昨天买的那本书很有意思。")
    assert encoded.tokens == tuple("她昨天买的那本书很有意思。")
    assert encoded.words == tuple(range(13))


def test_mixed_text(mixed: Vocabulary) -> None:
    encoded = mixed.encode("我喜欢 the books，20 岁")
    assert mixed.decode(encoded.ids) == "我喜欢 the books，20岁"
    words = [
        "".join(token for token, of in zip(encoded.tokens, encoded.words, strict=True) if of == word)
        for word in range(encoded.words[-1] + 1)
    ]
    assert words == ["我", "喜", "欢", "the", "books", "，", "20", "岁"]


def test_unknown_tokens_show_what_they_were(english: Vocabulary) -> None:
    family = "👨‍👩‍👧‍👦"
    encoded = english.encode(f"The {family} привет 书 book")
    shown = [token for token, unknown in zip(encoded.tokens, encoded.unknown, strict=True) if unknown]
    assert shown == [family, "привет", "书"]
    assert encoded.ids.count(UNK) == 3


@pytest.mark.parametrize("text", ["<pad> <bos> <eos> <unk>", "</s>", "<eos>"])
def test_text_never_becomes_a_special_token(mixed: Vocabulary, text: str) -> None:
    assert not {0, 1, 2} & set(mixed.encode(text).ids)


def test_typographic_apostrophes_and_lower_case() -> None:
    vocabulary = Vocabulary.train(["i don't know"], level="word", lowercase=True)
    encoded = vocabulary.encode("I don’t KNOW")
    assert encoded.tokens == ("I", "don’t", "KNOW")
    assert not any(encoded.unknown)
    assert vocabulary.decode(encoded.ids) == "i don't know"


def test_decomposed_accents_stay_whole() -> None:
    vocabulary = Vocabulary.train(["étude é t u d e"], level="word")
    text = unicodedata.normalize("NFD", "étude")
    assert vocabulary.encode(text).tokens == (text,)
    assert not any(vocabulary.encode(text).unknown)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.text(max_size=60), st.text(alphabet="The bok她买书。 ▁'’\u0301👩\u200d🚀12é<>", max_size=40))
)
@pytest.mark.parametrize("level", ["bpe", "word", "character"])
def test_any_text(vocabularies: dict[str, Vocabulary], level: str, text: str) -> None:
    vocabulary = vocabularies[level]
    encoded = vocabulary.encode(text)
    assert list(encoded.ids) == vocabulary.encode_ids([text])[0]
    assert len(encoded.ids) == len(encoded.tokens) == len(encoded.offsets) == len(encoded.words)
    position = 0
    for token, (start, end) in zip(encoded.tokens, encoded.offsets, strict=True):
        assert position <= start <= end <= len(text)
        assert token in (text[start:end], "␣")
        assert not text[position:start].strip(), "a character of the text is in no token"
        position = end
    assert not text[position:].strip()
    assert all(
        0 <= after - before <= 1 for before, after in zip(encoded.words, encoded.words[1:], strict=False)
    )
    assert all(4 <= index < len(vocabulary) or index == UNK for index in encoded.ids)


@pytest.fixture(scope="module")
def vocabularies() -> dict[str, Vocabulary]:
    texts = [*ENGLISH, *CHINESE]
    return {level: Vocabulary.train(texts, level=level, size=300) for level in ("bpe", "word", "character")}


def test_spelling_agrees_with_encoding(mixed: Vocabulary) -> None:
    for text in [*ENGLISH, *CHINESE, "Tom books 她 book"]:
        encoded, spelled = mixed.encode(text), mixed.spell(mixed.encode(text).ids)
        assert spelled.text.strip() == mixed.decode(encoded.ids)
        assert spelled.words == encoded.words
        if spelled.text == text:
            assert spelled.tokens == encoded.tokens
            assert spelled.offsets == encoded.offsets


def test_spelling_shows_special_tokens(mixed: Vocabulary) -> None:
    ids = (*mixed.encode("The book").ids, 2)
    assert mixed.spell(ids).tokens[-1] == "<eos>"
    assert mixed.spell(ids).text == "The book"


def test_rare_tokens_are_left_out() -> None:
    vocabulary = Vocabulary.train(["a a a b b c"], level="word", min_frequency=2)
    assert [vocabulary.token(index) for index in range(4, len(vocabulary))] == ["a", "b"]
    assert len(Vocabulary.train(["a a a b b c"], level="word", size=5)) == 5


@pytest.mark.parametrize("level", ["bpe", "word", "character"])
def test_saved_and_loaded(tmp_path, level: str) -> None:
    vocabulary = Vocabulary.train([*ENGLISH, *CHINESE], level=level, size=300, lowercase=True)
    vocabulary.save(tmp_path, "v")
    again = Vocabulary.load(tmp_path, "v")
    for text in [*ENGLISH, *CHINESE, "zzz 👩 她们"]:
        assert again.encode(text) == vocabulary.encode(text)


def damaged(values: dict) -> list[str]:
    return [
        "",
        "[]",
        "{",
        json.dumps({**values, "tokens": values["tokens"][4:]}),
        json.dumps({**values, "tokens": [*values["tokens"], values["tokens"][-1]]}),
        json.dumps({**values, "tokens": [1, 2, 3]}),
        json.dumps({**values, "merges": ["x"]}),
        json.dumps({**values, "merges": ["q qq"]}),
        json.dumps({**values, "level": "sentence"}),
        json.dumps({**values, "lowercase": "yes"}),
        json.dumps({key: value for key, value in values.items() if key != "merges"}),
    ]


def test_a_damaged_file_is_refused_by_name(tmp_path, english: Vocabulary) -> None:
    english.save(tmp_path, "good")
    values = json.loads((tmp_path / "good.json").read_text(encoding="utf-8"))
    for content in damaged(values):
        (tmp_path / "bad.json").write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"bad\.json"):
            Vocabulary.load(tmp_path, "bad")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"bad\.json"):
        Vocabulary.load(tmp_path, "bad")
    with pytest.raises(ValueError, match=r"missing\.json"):
        Vocabulary.load(tmp_path, "missing")


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="level"):
        Vocabulary.train(["a"], level="sentence")
    with pytest.raises(ValueError, match="size"):
        Vocabulary.train(["a"], level="word", size=4)
    assert len(SPECIAL_TOKENS) == 4
