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
=================================  ==================================================================
"""

import hashlib
import json
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
    write_atomically(folder / WEIGHTS, safetensors.torch.save(tensors))


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


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and metadata of a safetensors file.

    Raises:
        ValueError: If it is missing or corrupt.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error


def save_training_state(folder: Path, state: TrainingState) -> None:
    """Write a training's state in one file, so that it is whole or absent."""
    metadata = {name: str(value) for name, value in state.numbers.items()}
    write_atomically(folder / TRAINING_STATE, safetensors.torch.save(state.tensors, metadata))


def load_training_state(folder: Path) -> TrainingState:
    """Read a training's state.

    Raises:
        ValueError: If it is missing or corrupt.
    """
    tensors, metadata = read_tensors(folder / TRAINING_STATE)
    try:
        return TrainingState(tensors=tensors, numbers={name: int(value) for name, value in metadata.items()})
    except ValueError as error:
        raise ValueError(f"{folder / TRAINING_STATE} is not a training state: {error}.") from error


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
        write_atomically(folder / f"{SNAPSHOTS}.safetensors", safetensors.torch.save(self._tensors))
        write_atomically(folder / f"{SNAPSHOTS}.json", json.dumps(description, ensure_ascii=False).encode())

    @classmethod
    def load(cls, folder: Path) -> "Snapshots":
        """Read both files.

        Raises:
            ValueError: If one is missing or corrupt.
        """
        path = folder / f"{SNAPSHOTS}.json"
        try:
            description = json.loads(path.read_text(encoding="utf-8"))
            probes = [
                ProbeText(**{key: tuple(probe[key]) for key in probe}) for probe in description["probes"]
            ]
            snapshots = cls(probes)
            snapshots.steps = [int(step) for step in description["steps"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} cannot be read: {error}.") from error
        snapshots._tensors, _ = read_tensors(folder / f"{SNAPSHOTS}.safetensors")
        return snapshots
