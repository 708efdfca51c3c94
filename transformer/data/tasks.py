"""Toy tasks: seeded generators of pairs for which the right place to look is known.

The three grammars are our own. In `anaphora` the target is the source with its pronoun replaced by what it refers to, so
the token written in the pronoun's place must come from the antecedent. In `cause_effect` the target names the cause
that stands earlier in the text. Both write Chinese and English. In `translation` an English sentence becomes a Chinese
one, whose time and place stand before the verb and whose owner stands before what is owned; `Example.links` says where a reader has to look.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

# A task that gives nothing new so often in a row has nothing new to give.
MOST_MISSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Example:
    """One pair of a toy task.

    Attributes:
        source: What the model reads.
        target: What it should write.
        links: For a grammar, pairs of spans in characters ((start, end) in `source`, (start, end) in `target`): the
            target span can only be known from the source span.
        reference: For `anaphora`, the spans in `source` of the pronoun and of its antecedent.
    """

    source: str
    target: str
    links: tuple[tuple[tuple[int, int], tuple[int, int]], ...] = ()
    reference: tuple[tuple[int, int], tuple[int, int]] | None = None


Generate = Callable[[random.Random], Example]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A generator of examples.

    Attributes:
        name: What recipes call it.
        level: The level of vocabulary that suits it.
        generate: Draws one example.
    """

    name: str
    level: Literal["word", "character"]
    generate: Generate

    def examples(self, seed: int, count: int) -> list[Example]:
        """Draw `count` examples; the same seed always gives the same."""
        generator = random.Random(f"{self.name}/{seed}")
        return [self.generate(generator) for _ in range(count)]

    def split(self, seed: int, *, train: int, dev: int) -> tuple[list[Example], list[Example]]:
        """Draw training examples, and development examples whose sources are not among them.

        Raises:
            ValueError: If the task has too few different examples for that.
        """
        generator = random.Random(f"{self.name}/{seed}")
        held_out: dict[str, Example] = {}
        kept: list[Example] = []
        misses = 0
        while len(held_out) < dev and misses < MOST_MISSES:
            example = self.generate(generator)
            misses = misses + 1 if example.source in held_out else 0
            held_out.setdefault(example.source, example)
        while len(held_out) == dev and len(kept) < train and misses < MOST_MISSES:
            example = self.generate(generator)
            misses = misses + 1 if example.source in held_out else 0
            if not misses:
                kept.append(example)
        if len(held_out) < dev or len(kept) < train:
            raise ValueError(f"The task {self.name} has too few different examples for {train} and {dev}.")
        return kept, list(held_out.values())


def numbers(generator: random.Random, low: int = 4, high: int = 12) -> list[str]:
    """Between `low` and `high` random digits."""
    return [str(generator.randrange(10)) for _ in range(generator.randint(low, high))]


def aligned(source: Sequence[str], order: Sequence[int]) -> Example:
    """Digits and the same digits in another order, each linked to where it comes from."""
    target = [source[index] for index in order]
    # Digits are one character wide and one space apart.
    links = tuple(((2 * i, 2 * i + 1), (2 * j, 2 * j + 1)) for j, i in enumerate(order))
    return Example(source=" ".join(source), target=" ".join(target), links=links)


def generate_copy(generator: random.Random) -> Example:
    """Write the digits again."""
    digits = numbers(generator)
    return aligned(digits, range(len(digits)))


def generate_reverse(generator: random.Random) -> Example:
    """Write the digits from last to first."""
    digits = numbers(generator)
    return aligned(digits, range(len(digits) - 1, -1, -1))


def generate_sort(generator: random.Random) -> Example:
    """Write the digits in rising order; equal digits keep their order."""
    digits = numbers(generator)
    return aligned(digits, sorted(range(len(digits)), key=lambda index: (digits[index], index)))


def generate_addition(generator: random.Random) -> Example:
    """Add two numbers of up to four digits. The sum is written from its last digit, the order in which one adds."""
    left, right = (generator.randrange(10 ** generator.randint(1, 4)) for _ in range(2))
    return Example(source=f"{left}+{right}", target=str(left + right)[::-1])


@dataclass(frozen=True)
class Noun:
    """A person or thing with the pronoun that stands for it."""

    english: str
    chinese: str
    pronoun: str
    chinese_pronoun: str


