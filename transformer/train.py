"""Training as a stream of typed events.

`Trainer.events()` is a generator: it does the work of one step, then yields what happened. It knows no terminal, no
database and no page; the command line, a worker process and the tests each consume the events. On the CPU, with one
number of threads, it is reproducible bit for bit, also when it is interrupted and resumed from `Trainer.state()`.

Legend: B batch, S source length, T target length, V vocabulary.
"""

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from transformer.config import require_choice, require_integer, require_number
from transformer.data.batches import Batch, EncodedPairs, bucketed_batches, fixed_batches
from transformer.flat import FlatParameters
from transformer.layer_sizes import WeightsBefore, gradient_norms, layer_names, stream_sizes
from transformer.loss import label_smoothed_loss
from transformer.model import Transformer
from transformer.optim import ScheduleKind, build_optimizer, learning_rate
from transformer.trace import Trace
from transformer.vocabulary import PAD

MOMENTS = ("exp_avg", "exp_avg_sq")  # what torch's AdamW calls them
SCHEDULES = ("noam", "inverse_sqrt", "cosine", "linear", "constant")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train.

    Attributes:
        steps: Number of optimiser steps.
        batch_tokens: Most source plus target tokens of a batch, padding counted.
        schedule: See `transformer.optim.learning_rate`.
        peak: Highest learning rate; for ``noam`` the factor.
        warmup_steps: Steps of warm-up.
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment; the paper has 0.98.
        epsilon: Adam's epsilon.
        weight_decay: Decoupled weight decay of matrices.
        label_smoothing: See `transformer.loss`.
        clip_norm: Gradients with a greater norm are scaled down to it; 0 for no clipping.
        average_decay: Decay of the exponential moving average of the weights that is evaluated and kept;
            0 keeps the last weights. The paper averages its last checkpoints to the same end (section 6.1).
        evaluate_every: Steps between two evaluations; one more comes at the end.
        probe_count: Number of logarithmically spaced steps at which the probes' attention is recorded.
        layers_every: Steps between two measurements of the layers, beside one at step 1; 0 for none.
        seed: Seed of the initial weights, the order of the data and dropout.
    """

    steps: int
    batch_tokens: int = 3000
    schedule: ScheduleKind = "noam"
    peak: float = 1.0
    warmup_steps: int = 4000
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.0
    label_smoothing: float = 0.1
    clip_norm: float = 0.0
    average_decay: float = 0.0
    evaluate_every: int = 500
    probe_count: int = 15
    layers_every: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 10**8),
            ("batch_tokens", 8, 10**7),
            ("warmup_steps", 0, 10**8),
            ("evaluate_every", 1, 10**8),
            ("probe_count", 0, 1000),
            ("layers_every", 0, 10**8),
            ("seed", 0, 2**63 - 1),
        ):
            require_integer(name, getattr(self, name), low=low, high=high)
        for name, low_number, below in (
            ("peak", 0.0, 1e6),
            ("beta1", 0.0, 1.0),
            ("beta2", 0.0, 1.0),
            ("epsilon", 0.0, 1.0),
            ("weight_decay", 0.0, 1e3),
            ("label_smoothing", 0.0, 1.0),
            ("clip_norm", 0.0, 1e9),
            ("average_decay", 0.0, 1.0),
        ):
            require_number(name, getattr(self, name), low=low_number, below=below)
        require_choice("schedule", self.schedule, SCHEDULES)


@dataclass(frozen=True, kw_only=True)
class StepEnd:
    """One optimiser step is done.

    Attributes:
        step: Number of the step, from 1.
        epoch: Passes over the data before this one.
        loss: Mean label-smoothed loss per target token before the step, in nats.
        learning_rate: Learning rate of the step.
        grad_norm: Euclidean norm of all gradients before clipping.
        tokens: Target tokens of the batch.
        tokens_per_second: Target tokens per second of this step.
    """

    step: int
    epoch: int
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: int
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class LayersMeasured:
    """What each layer did in a step. The numbers of each tuple are in the order of `layers`.

    Attributes:
        step: Number of the step.
        layers: The layers by their names in the trace: ``encoder.0``, ..., ``decoder.0``, ...
        gradients: Euclidean norm of the gradient of each layer, before clipping.
        streams: Root mean square of the residual stream after each layer, before the step, without dropout.
        updates: How far each layer moves the stream, relative to the stream before it; see
            `transformer.layer_sizes.stream_sizes`.
        weight_updates: How far the step moved the weights of each layer, relative to those before it.
    """

    step: int
    layers: tuple[str, ...]
    gradients: tuple[float, ...]
    streams: tuple[float, ...]
    updates: tuple[float, ...]
    weight_updates: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The development set was read.

    Attributes:
        step: Steps done.
        loss: Mean cross-entropy per token without smoothing, in nats.
        accuracy: Share of tokens predicted right, given the right tokens before them.
        sequence_accuracy: Share of sentences with every token right, which is the share that greedy decoding
            gets exactly right: up to its first mistake it reads the same tokens.
    """

    step: int
    loss: float
    accuracy: float
    sequence_accuracy: float


