"""Recipes: everything a training needs, in one TOML file.

[data]                  task = "reverse", or train = "FILE.tsv.gz" and dev = "FILE.tsv.gz"
[source_vocabulary]     level, size, lowercase, min_frequency
[target_vocabulary]
[model]                 fields of `ModelConfig` but the sizes of the vocabularies
[training]              fields of `TrainingConfig`
[[probes]]              source, target
"""

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from transformer.checkpoint import ProbeText
from transformer.config import ModelConfig, build, require_choice, require_integer
from transformer.data.batches import EncodedPairs, encode_pairs
from transformer.data.pairs import Pair, read_pairs, swap
from transformer.data.tasks import task
from transformer.model import Transformer
from transformer.train import Probe, Trainer, TrainingConfig
from transformer.vocabulary import BOS, EOS, Vocabulary

Level = Literal["bpe", "word", "character"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What to train on: a toy task, or two files of sentence pairs.

    Attributes:
        task: Name of a task, or empty.
        task_train: Examples to train on.
        task_dev: Examples to evaluate on, disjoint from those.
        task_seed: Seed of the examples.
        train: File of training pairs, found in the folder of the data.
        dev: File of development pairs.
        swap: Whether to read the second column and write the first.
        max_length: Longest side of a pair in tokens; longer pairs are left out.
    """

    task: str = ""
    task_train: int = 20000
    task_dev: int = 500
    task_seed: int = 1
    train: str = ""
    dev: str = ""
    swap: bool = False
    max_length: int = 100

    def __post_init__(self) -> None:
        if bool(self.task) == bool(self.train and self.dev):
            raise ValueError("[data] must name either a task, or the files train and dev.")
        require_integer("task_train", self.task_train, low=1, high=10**7)
        require_integer("task_dev", self.task_dev, low=1, high=10**6)
        require_integer("task_seed", self.task_seed, low=0, high=2**63 - 1)
        require_integer("max_length", self.max_length, low=1, high=10**5)
        require_choice("swap", self.swap, (True, False))


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """How to make a vocabulary; see `Vocabulary.train`."""

    level: Level = "bpe"
    size: int = 4000
    lowercase: bool = False
    min_frequency: int = 1

    def __post_init__(self) -> None:
        require_choice("level", self.level, get_args(Level))
        require_integer("size", self.size, low=8, high=10**6)
        require_integer("min_frequency", self.min_frequency, low=1, high=10**6)
        require_choice("lowercase", self.lowercase, (True, False))


@dataclass(frozen=True, kw_only=True)
class ProbeConfig:
    """A sentence pair whose attention is recorded while the model learns."""

    source: str
    target: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a training needs. `model` stands for the fields of `ModelConfig` but the vocabulary sizes."""

    data: DataConfig
    source_vocabulary: VocabularyConfig
    target_vocabulary: VocabularyConfig
    model: dict[str, Any]
    training: TrainingConfig
    probes: tuple[ProbeConfig, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The recipe as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Build a recipe from plain values.

        Raises:
            ValueError: If a section or a setting is unknown, missing, or has a value that is not allowed.
        """
        sections = ("data", "source_vocabulary", "target_vocabulary", "model", "training", "probes")
        for name in values:
            if name not in sections:
                raise ValueError(f"[{name}] is not a section of a recipe; allowed are {', '.join(sections)}.")
        model = values.get("model", {})
        # The sizes are known only once the vocabularies are made; 8 stands in for them to check the rest.
        build(ModelConfig, {**model, "source_size": 8, "target_size": 8}, "model")
        return cls(
            data=build(DataConfig, values.get("data", {}), "data"),
            source_vocabulary=build(
                VocabularyConfig, values.get("source_vocabulary", {}), "source_vocabulary"
            ),
            target_vocabulary=build(
                VocabularyConfig, values.get("target_vocabulary", {}), "target_vocabulary"
            ),
            model=dict(model),
            training=build(TrainingConfig, values.get("training", {}), "training"),
            probes=tuple(build(ProbeConfig, probe, "probes") for probe in values.get("probes", ())),
        )


def read_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe and change settings of it.

    Args:
        path: A TOML file.
        overrides: ``section.key=value`` each, the value in TOML.

    Raises:
        ValueError: If the file or a setting is not right.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"The recipe {path} cannot be read ({error.strerror}).") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"The recipe {path} is not TOML: {error}.") from error
    for override in overrides:
        section, key, value = split_override(override)
        table = values.setdefault(section, {})
        if not isinstance(table, dict):
            raise ValueError(f"{override!r} cannot be set: {section} is a list.")
        table[key] = value
    return Recipe.from_dict(values)


def split_override(override: str) -> tuple[str, str, Any]:
    """Take ``section.key=value`` apart; a value that is not TOML is taken as a string.

    Raises:
        ValueError: If it is not of this form.
    """
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if not (equals and dot and section and key):
        raise ValueError(f"{override!r} is not of the form section.key=value, such as training.steps=1000.")
    try:
        return section, key, tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return section, key, text.strip()


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A training that is ready to start.

    Attributes:
        recipe: Where it comes from.
        trainer: The trainer at step 0.
        dev: The pairs it is evaluated on.
        source_vocabulary: Vocabulary made from the sources.
        target_vocabulary: Vocabulary made from the targets.
        probes: Tokens of the probe sentences.
    """

    recipe: Recipe
    trainer: Trainer
    dev: tuple[Pair, ...]
    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    probes: tuple[ProbeText, ...]


def load_data(config: DataConfig, folder: Path | None) -> tuple[list[Pair], list[Pair]]:
    """The training and development pairs that a recipe asks for.

    Raises:
        ValueError: If a file is missing or not right, or `folder` is needed and not given.
    """
    if config.task:
        train, dev = task(config.task).split(config.task_seed, train=config.task_train, dev=config.task_dev)
        return (
            [Pair(source=e.source, target=e.target) for e in train],
            [Pair(source=e.source, target=e.target) for e in dev],
        )
    if folder is None:
        raise ValueError(f"This recipe reads {config.train}: name the folder that holds it with --data.")
    pairs = read_pairs(folder / config.train), read_pairs(folder / config.dev)
    return (swap(pairs[0]), swap(pairs[1])) if config.swap else pairs


def prepare(recipe: Recipe, folder: Path | None = None) -> Prepared:
    """Read the data, make the vocabularies and the model.

    Raises:
        ValueError: If data or settings are not right.
    """
    train, dev = load_data(recipe.data, folder)
    source_vocabulary = train_vocabulary([pair.source for pair in train], recipe.source_vocabulary)
    target_vocabulary = train_vocabulary([pair.target for pair in train], recipe.target_vocabulary)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.training.seed)
        model = Transformer(
            ModelConfig.from_dict(
                {**recipe.model, "source_size": len(source_vocabulary), "target_size": len(target_vocabulary)}
            )
        )

    def encode(pairs: list[Pair]) -> EncodedPairs:
        return encode_pairs(pairs, source_vocabulary, target_vocabulary, recipe.data.max_length)

    probes, texts = [], []
    for probe in recipe.probes:
        source, target = source_vocabulary.encode(probe.source), target_vocabulary.encode(probe.target)
        probes.append(Probe(source=torch.tensor([*source.ids, EOS]), target=torch.tensor([BOS, *target.ids])))
        texts.append(
            ProbeText(
                source=(*source.tokens, source_vocabulary.token(EOS)),
                target=(target_vocabulary.token(BOS), *target.tokens),
                predicted=(*target.tokens, target_vocabulary.token(EOS)),
            )
        )
    trainer = Trainer(
        model=model, train=encode(train), dev=encode(dev), config=recipe.training, probes=probes
    )
    return Prepared(
        recipe=recipe,
        trainer=trainer,
        dev=tuple(dev),
        source_vocabulary=source_vocabulary,
        target_vocabulary=target_vocabulary,
        probes=tuple(texts),
    )


def train_vocabulary(texts: list[str], config: VocabularyConfig) -> Vocabulary:
    """The vocabulary that a recipe asks for."""
    return Vocabulary.train(
        texts,
        level=config.level,
        size=config.size,
        lowercase=config.lowercase,
        min_frequency=config.min_frequency,
    )