PEOPLE = (
    Noun("the doctor", "医生", "she", "她"),
    Noun("the pilot", "飞行员", "she", "她"),
    Noun("the girl", "女孩", "she", "她"),
    Noun("the queen", "女王", "she", "她"),
    Noun("the aunt", "阿姨", "she", "她"),
    Noun("the nurse", "护士", "he", "他"),
    Noun("the cook", "厨师", "he", "他"),
    Noun("the boy", "男孩", "he", "他"),
    Noun("the king", "国王", "he", "他"),
    Noun("the uncle", "叔叔", "he", "他"),
)
THINGS = (
    Noun("the cat", "猫", "it", "它"),
    Noun("the dog", "狗", "it", "它"),
    Noun("the horse", "马", "it", "它"),
    Noun("the bird", "鸟", "it", "它"),
    Noun("the rabbit", "兔子", "it", "它"),
)
VERBS = (
    ("saw", "看见了"),
    ("followed", "跟着"),
    ("called", "叫了"),
    ("left", "离开了"),
    ("waited for", "等着"),
    ("looked for", "找过"),
)
REASONS = (
    ("was tired", "累了"),
    ("was hungry", "饿了"),
    ("was happy", "很高兴"),
    ("was lost", "迷路了"),
    ("was late", "来晚了"),
    ("was ill", "病了"),
)


def generate_anaphora(generator: random.Random) -> Example:
    """A sentence whose pronoun refers to one of two nouns, and the same sentence with that noun in its place.

    The pronoun fits only one of the two, so its reference is never in doubt.
    """
    first, second = generator.sample((*PEOPLE, *THINGS), 2)
    while first.pronoun == second.pronoun:
        first, second = generator.sample((*PEOPLE, *THINGS), 2)
    verb, reason, antecedent = (
        generator.choice(VERBS),
        generator.choice(REASONS),
        generator.choice((first, second)),
    )
    if generator.random() < 0.5:
        head = f"{first.english} {verb[0]} {second.english} because "
        tail, pronoun, noun, place = (
            f" {reason[0]} .",
            antecedent.pronoun,
            antecedent.english,
            antecedent.english,
        )
    else:
        head = f"{first.chinese}{verb[1]}{second.chinese}，因为"
        tail, pronoun, noun = f"{reason[1]}。", antecedent.chinese_pronoun, antecedent.chinese
        place = noun
    start = head.index(place)
    antecedent_span = (start, start + len(noun))
    at = len(head)
    return Example(
        source=head + pronoun + tail,
        target=head + noun + tail,
        links=((antecedent_span, (at, at + len(noun))),),
        reference=((at, at + len(pronoun)), antecedent_span),
    )


CAUSES = (
    ("it rained all night", "雨下了一夜", "the road was wet", "路是湿的"),
    ("the wind was strong", "风很大", "the hat flew away", "帽子飞走了"),
    ("the snow fell early", "雪下得早", "the school was closed", "学校放假了"),
    ("the lamp broke", "灯坏了", "the room was dark", "屋里很黑"),
    ("the bread burned", "面包烤焦了", "the kitchen smelled bad", "厨房里有怪味"),
    ("the bus was late", "公交车晚点了", "the class began without him", "他没赶上上课"),
    ("the dog barked", "狗叫了", "the baby woke up", "宝宝醒了"),
    ("the ice was thin", "冰很薄", "the sledge sank", "雪橇沉了"),
)
ASIDES = (
    ("on monday", "星期一"),
    ("in the village", "在村子里"),
    ("last winter", "去年冬天"),
    ("near the river", "在河边"),
    ("that morning", "那天早上"),
)


def generate_cause_effect(generator: random.Random) -> Example:
    """Two causes, then what followed from one of them; the target says which.

    Each effect belongs to one cause, so a reader has to find that cause among the two, a sentence or two earlier.
    """
    true, other = generator.sample(CAUSES, 2)
    causes = [true, other]
    generator.shuffle(causes)
    place, time = generator.sample(ASIDES, 2)
    if generator.random() < 0.5:
        head = f"{place[0]} {causes[0][0]} . {time[0]} {causes[1][0]} . "
        source, cause, before, after = f"{head}so {true[2]} .", true[0], "because ", " ."
    else:
        head = f"{place[1]}{causes[0][1]}。{time[1]}{causes[1][1]}。"
        source, cause, before, after = f"{head}所以{true[3]}。", true[1], "因为", "。"
    start = head.index(cause)
    span = (len(before), len(before) + len(cause))
    return Example(source=source, target=before + cause + after, links=(((start, start + len(cause)), span),))


