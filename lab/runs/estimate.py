"""What a training will take, before it starts: parameters, memory, time, disk, and whether that fits here.

Parameters are counted exactly, by a formula. Memory is what the formulas below say of weights, gradients, Adam's moments and what the
backward pass keeps of the largest batch. Time is a sum of counts (of layers, multiplications, elements, ...), each times
what one of them costs on this machine, which `lab.runs.calibrate` has measured. The counts come from the data itself,
cut into batches as the training will cut it.

What does not fit is a `RunProblem`:

=====================  ==============================================================================================
code                   details
=====================  ==============================================================================================
too_many_steps         steps, limit
too_many_parameters    parameters, limit
not_enough_memory      bytes, available
not_enough_disk        bytes, available
sequence_too_long      longest, limit: a pair has more tokens than the model's max_length
=====================  ==============================================================================================

Legend: B batch, S source length, T target length, H heads, K head width, D model width, F feed-forward width, V target
vocabulary, N batches. Arrays of shapes are (N,).
"""

import functools
import hashlib
import json
import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from lab.runs.problems import RunProblem
from transformer.config import ModelConfig
from transformer.data.batches import encode_pairs, lengths
from transformer.data.pairs import Pair, swap
from transformer.recipe import DataConfig, Recipe, VocabularyConfig, load_data, train_vocabulary
from transformer.train import TrainingConfig, snapshot_steps
from transformer.training_folder import SAVE_SECONDS, SAVE_SHARE

Pairs = tuple[Sequence[Pair], Sequence[Pair]]
Shapes = NDArray[np.float64]

FORMAT = 2
FLOAT = 4  # bytes
# More pairs are cut into batches by a sample of them.
MOST_PAIRS_CUT = 10_000
# Of the memory that is free, what a training may take: others need some too.
MEMORY_SHARE = 0.9
# What a pair takes in memory beside its text: two tensors, three Python objects, and what was needed to make them.
PAIR_BYTES = 4000
# A line of metrics.jsonl, and its numbers in the database.
METRIC_BYTES = 260
# Memory of a worker without data or model, where it was not measured.
BASE_BYTES = 400_000_000
# Passes over a batch that measuring the layers takes.
MEASURING_PASSES = 2.0
# Adam and clipping read and write each parameter eleven times, the average three times more.
AVERAGE_SHARE = 1.27
# Rows, source and target of a probe.
PROBE_SHAPE = ((1.0,), (12.0,), (12.0,))
# Writing samples of what the model says, and the heartbeat.
WORKER_SHARE = 1.01