@dataclass(frozen=True, kw_only=True)
class ProbesRecorded:
    """The attention of the probe sentences was recorded.

    Attributes:
        step: Steps done; 0 before the first.
        weights: For each probe, attention weights by the trace's names, each (H, queries, keys).
    """

    step: int
    weights: tuple[dict[str, Tensor], ...]


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The training is over.

    Attributes:
        step: Steps done.
        seconds: Seconds this process worked on it.
    """

    step: int
    seconds: float


Event = StepEnd | LayersMeasured | Evaluated | ProbesRecorded | Finished


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A sentence pair whose attention is recorded while the model learns.

    Attributes:
        source: Source ids (S,), with EOS.
        target: Target ids the decoder reads (T,), beginning with BOS.
    """

    source: Tensor
    target: Tensor


@dataclass(kw_only=True)
class TrainingState:
    """All that a training needs in order to go on bit for bit: named tensors and plain numbers."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)


def snapshot_steps(total: int, count: int) -> list[int]:
    """Step 0 and `count` logarithmically spaced steps from 1 to `total`, rising, without repeats."""
    if count == 0:
        return []
    exponents = [index / max(count - 1, 1) for index in range(count)]
    return sorted({0, total, *(round(math.exp(math.log(total) * exponent)) for exponent in exponents)})


class Trainer:
    """Trains one model.

    Args:
        model: Model to train, in place.
        train: Training pairs.
        dev: Development pairs.
        config: How to train.
        probes: Sentences whose attention is recorded on the way.

    Raises:
        ValueError: If there is nothing to train or to evaluate on.
    """

    def __init__(
        self,
        *,
        model: Transformer,
        train: EncodedPairs,
        dev: EncodedPairs,
        config: TrainingConfig,
        probes: Sequence[Probe] = (),
    ) -> None:
        if len(train) == 0 or len(dev) == 0:
            raise ValueError(
                f"There are {len(train)} sentence pairs to train on and {len(dev)} to evaluate on; "
                "both must be at least 1."
            )
        self.model = model
        self.config = config
        self.averaged = copy.deepcopy(model).eval() if config.average_decay else model
        self.step = 0
        self.train_data = train
        self.dev_data = dev
        self._probes = tuple(probes)
        self._probe_steps = set(snapshot_steps(config.steps, config.probe_count)) if probes else set()
        self._epoch = 0
        self._batch_in_epoch = 0
        self._weights = FlatParameters(model)
        self._average = FlatParameters(self.averaged) if config.average_decay else self._weights
        self._optimizer = build_optimizer(
            self._weights,
            betas=(config.beta1, config.beta2),
            epsilon=config.epsilon,
            weight_decay=config.weight_decay,
        )
        # Dropout draws from a stream of this training's own, so that whoever consumes the events can
        # draw random numbers too without changing the run.
        self._random_state = torch.Generator().manual_seed(config.seed).get_state()

    def events(self) -> Iterator[Event]:
        """Train from where the state stands to the last step, yielding what happens."""
        began = time.perf_counter()
        if self.step == 0 and self.records_probes_at(0):
            yield self._record_probes()
        while self.step < self.config.steps:
            batches = bucketed_batches(
                self.train_data,
                batch_tokens=self.config.batch_tokens,
                seed=self.config.seed,
                epoch=self._epoch,
                start=self._batch_in_epoch,
            )
            for batch in batches:
                yield from self._train_step(batch)
                if self.records_probes_at(self.step):
                    yield self._record_probes()
                if self.evaluates_at(self.step):
                    yield self.evaluate()
                if self.step == self.config.steps:
                    break
            else:
                self._epoch += 1
                self._batch_in_epoch = 0
        yield Finished(step=self.step, seconds=time.perf_counter() - began)

    def measures_layers_at(self, step: int) -> bool:
        """Whether the layers are measured in this step."""
        every = self.config.layers_every
        return every > 0 and (step == 1 or step % every == 0)

    def records_probes_at(self, step: int) -> bool:
        """Whether the probes are recorded after this step."""
        return step in self._probe_steps

    def evaluates_at(self, step: int) -> bool:
        """Whether the development set is read after this step."""
        return step % self.config.evaluate_every == 0 or step == self.config.steps

    def ends_step(self, event: Event) -> bool:
        """Whether `event` is the last one of its step, after which the training may be left and resumed.

        The order within a step is `StepEnd`, `LayersMeasured`, `ProbesRecorded`, `Evaluated`.
        """
        due = (
            (LayersMeasured, self.measures_layers_at),
            (ProbesRecorded, self.records_probes_at),
            (Evaluated, self.evaluates_at),
        )
        last: type = StepEnd
        for kind, happens_at in due:
            if happens_at(event.step):
                last = kind
        return event.step > 0 and isinstance(event, last)

    def _train_step(self, batch: Batch) -> Iterator[StepEnd | LayersMeasured]:
        measures = self.measures_layers_at(self.step + 1)
        if measures:
            streams, updates = stream_sizes(self.model, batch)
            weights = WeightsBefore(self.model)
        began = time.perf_counter()
        rate = learning_rate(
            self.config.schedule,
            self.step + 1,
            peak=self.config.peak,
            warmup_steps=self.config.warmup_steps,
            total_steps=self.config.steps,
            d_model=self.model.config.d_model,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if not self.model.training:  # asking each of thousands of modules takes a while
            self.model.train()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            logits = self.model(batch.source, batch.target_in)
            self._random_state = torch.get_rng_state()
        loss = label_smoothed_loss(logits, batch.target_out, self.config.label_smoothing)
        self._weights.zero_gradients()
        loss.backward()
        gradients = gradient_norms(self.model) if measures else ()
        grad_norm = torch.nn.utils.clip_grad_norm_(self._weights.vectors, self.config.clip_norm or math.inf)
        self._optimizer.step()
        self.step += 1
        self._batch_in_epoch += 1
        if self.averaged is not self.model:
            self._update_average()
        step_end = StepEnd(
            step=self.step,
            epoch=self._epoch,
            loss=loss.item(),
            learning_rate=rate,
            grad_norm=grad_norm.item(),
            tokens=batch.tokens,
            tokens_per_second=batch.tokens / (time.perf_counter() - began),
        )
        measured = None
        if measures:
            measured = LayersMeasured(
                step=self.step,
                layers=layer_names(self.model),
                gradients=gradients,
                streams=streams,
                updates=updates,
                weight_updates=weights.relative_changes(),
            )
        yield step_end
        if measured is not None:
            yield measured

    @torch.no_grad()
    def _update_average(self) -> None:
        # Short trainings must forget the initial weights too, so the decay grows with the steps.
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        for average, weights in zip(self._average.vectors, self._weights.vectors, strict=True):
            average.lerp_(weights, 1.0 - decay)

    @torch.inference_mode()
    def evaluate(self) -> Evaluated:
        """Loss and accuracies of the averaged weights on the development set."""
        self.averaged.eval()
        total_loss, right, tokens, right_sequences, sequences = 0.0, 0, 0, 0, 0
        for batch in fixed_batches(self.dev_data, batch_tokens=self.config.batch_tokens):
            logits = self.averaged(batch.source, batch.target_in)
            real = batch.target_out != PAD
            correct = logits.argmax(dim=-1) == batch.target_out
            total_loss += label_smoothed_loss(logits, batch.target_out).item() * batch.tokens
            right += int((correct & real).sum())
            tokens += batch.tokens
            right_sequences += int((correct | ~real).all(dim=-1).sum())
            sequences += real.shape[0]
        return Evaluated(
            step=self.step,
            loss=total_loss / tokens,
            accuracy=right / tokens,
            sequence_accuracy=right_sequences / sequences,
        )

    @torch.no_grad()
    def _record_probes(self) -> ProbesRecorded:
        self.averaged.eval()
        recorded = []
        for probe in self._probes:
            trace = Trace(keep="*.weights")
            self.averaged(probe.source[None], probe.target[None], trace)
            recorded.append({name: tensor[0] for name, tensor in trace.tensors.items()})
        return ProbesRecorded(step=self.step, weights=tuple(recorded))

    def state(self) -> TrainingState:
        """A copy of all that is needed to go on from here."""
        vectors = self._weights.vectors
        parts = {"model": vectors}
        if self.averaged is not self.model:
            parts["averaged"] = self._average.vectors
        if self.step > 0:
            parts |= {key: tuple(self._optimizer.state[vector][key] for vector in vectors) for key in MOMENTS}
        tensors = {"random_state": self._random_state.clone()}
        for part, laid_out in parts.items():
            for name, tensor in self._weights.by_name(laid_out).items():
                tensors[f"{part}.{name}"] = tensor.detach().clone()
        numbers = {"step": self.step, "epoch": self._epoch, "batch_in_epoch": self._batch_in_epoch}
        return TrainingState(tensors=tensors, numbers=numbers)

    @torch.no_grad()
    def restore(self, state: TrainingState) -> None:
        """Go back to a state of the same training.

        Raises:
            ValueError: If the state belongs to another model or configuration.
        """
        vectors = self._weights.vectors
        try:
            self._weights.fill(vectors, state.tensors, "model.")
            if self.averaged is not self.model:
                self._average.fill(self._average.vectors, state.tensors, "averaged.")
            moments: dict[Any, dict[str, Tensor]] = {}
            if state.numbers["step"] > 0:
                moments = {
                    vector: {"step": torch.tensor(float(state.numbers["step"]))}
                    | {key: torch.zeros_like(vector) for key in MOMENTS}
                    for vector in vectors
                }
                for key in MOMENTS:
                    self._weights.fill([moments[vector][key] for vector in vectors], state.tensors, f"{key}.")
            self._random_state = state.tensors["random_state"].clone()
            self.step = state.numbers["step"]
            self._epoch = state.numbers["epoch"]
            self._batch_in_epoch = state.numbers["batch_in_epoch"]
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"The training state does not belong to this model: {error}.") from error
        self._optimizer.state.clear()
        self._optimizer.state.update(moments)