@dataclass(frozen=True)
class Word:
    """A word or phrase in both languages."""

    english: str
    chinese: str


OWNERS = (
    Word("teacher", "老师"),
    Word("doctor", "医生"),
    Word("farmer", "农民"),
    Word("painter", "画家"),
    Word("girl", "女孩"),
    Word("boy", "男孩"),
)
OWNED = (
    Word("friend", "朋友"),
    Word("sister", "姐姐"),
    Word("cat", "猫"),
    Word("dog", "狗"),
    Word("horse", "马"),
    Word("neighbour", "邻居"),
)
ADJECTIVES = (Word("old", "老"), Word("young", "年轻的"), Word("quiet", "安静的"), Word("happy", "快乐的"))
ACTIONS = (
    Word("saw", "看见了"),
    Word("drew", "画了"),
    Word("called", "叫了"),
    Word("found", "找到了"),
    Word("followed", "跟着"),
    Word("greeted", "问候了"),
)
PLACES = (
    Word("in the garden", "在花园里"),
    Word("at the station", "在车站"),
    Word("on the bridge", "在桥上"),
    Word("near the lake", "在湖边"),
    Word("behind the house", "在房子后面"),
)
TIMES = (
    Word("yesterday", "昨天"),
    Word("this morning", "今天早上"),
    Word("last year", "去年"),
    Word("on monday", "星期一"),
)


def generate_translation(generator: random.Random) -> Example:
    """An English sentence and its Chinese translation, which orders it in another way.

    English says who did what to whom, where, when; Chinese says when, who, where, what, whom. "The friend of the
    teacher" becomes "the teacher's friend".
    """

    def person(owner: Word, owned: Word) -> tuple[list[str | Word], list[str | Word]]:
        adjective = generator.choice((None, None, *ADJECTIVES))
        described: list[str | Word] = [adjective] if adjective else []
        spoken = [part for each in described for part in (each, " ")]
        if generator.random() < 0.5:
            return ["the ", *spoken, owned], [*described, owned]
        return ["the ", *spoken, owned, " of the ", owner], [owner, "的", *described, owned]

    owners, owned = generator.sample(OWNERS, 2), generator.sample(OWNED, 2)
    subject, subject_zh = person(owners[0], owned[0])
    thing, thing_zh = person(owners[1], owned[1])
    action, place, time = (generator.choice(words) for words in (ACTIONS, PLACES, TIMES))
    english = [*subject, " ", action, " ", *thing, " ", place, " ", time, " ."]
    chinese = [time, *subject_zh, place, action, *thing_zh, "。"]
    source, source_spans = spell(english, "english")
    target, target_spans = spell(chinese, "chinese")
    # A word that is said twice is linked in the order in which both languages say it: subject first.
    links = tuple(
        (source_span, target_span)
        for word, spans in source_spans.items()
        for source_span, target_span in zip(spans, target_spans[word], strict=True)
    )
    return Example(source=source, target=target, links=links)


def spell(
    parts: Sequence[str | Word], language: Literal["english", "chinese"]
) -> tuple[str, dict[Word, list[tuple[int, int]]]]:
    """Join parts to a text, and say where each word stands."""
    text = ""
    spans: dict[Word, list[tuple[int, int]]] = {}
    for part in parts:
        if isinstance(part, Word):
            written = getattr(part, language)
            spans.setdefault(part, []).append((len(text), len(text) + len(written)))
            text += written
        else:
            text += part
    return text, spans


TASKS = {
    task.name: task
    for task in (
        Task(name="copy", level="word", generate=generate_copy),
        Task(name="reverse", level="word", generate=generate_reverse),
        Task(name="sort", level="word", generate=generate_sort),
        Task(name="addition", level="character", generate=generate_addition),
        Task(name="anaphora", level="word", generate=generate_anaphora),
        Task(name="cause_effect", level="word", generate=generate_cause_effect),
        Task(name="translation", level="word", generate=generate_translation),
    )
}


def task(name: str) -> Task:
    """The task of this name.

    Raises:
        ValueError: If there is none.
    """
    try:
        return TASKS[name]
    except KeyError:
        raise ValueError(f"{name!r} is not a task; the tasks are {', '.join(TASKS)}.") from None
