"""What tells trainings apart: their settings side by side, which runs differ in their seed alone, and what they wrote."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from lab.figures.curves import display_width
from transformer.config import ModelConfig
from transformer.recipe import DataConfig, VocabularyConfig
from transformer.train import TrainingConfig

SEED = "training.seed"
CONFIGS: dict[str, type] = {
    "data": DataConfig,
    "source_vocabulary": VocabularyConfig,
    "target_vocabulary": VocabularyConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
}

Spec = Mapping[str, Any]


def settings(spec: Spec) -> dict[str, Any]:
    """Every setting of a training under its section and name, such as ``model.norm``; what is not given has its default."""
    found: dict[str, Any] = {}
    for section, config in CONFIGS.items():
        defaults = {each.name: each.default for each in fields(config) if each.default is not MISSING}
        for name, value in {**defaults, **spec.get(section, {})}.items():
            found[f"{section}.{name}"] = value
    found["probes"] = spec.get("probes", ())
    return {name: list(value) if isinstance(value, (list, tuple)) else value for name, value in found.items()}


def differences(specs: Sequence[Spec]) -> dict[str, list[Any]]:
    """The settings in which trainings differ, each with its value in every one of them; None where it has none."""
    every = [settings(spec) for spec in specs]
    names = dict.fromkeys(name for each in every for name in each)
    table = {name: [each.get(name) for each in every] for name in names}
    return {name: values for name, values in table.items() if any(value != values[0] for value in values)}


def seed_groups(specs: Mapping[str, Spec]) -> list[list[str]]:
    """Runs by ID in groups that differ in `SEED` alone, in the order in which they are given."""
    groups: dict[str, list[str]] = {}
    for run_id, spec in specs.items():
        rest = {name: value for name, value in settings(spec).items() if name != SEED}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(run_id)
    return list(groups.values())


def marked(reference: str, written: str) -> list[tuple[str, bool]]:
    """The pieces of what a model wrote, each with whether it stands in the reference at this place.

    Words where there are spaces, else characters. Both texts are aligned so that most pieces agree in their order; a
    piece that is missing is an empty string that is not right.
    """
    if " " in reference.strip() or " " in written.strip():
        wanted, found = reference.split(), written.split()
    else:
        wanted, found = list(reference.strip()), list(written.strip())
    pieces: list[tuple[str, bool]] = []
    matcher = difflib.SequenceMatcher(None, wanted, found, autojunk=False)
    for kind, first, last, start, end in matcher.get_opcodes():
        pieces += [(piece, kind == "equal") for piece in found[start:end]]
        pieces += [("", False)] * max(0, (last - first) - (end - start))
    return pieces


def shortened(name: str, width: int) -> str:
    """A name that is no wider than so many Latin letters; a Chinese one counts as two."""
    if display_width(name) <= width:
        return name
    kept = name
    while kept and display_width(kept) > width - 1:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"
