"""Checkpoints: a folder of plain files, written atomically; nothing is ever unpickled.

=================================  ==================================================================
file                               what it holds
=================================  ==================================================================
model.safetensors                  the weights to use (averaged, if the training averages)
config.json                        the model's configuration, the recipe, versions and the step
source_vocabulary.json, target_…   the two vocabularies
metrics.jsonl                      one JSON object an event of the training
snapshots.safetensors, .json       attention of the probe sentences over the training
training_state.safetensors         what a resumed training needs; absent from shipped checkpoints
previous_….safetensors             snapshots and training state of the save before
=================================  ==================================================================

Files of tensors carry a checksum: a flipped bit is found when they are read.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from transformer.config import ModelConfig
from transformer.files import write_atomically
from transformer.model import Transformer
from transformer.train import TrainingState
from transformer.vocabulary import Vocabulary

FORMAT = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
SOURCE_VOCABULARY = "source_vocabulary"
TARGET_VOCABULARY = "target_vocabulary"
METRICS = "metrics.jsonl"
SNAPSHOTS = "snapshots"
TRAINING_STATE = "training_state.safetensors"
PREVIOUS = "previous_"
CHECKSUM = "sha256"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trained model with all that is needed to use it.

    Attributes:
        model: The model, in evaluation mode.
        source_vocabulary: Vocabulary of what it reads.
        target_vocabulary: Vocabulary of what it writes.
        config: Contents of ``config.json``: ``model``, ``recipe``, ``step``, ``versions``.
        hash: Hash of weights, configuration and vocabularies: a key for caches.
    """

    model: Transformer
    source_vocabulary: Vocabulary
    target_vocabulary: Vocabulary
    config: dict[str, Any]
    hash: str


