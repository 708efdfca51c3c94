"""Presets: their probes are right, unseen in training, and of the grammar; their measured results are in docs/log.md."""

import itertools
import re

import pytest

from lab.runs.presets import ORDER, preset_names, read_preset
from lab.runs.probes import chosen_probes
from transformer.data.pairs import Pair
from transformer.data.tasks import (
    ACTIONS,
    ADJECTIVES,
    OWNED,
    OWNERS,
    PEOPLE,
    PLACES,
    REASONS,
    THINGS,
    TIMES,
    VERBS,
)
from transformer.recipe import load_data, prepare

NAMES = preset_names()
TOYS = [name for name in NAMES if name in ORDER]


def added(source: str) -> str:
    return str(sum(map(int, source.split("+"))))[::-1]


def resolved(source: str) -> str:
    """The sentence with its pronoun replaced by the one noun of its gender, found without the generator."""
    nouns = (*PEOPLE, *THINGS)
    english = source.isascii()
    head, because, tail = source.partition(" because " if english else "，因为")
    pronoun, rest = tail.split(" ", 1) if english else (tail[0], tail[1:])
    named = [
        each.english if english else each.chinese
        for each in nouns
        if (each.english if english else each.chinese) in head
        and pronoun == (each.pronoun if english else each.chinese_pronoun)
    ]
    assert len(named) == 1
    verbs = "|".join(re.escape(verb[0 if english else 1]) for verb in VERBS)
    reasons = "|".join(re.escape(reason[0 if english else 1]) for reason in REASONS)
    words = "|".join(re.escape(each.english if english else each.chinese) for each in nouns)
    gap = " " if english else ""
    assert re.fullmatch(f"({words}){gap}({verbs}){gap}({words})", head)
    assert re.fullmatch(f"({reasons})( \\.|。)", rest)
    return f"{head}{because}{named[0]}{gap}{rest}"


def translated(source: str) -> str:
    """The Chinese of a sentence of the small English, by a parse of its own."""

    def either(words) -> str:
        return "|".join(re.escape(each.english) for each in words)

    person = rf"the (?:({either(ADJECTIVES)}) )?({either(OWNED)})(?: of the ({either(OWNERS)}))?"
    whole = rf"{person} ({either(ACTIONS)}) {person} ({either(PLACES)}) ({either(TIMES)}) \."
    found = re.fullmatch(whole, source)
    chinese = {
        each.english: each.chinese
        for each in itertools.chain(ADJECTIVES, OWNED, OWNERS, ACTIONS, PLACES, TIMES)
    }
    adjective, who, whose, did, adjective2, whom, whose2, where, when = (
        chinese[each] if each else "" for each in found.groups()
    )

    def spoken(owner: str, described: str, owned: str) -> str:
        return f"{owner}的{described}{owned}" if owner else f"{described}{owned}"

    return f"{when}{spoken(whose, adjective, who)}{where}{did}{spoken(whose2, adjective2, whom)}。"


RULES = {
    "reverse": lambda source: " ".join(source.split()[::-1]),
    "sort": lambda source: " ".join(sorted(source.split())),
    "addition": added,
    "anaphora": resolved,
    "translation": translated,
}


@pytest.mark.parametrize("name", TOYS)
def test_probes_are_right_and_never_seen_in_training(name):
    recipe = read_preset(name)
    train, dev = load_data(recipe.data, None)
    for pair in dev[:50]:
        assert RULES[name](pair.source) == pair.target
    assert 3 <= len(recipe.probes) <= 8
    seen = {pair.source for pair in train}
    for probe in recipe.probes:
        assert probe.target == RULES[name](probe.source)
        assert probe.source not in seen


def test_probes_are_in_both_languages_where_the_grammar_is():
    sources = [probe.source.isascii() for probe in read_preset("anaphora").probes]
    assert {True, False} == set(sources)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_can_be_prepared_and_records_its_probes(name):
    recipe = read_preset(name)
    assert recipe.training.probe_count > 0
    prepared = prepare(recipe)
    for probe in recipe.probes:
        assert not any(prepared.source_vocabulary.encode(probe.source).unknown)
        assert not any(prepared.target_vocabulary.encode(probe.target).unknown)


def test_an_unknown_preset_is_none():
    with pytest.raises(ValueError, match="no preset"):
        read_preset("../recipes/reverse")


def test_chosen_probes_are_the_first_that_are_short_enough_and_differ():
    pairs = [
        Pair(source="a" * 200, target="b"),
        Pair(source="one", target="eins"),
        Pair(source="one", target="ein"),
        Pair(source="two", target="z" * 100),
        Pair(source="three", target="drei"),
        Pair(source="four", target="vier"),
        Pair(source="five", target="fünf"),
    ]
    assert [probe.target for probe in chosen_probes(pairs, longest=64)] == ["eins", "drei", "vier"]
    assert [probe.target for probe in chosen_probes(pairs, longest=5)] == ["eins", "vier", "fünf"]
    assert chosen_probes([], longest=64) == ()