COUNTS = (
    "steps", "pairs", "layers", "multiplications", "elements", "scores", "dropped", "additive", "logits", "parameters",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What one of each count costs on a machine, in seconds of one undisturbed core.

    Attributes:
        training: Seconds by count, of an optimiser step.
        evaluation: The same, of reading a batch without training on it.
        save_seconds: Seconds to save a checkpoint of no size.
        save_byte_seconds: Seconds a byte of a checkpoint takes.
        start_seconds: Seconds until a worker has imported what it needs.
        base_bytes: Memory of a worker before it has data or a model.
        machine: Which machine.
        torch: Version of torch.
        date: When it was measured, in ISO format.
    """

    training: dict[str, float]
    evaluation: dict[str, float]
    save_seconds: float
    save_byte_seconds: float
    start_seconds: float
    base_bytes: int
    machine: str
    torch: str
    date: str

    def to_json(self) -> str:
        """The calibration as it is stored."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"


def load_calibration(path: Path) -> Calibration | None:
    """What was measured, or None if nothing was, or on another machine, or with another version of torch."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = values.pop("format") == FORMAT
        calibration = Calibration(**values)
        costs = (
            *calibration.training.values(), *calibration.evaluation.values(), calibration.save_seconds,
            calibration.save_byte_seconds, calibration.start_seconds, calibration.base_bytes,
        )  # fmt: skip
        whole = set(calibration.training) == set(calibration.evaluation) == set(COUNTS)
        sane = all(math.isfinite(cost) and cost >= 0 for cost in costs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    here = (machine_name(), torch.__version__)
    return (
        calibration if known and whole and sane and (calibration.machine, calibration.torch) == here else None
    )


def machine_name() -> str:
    """What tells this machine from another for the purpose of measuring it."""
    return f"{platform.system()} {platform.machine()} {psutil.cpu_count()} x {processor_name()}"


@functools.cache
def processor_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


@dataclass(frozen=True, kw_only=True, eq=False)
class DataFacts:
    """What is known of a training's data once it was read.

    Attributes:
        source_size: Tokens of the source vocabulary.
        target_size: Tokens of the target vocabulary.
        train: Tokens of each training pair: source, and what the decoder reads, (pairs, 2).
        dev: The same of the development pairs.
        dropped: Pairs left out because a side is empty or too long.
        text_bytes: Size of all text.
        seconds: How long it took to read.
    """

    source_size: int
    target_size: int
    train: NDArray[np.int64]
    dev: NDArray[np.int64]
    dropped: int
    text_bytes: int
    seconds: float

    @property
    def longest(self) -> int:
        """The longest sequence that the model has to read."""
        return int(max(self.train.max(), self.dev.max()))


def facts_of_data(recipe: Recipe, folder: Path | None = None, pairs: Pairs | None = None) -> DataFacts:
    """Read the data of a recipe; what was read before is remembered.

    Args:
        recipe: Which data, and how it becomes tokens.
        folder: Folder of the recipe's files.
        pairs: Pairs to train and to evaluate on, instead of what the recipe names.

    Raises:
        ValueError: If the data is not right, or nothing is left of it.
    """
    data = recipe.data
    if pairs is not None:
        source = Source(checksum(pairs), pairs)
    elif data.task or folder is None:
        source = Source("", None)
    else:
        source = Source(
            folder.absolute().as_posix() + stamp(folder / data.train) + stamp(folder / data.dev), folder
        )
    return encoded_facts(data, recipe.source_vocabulary, recipe.target_vocabulary, source)


@dataclass(frozen=True)
class Source:
    """Where pairs come from. Two are the same if their keys are."""

    key: str
    value: Path | Pairs | None = field(compare=False)


def checksum(pairs: Pairs) -> str:
    """What tells these pairs from others."""
    digest = hashlib.sha256()
    for part in pairs:
        digest.update("\n".join(f"{pair.source}\t{pair.target}" for pair in part).encode())
        digest.update(b"\n\n")
    return digest.hexdigest()


def stamp(path: Path) -> str:
    """What tells this state of a file from a later one."""
    status = path.stat() if path.exists() else None
    return "" if status is None else f" {status.st_mtime_ns} {status.st_size}"


@functools.lru_cache(maxsize=4)
def loaded(data: DataConfig, source: Source) -> tuple[Pairs, float]:
    """The pairs, and the seconds they took."""
    began = time.thread_time()
    if isinstance(source.value, tuple):
        train, dev = source.value
        pairs = (swap(train), swap(dev)) if data.swap else (train, dev)
    else:
        pairs = load_data(data, source.value)
    return pairs, time.thread_time() - began


@functools.lru_cache(maxsize=16)
def encoded_facts(
    data: DataConfig, source_vocabulary: VocabularyConfig, target_vocabulary: VocabularyConfig, source: Source
) -> DataFacts:
    """The facts of pairs as tokens.

    Raises:
        ValueError: If nothing is left to train or to evaluate on.
    """
    # Whatever does not change the pairs must not make them be read again.
    (train, dev), seconds = loaded(replace(data, max_length=DataConfig.max_length), source)
    began = time.thread_time()
    vocabularies = (
        train_vocabulary([pair.source for pair in train], source_vocabulary),
        train_vocabulary([pair.target for pair in train], target_vocabulary),
    )
    parts = [encode_pairs(part, *vocabularies, data.max_length) for part in (train, dev)]
    if not all(map(len, parts)):
        raise ValueError(
            f"There are {len(parts[0])} sentence pairs to train on and {len(parts[1])} to evaluate on, of at most "
            f"{data.max_length} tokens a side; both must be at least 1."
        )
    return DataFacts(
        source_size=len(vocabularies[0]),
        target_size=len(vocabularies[1]),
        train=np.array(lengths(parts[0])),
        dev=np.array(lengths(parts[1])),
        dropped=sum(part.dropped for part in parts),
        text_bytes=sum(len(pair.source) + len(pair.target) for part in (train, dev) for pair in part) * 2,
        seconds=seconds + time.thread_time() - began,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """Shapes of the batches of one pass over the data, or of a sample of it.

    Attributes:
        rows: Pairs of each batch B, (N,).
        source: Longest source of each S, (N,).
        target: Longest target of each T, (N,).
        target_tokens: Target tokens of each, padding not counted, (N,).
        count: Batches of the whole pass.
        padding: Share of all positions that is padding.
    """

    rows: Shapes
    source: Shapes
    target: Shapes
    target_tokens: Shapes
    count: float
    padding: float


def cut(pairs: NDArray[np.int64], batch_tokens: int, *, shuffled: bool) -> Batches:
    """The batches of one pass; see `transformer.data.batches`.

    Args:
        pairs: Tokens of each pair, (pairs, 2).
        batch_tokens: Most source plus target tokens of a batch, padding counted.
        shuffled: Whether pairs of about one length are mixed, as in training.
    """
    longer = pairs.max(axis=1).astype(np.float64)
    keys = longer + np.random.default_rng(1).random(len(longer)) if shuffled else longer
    order = np.argsort(keys, kind="stable")
    every = -(-len(order) // MOST_PAIRS_CUT)
    # From the end: the longest pair makes the largest batch.
    chosen = pairs[order[::-1][::every][::-1]]
    batches: list[tuple[int, int, int, int]] = []
    rows = longest_source = longest_target = tokens = 0
    for source, target in chosen.tolist():
        wider, taller = max(longest_source, source), max(longest_target, target)
        if rows and (wider + taller) * (rows + 1) > batch_tokens:
            batches.append((rows, longest_source, longest_target, tokens))
            rows, tokens, wider, taller = 0, 0, source, target
        rows, longest_source, longest_target, tokens = rows + 1, wider, taller, tokens + target
    batches.append((rows, longest_source, longest_target, tokens))
    shapes = np.array(batches, dtype=np.float64).T
    return Batches(
        rows=shapes[0],
        source=shapes[1],
        target=shapes[2],
        target_tokens=shapes[3],
        count=len(batches) * len(order) / len(chosen),
        padding=1.0 - float(chosen.sum() / (shapes[0] * (shapes[1] + shapes[2])).sum()),
    )


@functools.lru_cache(maxsize=64)
def all_batches(facts: DataFacts, batch_tokens: int) -> tuple[Batches, Batches]:
    """The batches that are trained on, and those that are evaluated on."""
    return cut(facts.train, batch_tokens, shuffled=True), cut(facts.dev, batch_tokens, shuffled=False)


def parameters_of(config: ModelConfig) -> int:
    """Trainable parameters of a model, without making it.

    Making it on torch's meta device would count them too, and load a second's worth of modules first.
    """
    d = config.d_model
    attention = 4 * (d * d + d) + (d if config.attention == "additive" else 0)
    feed_forward = 2 * d * config.d_ff + config.d_ff + d
    norm = 0 if config.norm == "none" else 2 * d
    embeddings = {
        "all": config.target_size,
        "target": config.source_size + config.target_size,
        "none": config.source_size + 2 * config.target_size,
    }[config.tied_embeddings]
    return (
        embeddings * d
        + (2 * config.max_length * d if config.positions == "learned" else 0)
        + config.encoder_layers * (attention + feed_forward + 2 * norm)
        + config.decoder_layers * (2 * attention + feed_forward + 3 * norm)
        + (2 * norm if config.norm == "pre" else 0)
    )


def explicit(config: ModelConfig) -> bool:
    """Whether training makes the scores of attention one by one: the fused kernel does neither of these."""
    return config.attention == "additive" or config.attention_dropout > 0


def work(config: ModelConfig, rows: Shapes, source: Shapes, target: Shapes) -> dict[str, Shapes]:
    """How much there is to do for batches, by count; the costs are those of a forward pass, or of all passes of a step.

    Args:
        config: Which model.
        rows: B of each batch, (N,).
        source: S of each.
        target: T of each.
    """
    d, f = config.d_model, config.d_ff
    encoders, decoders = config.encoder_layers, config.decoder_layers
    sources, targets = rows * source, rows * target
    self_scores = rows * (encoders * source**2 + decoders * target**2)
    cross_scores = rows * decoders * target * source
    scores = (self_scores + cross_scores) * config.num_heads
    rotary = config.positions == "rotary"
    # A decoder layer has three sub-layers; the other numbers are how much longer small models took.
    layers = (
        encoders
        + 1.8 * decoders
        + (encoders + decoders) * (0.3 * rotary + 0.2 * (config.positions == "alibi"))
    )
    return {
        "steps": np.ones_like(rows),
        "pairs": rows,
        "layers": np.full_like(rows, layers + 0.5 * (encoders + 2 * decoders) * explicit(config)),
        "multiplications": sources * (encoders * (4 * d + 2 * f) + 2 * decoders * d) * d
        + targets * (decoders * (6 * d + 2 * f) + config.target_size) * d
        + 2 * (self_scores + cross_scores) * d,
        "elements": sources * (encoders * (8 * d + 2 * f + 1.5 * d * rotary) + 2 * d * (decoders + 1))
        + targets * (decoders * (13 * d + 2 * f + 1.5 * d * rotary) + 2 * d),
        "scores": scores,
        "dropped": (sources * (2 * encoders + 1) + targets * (3 * decoders + 1)) * d * (config.dropout > 0)
        + scores * (config.attention_dropout > 0),
        "additive": (self_scores + cross_scores) * d * (config.attention == "additive"),
        "logits": targets * config.target_size,
        "parameters": np.full_like(rows, parameters_of(config)),
    }


def seconds_of(costs: dict[str, float], amounts: dict[str, Shapes]) -> Shapes:
    """Seconds of each batch, (N,)."""
    return np.sum([costs[name] * amount for name, amount in amounts.items()], axis=0)


def kept_elements(config: ModelConfig, rows: Shapes, source: Shapes, target: Shapes) -> Shapes:
    """Numbers that the forward pass keeps for the backward pass, without those of logits and loss, (N,).

    Of a sub-layer: what its norm reads, its projections read, and its dropout drew; of attention: queries, keys, values, and
    what comes out of the heads, or all its scores where the fused kernel is not used.
    """
    d, h = config.d_model, config.num_heads
    norm, dropout = config.norm != "none", config.dropout > 0
    sources, targets = rows * source, rows * target
    alibi = 0.5 * h * (config.positions == "alibi")

    def scores(pairs: Shapes) -> Shapes:
        if config.attention == "additive":
            return pairs * (d + h * (3 if config.attention_dropout > 0 else 1))
        return pairs * (3 * h if config.attention_dropout > 0 else 0)

    # Additive attention needs its projections no more once tanh has been taken.
    projections = -2 if config.attention == "additive" else 0
    encoder = (
        sources * (d * (6 + 2 * (norm + dropout) + projections) + config.d_ff + h)
        + scores(rows * source**2) + alibi * rows * source**2
    )  # fmt: skip
    decoder = (
        targets * (d * (9 + 3 * (norm + dropout) + 1.5 * projections) + config.d_ff + 2 * h)
        + sources * d * (2 + 0.5 * projections)
        + scores(rows * target**2) + scores(rows * target * source) + (1 + alibi) * rows * target**2
    )  # fmt: skip
    ends = sources * d * ((config.norm == "pre") + dropout + 1) + targets * d * (
        (config.norm == "pre") + dropout + 1
    )
    return config.encoder_layers * encoder + config.decoder_layers * decoder + ends


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a training takes where it takes most.

    Attributes:
        base: The process before it has data or a model.
        data: Sentence pairs and their tokens.
        weights: The model.
        gradients: One for each parameter.
        moments: Adam's two for each parameter.
        average: The averaged weights, if there are any.
        activations: What the backward pass keeps of the largest batch.
        logits: Scores of the vocabulary for that batch, and what the loss makes of them.
        saving: Copies while a checkpoint is saved. By then nobody needs the activations, but what was given back in
            small pieces stays with the process.
    """

    base: int
    data: int
    weights: int
    gradients: int
    moments: int
    average: int
    activations: int
    logits: int
    saving: int

    @property
    def total(self) -> int:
        """The most that is taken at one time."""
        always = self.base + self.data + self.weights + self.gradients + self.moments + self.average
        return always + self.activations + self.logits + self.saving


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a training will take.

    Attributes:
        steps: Its steps.
        parameters: Trainable parameters.
        memory: Bytes of memory, by purpose.
        seconds: Seconds on one core of this machine; None if it was not measured.
        step_seconds: Seconds of a step, or None.
        disk: Bytes on disk.
        steps_per_epoch: Steps in which every pair is read once.
        epochs: How often each pair is read.
        tokens_per_step: Target tokens of a batch, padding not counted.
        padding: Share of a batch that is padding.
        evaluations: How often the development pairs are read.
        longest: Tokens of the longest sequence in the data.
        max_length: Tokens of the longest that the model reads.
    """

    steps: int
    parameters: int
    memory: Memory
    seconds: float | None
    step_seconds: float | None
    disk: int
    steps_per_epoch: float
    epochs: float
    tokens_per_step: float
    padding: float
    evaluations: int
    longest: int
    max_length: int


def estimate(recipe: Recipe, facts: DataFacts, calibration: Calibration | None) -> Estimate:
    """What a training will take.

    Args:
        recipe: The training.
        facts: Its data; see `facts_of_data`.
        calibration: This machine; see `load_calibration`.

    Raises:
        ValueError: If the model does not go with the vocabularies.
    """
    config = ModelConfig.from_dict(
        {**recipe.model, "source_size": facts.source_size, "target_size": facts.target_size}
    )
    training = recipe.training
    train, dev = all_batches(facts, training.batch_tokens)
    evaluations = math.ceil(training.steps / training.evaluate_every)
    memory = memory_of(config, training, facts, train, calibration)
    state = memory.weights + memory.moments + memory.average
    step_seconds = seconds = None
    if calibration is not None:
        step_seconds = step_time(config, training, train, calibration)
        one_pass = float(seconds_of(calibration.evaluation, work(config, *shape(dev))).mean()) * dev.count
        one_probe = float(seconds_of(calibration.evaluation, work(config, *np.array(PROBE_SHAPE)))[0])
        probes = len(recipe.probes) * len(snapshot_steps(training.steps, training.probe_count)) * one_probe
        working = training.steps * step_seconds + evaluations * one_pass + probes
        save = calibration.save_seconds + calibration.save_byte_seconds * (memory.weights + state)
        share = WORKER_SHARE + min(SAVE_SHARE, save / SAVE_SECONDS)
        seconds = calibration.start_seconds + facts.seconds + working * share + save
    return Estimate(
        steps=training.steps,
        parameters=parameters_of(config),
        memory=memory,
        seconds=seconds,
        step_seconds=step_seconds,
        # The last state, the one before, and one that is being written.
        disk=memory.weights * 2
        + state * 3
        + snapshot_bytes(config, recipe) * 3
        + training.steps * METRIC_BYTES,
        steps_per_epoch=train.count,
        epochs=training.steps / train.count,
        tokens_per_step=float(train.target_tokens.mean()),
        padding=train.padding,
        evaluations=evaluations,
        longest=facts.longest,
        max_length=config.max_length,
    )


def shape(batches: Batches) -> tuple[Shapes, Shapes, Shapes]:
    """B, S and T of batches."""
    return batches.rows, batches.source, batches.target


def step_time(
    config: ModelConfig, training: TrainingConfig, batches: Batches, calibration: Calibration
) -> float:
    """Seconds of a mean step, its share of measuring the layers included."""
    amounts = work(config, *shape(batches))
    if training.average_decay:
        amounts["parameters"] *= AVERAGE_SHARE
    seconds = float(seconds_of(calibration.training, amounts).mean())
    if training.layers_every:
        seconds += (
            MEASURING_PASSES
            * float(seconds_of(calibration.evaluation, amounts).mean())
            / training.layers_every
        )
    return seconds


def memory_of(
    config: ModelConfig,
    training: TrainingConfig,
    facts: DataFacts,
    batches: Batches,
    calibration: Calibration | None,
) -> Memory:
    """Bytes that a training takes."""
    weights = FLOAT * parameters_of(config)
    kept = FLOAT * kept_elements(config, *shape(batches))
    scores = FLOAT * batches.rows * batches.target * config.target_size
    # Logits, their log-softmax, and the gradients of both; smoothing has one more.
    logits = scores * (5 if training.label_smoothing else 4)
    largest = int((kept + logits).argmax())
    average = weights if training.average_decay else 0
    return Memory(
        base=calibration.base_bytes if calibration is not None else BASE_BYTES,
        data=facts.text_bytes
        + PAIR_BYTES * (len(facts.train) + len(facts.dev))
        + 8 * int(facts.train.sum() + facts.dev.sum()),
        weights=weights,
        gradients=weights,
        moments=2 * weights,
        average=average + (weights if training.layers_every else 0),
        activations=int(kept[largest]),
        logits=int(logits[largest]),
        # A copy of the state, its bytes, and the bytes of the whole file.
        saving=3 * (3 * weights + average),
    )


def snapshot_bytes(config: ModelConfig, recipe: Recipe) -> int:
    """Bytes of the attention of all probes at all recorded steps; a character is taken for a token."""
    training = recipe.training
    steps = len(snapshot_steps(training.steps, training.probe_count))
    weights = sum(
        config.encoder_layers * source**2 + config.decoder_layers * target * (target + source)
        for source, target in ((len(probe.source) + 1, len(probe.target) + 1) for probe in recipe.probes)
    )
    return 2 * steps * config.num_heads * weights


class Limits(Protocol):
    """What is allowed here; `lab.runs.settings.Settings` says so."""

    @property
    def most_steps(self) -> int:
        """Most steps of a training."""
        ...

    @property
    def most_parameters(self) -> int:
        """Most parameters of a model."""
        ...


def check_fits(
    estimated: Estimate, limits: Limits, *, memory: int | None = None, disk: int | None = None
) -> None:
    """Refuse a training that cannot go well here.

    Args:
        estimated: What it takes.
        limits: What is allowed.
        memory: Bytes of memory that are free; by default those of this machine.
        disk: Bytes of disk that are free, if that matters.

    Raises:
        RunProblem: If it is too much; see the table above.
    """
    if estimated.steps > limits.most_steps:
        raise RunProblem(
            "too_many_steps",
            f"{estimated.steps:,} steps are more than the {limits.most_steps:,} that are allowed here.",
            steps=estimated.steps,
            limit=limits.most_steps,
        )
    if estimated.parameters > limits.most_parameters:
        raise RunProblem(
            "too_many_parameters",
            f"The model would have {estimated.parameters:,} parameters, more than the {limits.most_parameters:,} "
            "that are allowed here.",
            parameters=estimated.parameters,
            limit=limits.most_parameters,
        )
    if estimated.longest > estimated.max_length:
        raise RunProblem(
            "sequence_too_long",
            f"A sentence has {estimated.longest} tokens and the model reads at most {estimated.max_length}: raise "
            "model.max_length, or lower data.max_length.",
            longest=estimated.longest,
            limit=estimated.max_length,
        )
    available = int((psutil.virtual_memory().available if memory is None else memory) * MEMORY_SHARE)
    if estimated.memory.total > available:
        raise RunProblem(
            "not_enough_memory",
            f"The training would take {estimated.memory.total / 1e9:.1f} GB of memory; {available / 1e9:.1f} GB are free.",
            bytes=estimated.memory.total,
            available=available,
        )
    if disk is not None and estimated.disk > disk:
        raise RunProblem(
            "not_enough_disk",
            f"The training would take {estimated.disk / 1e9:.1f} GB of disk; {disk / 1e9:.1f} GB are free.",
            bytes=estimated.disk,
            available=disk,
        )