def save_weights(folder: Path, model: Transformer, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights of `model`, shared ones once, rounded to `dtype`."""
    tensors = {name: p.detach().to(dtype).contiguous() for name, p in model.named_parameters()}
    write_tensors(folder / WEIGHTS, tensors)


def save_description(
    folder: Path,
    *,
    model: Transformer,
    source_vocabulary: Vocabulary,
    target_vocabulary: Vocabulary,
    recipe: Mapping[str, Any],
    step: int,
) -> None:
    """Write what a checkpoint needs beside the weights: configuration and vocabularies."""
    folder.mkdir(parents=True, exist_ok=True)
    source_vocabulary.save(folder, SOURCE_VOCABULARY)
    target_vocabulary.save(folder, TARGET_VOCABULARY)
    save_config(folder, model=model, recipe=recipe, step=step)


def save_config(folder: Path, *, model: Transformer, recipe: Mapping[str, Any], step: int) -> None:
    """Write the configuration of a checkpoint, whose step is all that changes while it is trained."""
    config = {
        "format": FORMAT,
        "model": model.config.to_dict(),
        "recipe": dict(recipe),
        "step": step,
        "versions": {"torch": torch.__version__},
    }
    write_atomically(folder / CONFIG, (json.dumps(config, ensure_ascii=False, indent=2) + "\n").encode())


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        ValueError: If something is missing, corrupt, or does not fit together; the sentence names the file.
    """
    folder = Path(folder)
    digest = hashlib.sha256()
    for name in (WEIGHTS, CONFIG, f"{SOURCE_VOCABULARY}.json", f"{TARGET_VOCABULARY}.json"):
        try:
            digest.update((folder / name).read_bytes())
        except OSError as error:
            raise ValueError(
                f"{folder} is not a checkpoint: {name} cannot be read ({error.strerror})."
            ) from error
    config = read_config(folder)
    model_config = ModelConfig.from_dict(config["model"])
    source_vocabulary = Vocabulary.load(folder, SOURCE_VOCABULARY)
    target_vocabulary = Vocabulary.load(folder, TARGET_VOCABULARY)
    sizes = (len(source_vocabulary), len(target_vocabulary))
    if sizes != (model_config.source_size, model_config.target_size):
        raise ValueError(
            f"The vocabularies in {folder} have {sizes[0]} and {sizes[1]} tokens, but the model was made for "
            f"{model_config.source_size} and {model_config.target_size}."
        )
    with torch.random.fork_rng(devices=[]):
        model = Transformer(model_config)
    load_weights(folder, model)
    return Checkpoint(
        model=model.eval().requires_grad_(False),
        source_vocabulary=source_vocabulary,
        target_vocabulary=target_vocabulary,
        config=config,
        hash=digest.hexdigest(),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises:
        ValueError: If it is missing, not JSON, or of a format this version does not know.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    parts = [config.get(part) for part in ("model", "recipe")] if isinstance(config, dict) else []
    if not parts or config.get("format") != FORMAT or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{path} is not the configuration of a checkpoint of format {FORMAT}.")
    return config


@torch.no_grad()
def load_weights(folder: Path, model: Transformer) -> None:
    """Copy the weights in `folder` into `model`.

    Raises:
        ValueError: If the file is corrupt or its tensors are not this model's.
    """
    tensors, _ = read_tensors(folder / WEIGHTS)
    parameters = dict(model.named_parameters())
    if tensors.keys() != parameters.keys():
        different = sorted(tensors.keys() ^ parameters.keys())
        raise ValueError(
            f"{folder / WEIGHTS} does not fit the configuration: {different[0]} is missing or too many."
        )
    for name, parameter in parameters.items():
        if tensors[name].shape != parameter.shape:
            raise ValueError(
                f"{folder / WEIGHTS} does not fit the configuration: {name} has shape "
                f"{tuple(tensors[name].shape)} instead of {tuple(parameter.shape)}."
            )
        if not tensors[name].isfinite().all():
            raise ValueError(f"{folder / WEIGHTS} is damaged: {name} holds values that are not finite.")
        parameter.copy_(tensors[name])


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors, their checksum and metadata into a safetensors file, atomically."""
    marked = {**(metadata or {}), CHECKSUM: checksum(tensors)}
    write_atomically(path, safetensors.torch.save(dict(tensors), marked))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Raises:
        ValueError: If it is missing or corrupt.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            metadata = dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    # Files written before there were checksums have none.
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and expected != checksum(tensors):
        raise ValueError(f"{path} is damaged: its checksum does not agree with its contents.")
    return tensors, metadata


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors and their names, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def save_training_state(folder: Path, state: TrainingState, origin: str) -> None:
    """Write a training's state in one file, so that it is whole or absent; the one before is kept beside it.

    Args:
        folder: Folder of the training.
        state: What to write.
        origin: What the training was made from; see `load_training_state`.
    """
    keep_previous(folder / TRAINING_STATE)
    metadata = {"numbers": json.dumps(state.numbers), "origin": origin}
    write_tensors(folder / TRAINING_STATE, state.tensors, metadata)


def load_training_state(folder: Path) -> tuple[TrainingState, str]:
    """Read the last training state that is whole, and the origin that was given when it was saved.

    Raises:
        ValueError: If there is none; the sentence is about the newest.
    """
    problem: ValueError | None = None
    for name in (TRAINING_STATE, PREVIOUS + TRAINING_STATE):
        try:
            tensors, metadata = read_tensors(folder / name)
            numbers = {key: int(value) for key, value in json.loads(metadata["numbers"]).items()}
            return TrainingState(tensors=tensors, numbers=numbers), metadata["origin"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            problem = problem or ValueError(f"{folder / name} is not a training state: {error}")
    assert problem is not None
    raise problem


def has_training_state(folder: Path) -> bool:
    """Whether a training was saved in `folder`, whole or not."""
    return any((folder / name).exists() for name in (TRAINING_STATE, PREVIOUS + TRAINING_STATE))


def keep_previous(path: Path) -> None:
    """Before a file is written anew: move it aside, so that there are always two to choose from."""
    if path.exists():
        os.replace(path, path.with_name(PREVIOUS + path.name))


@dataclass(frozen=True, kw_only=True)
class ProbeText:
    """Tokens of a probe sentence, as they stand in the text.

    Attributes:
        source: What the encoder reads; ends with the end-of-sequence token.
        target: What the decoder reads; begins with the begin-of-sequence token.
        predicted: What each decoder position should predict.
    """

    source: tuple[str, ...]
    target: tuple[str, ...]
    predicted: tuple[str, ...]


class Snapshots:
    """Attention of probe sentences at some steps of a training.

    Attributes:
        probes: Tokens of each probe.
        steps: Recorded steps, rising.
    """

    def __init__(self, probes: Sequence[ProbeText]) -> None:
        self.probes = tuple(probes)
        self.steps: list[int] = []
        self._tensors: dict[str, Tensor] = {}

    def add(self, step: int, weights: Sequence[Mapping[str, Tensor]]) -> None:
        """Add what was recorded at `step`: for each probe, weights (H, queries, keys) by name."""
        self.steps = sorted({*self.steps, step})
        for probe, tensors in enumerate(weights):
            for name, tensor in tensors.items():
                self._tensors[f"{probe}/{step}/{name}"] = tensor.half().contiguous()

    def weights(self, probe: int, step: int, name: str) -> Tensor:
        """Attention weights (H, queries, keys), float32.

        Raises:
            KeyError: If this was not recorded.
        """
        return self._tensors[f"{probe}/{step}/{name}"].float()

    def save(self, folder: Path) -> None:
        """Write both files."""
        description = {
            "steps": self.steps,
            "probes": [
                {"source": p.source, "target": p.target, "predicted": p.predicted} for p in self.probes
            ],
        }
        keep_previous(folder / f"{SNAPSHOTS}.safetensors")
        keep_previous(folder / f"{SNAPSHOTS}.json")
        write_tensors(folder / f"{SNAPSHOTS}.safetensors", self._tensors)
        write_atomically(folder / f"{SNAPSHOTS}.json", json.dumps(description, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path) -> "Snapshots":
        """Read both files, or those of the save before if one of them is damaged.

        Raises:
            ValueError: If those are missing or corrupt too.
        """
        try:
            return cls._load(folder, "")
        except ValueError as problem:
            try:
                return cls._load(folder, PREVIOUS)
            except ValueError:
                raise problem from None

    @classmethod
    def _load(cls, folder: Path, prefix: str) -> "Snapshots":
        path = folder / f"{prefix}{SNAPSHOTS}.json"
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            probes = [
                ProbeText(**{key: tuple(probe[key]) for key in probe}) for probe in description["probes"]
            ]
            snapshots = cls(probes)
            snapshots.steps = [int(step) for step in description["steps"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {error}.") from error
        snapshots._tensors, _ = read_tensors(folder / f"{prefix}{SNAPSHOTS}.safetensors")
        recorded = {tuple(name.split("/")[1:2]) for name in snapshots._tensors}
        if recorded != {(str(step),) for step in snapshots.steps}:
            raise ValueError(f"{path} and the tensors beside it are not of the same save.")
        return snapshots
