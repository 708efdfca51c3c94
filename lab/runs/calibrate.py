"""Measure how fast this machine trains: a probe of some seconds on one core.

    python -m lab.runs.calibrate FILE

Steps of a handful of small trainings, each with much of another count of `lab.runs.estimate.work`, are timed in turns, and
the cost of each count is what explains the times best without being negative. Processor time is taken, not time on the
clock, so that whatever else the machine does disturbs little.
"""

import datetime
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from lab.runs import training_worker  # noqa: F401  (its imports are a worker's memory)
from lab.runs.estimate import COUNTS, Calibration, machine_name, work
from transformer.checkpoint import TRAINING_STATE, WEIGHTS, save_training_state, save_weights
from transformer.config import ModelConfig
from transformer.data.batches import EncodedPairs
from transformer.files import write_atomically
from transformer.model import Transformer
from transformer.train import Event, Trainer, TrainingConfig
from transformer.vocabulary import SPECIAL_TOKENS

SECONDS = 3.5
LEAST_ROUNDS = 3
MOST_ROUNDS = 12


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A training to time: so many pairs of one length, in one batch, and what is not as in `TINY`."""

    rows: int
    length: int
    model: dict[str, Any] = field(default_factory=dict)


TINY = ModelConfig(
    source_size=30, target_size=30, d_model=16, num_heads=4, d_ff=32, encoder_layers=1, decoder_layers=1,
    dropout=0.0, norm="pre", max_length=128,
)  # fmt: skip
SMALL = {"d_model": 64, "d_ff": 128, "encoder_layers": 2, "decoder_layers": 2}
WIDE = {"d_model": 256, "d_ff": 1024, "num_heads": 8}
# Each has much of another count; the first is the least there is.
PROBES = (
    Probe(rows=4, length=6),
    Probe(rows=4, length=6, model={"encoder_layers": 6, "decoder_layers": 6}),
    Probe(rows=200, length=4),
    Probe(rows=50, length=12, model=SMALL),
    Probe(rows=50, length=12, model={**SMALL, "dropout": 0.1}),
    Probe(rows=25, length=12, model={**SMALL, "attention": "additive"}),
    Probe(rows=4, length=100, model=SMALL),
    Probe(rows=4, length=100, model={**SMALL, "attention_dropout": 0.1}),
    Probe(rows=40, length=12, model={**SMALL, "source_size": 100, "target_size": 8000}),
    Probe(rows=16, length=14, model=WIDE),
    Probe(rows=2, length=8, model={**WIDE, "source_size": 2000, "target_size": 2000}),
    Probe(rows=30, length=14, model={**SMALL, "d_model": 128, "d_ff": 512}),
)


class Timed:
    """A training whose steps and evaluations are timed.

    Args:
        probe: Which.
    """

    def __init__(self, probe: Probe) -> None:
        self.config = replace(TINY, **probe.model)
        self.shape = tuple(np.array([float(size)]) for size in (probe.rows, probe.length, probe.length))
        generator = torch.Generator().manual_seed(1)

        def sequences(size: int, length: int) -> tuple[torch.Tensor, ...]:
            return tuple(
                torch.randint(len(SPECIAL_TOKENS), size, (length,), generator=generator)
                for _ in range(probe.rows)
            )

        pairs = EncodedPairs(
            sources=sequences(self.config.source_size, probe.length),
            targets=sequences(self.config.target_size, probe.length + 1),
        )
        self.trainer = Trainer(
            model=Transformer(self.config),
            train=pairs,
            dev=pairs,
            config=TrainingConfig(
                steps=10**6, batch_tokens=2 * probe.rows * probe.length, evaluate_every=10**6, clip_norm=1.0,
                schedule="constant", peak=1e-3, warmup_steps=0,
            ),
        )  # fmt: skip
        self._events: Iterator[Event] = self.trainer.events()
        self.steps: list[float] = []
        self.evaluations: list[float] = []

    def measure(self) -> None:
        """Time one step and one evaluation."""
        began = time.process_time()
        next(self._events)
        between = time.process_time()
        self.trainer.evaluate()
        self.steps.append(between - began)
        self.evaluations.append(time.process_time() - between)


def calibrate(probes: Sequence[Probe] = PROBES, seconds: float = SECONDS) -> Calibration:
    """Measure this machine.

    Args:
        probes: Trainings to time.
        seconds: About how long to take.
    """
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        # With its first step torch loads half as much again as it did when it was imported.
        Timed(probes[0]).measure()
        start_seconds, base_bytes = time.process_time(), psutil.Process().memory_info().rss
        timed = [Timed(probe) for probe in probes]
        for each in timed:
            each.measure()  # The first time, memory has to be found.
            each.steps.clear()
            each.evaluations.clear()
        rounds = 0
        while rounds < LEAST_ROUNDS or (rounds < MOST_ROUNDS and time.perf_counter() - began < seconds):
            for each in timed:
                each.measure()
            rounds += 1
    amounts = [work(each.config, *each.shape) for each in timed]
    table = np.array([[amount[name][0] for name in COUNTS] for amount in amounts])
    largest = max(timed, key=lambda each: each.trainer.model.num_parameters())
    save_seconds, save_byte_seconds = time_to_save(timed[0].trainer, largest.trainer)
    return Calibration(
        training=costs(table, np.array([np.median(each.steps) for each in timed])),
        evaluation=costs(table, np.array([np.median(each.evaluations) for each in timed])),
        save_seconds=save_seconds,
        save_byte_seconds=save_byte_seconds,
        start_seconds=start_seconds,
        base_bytes=base_bytes,
        machine=machine_name(),
        torch=torch.__version__,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def costs(table: NDArray[np.float64], seconds: NDArray[np.float64]) -> dict[str, float]:
    """The cost of each count that explains best, relative to each time, what was measured.

    Args:
        table: How much of each count each probe has, (probes, counts).
        seconds: What it took, (probes,).
    """
    relative = table / seconds[:, None]
    scale = relative.max(axis=0)
    found = nonnegative_least_squares(relative / scale, np.ones(len(seconds))) / scale
    return dict(zip(COUNTS, map(float, found), strict=True))


def nonnegative_least_squares(
    matrix: NDArray[np.float64], right: NDArray[np.float64], rounds: int = 5000
) -> NDArray[np.float64]:
    """The x >= 0 with the least ||matrix x - right||, found coordinate by coordinate."""
    products, wanted = matrix.T @ matrix, matrix.T @ right
    x = np.zeros(len(wanted))
    for _ in range(rounds):
        for j in range(len(x)):
            x[j] = max(0.0, x[j] + (wanted[j] - products[j] @ x) / products[j, j])
    return x


def time_to_save(small: Trainer, large: Trainer) -> tuple[float, float]:
    """Seconds to save a checkpoint of no size, and seconds a byte takes beside that."""
    measured = []
    with tempfile.TemporaryDirectory() as name:
        for trainer in (small, large):
            folder = Path(name) / str(trainer.model.num_parameters())
            folder.mkdir()
            began = time.perf_counter()
            save_weights(folder, trainer.averaged)
            save_training_state(folder, trainer.state(), "")
            took = time.perf_counter() - began
            measured.append((sum((folder / file).stat().st_size for file in (WEIGHTS, TRAINING_STATE)), took))
    (few, short), (many, long) = measured
    a_byte = max(0.0, (long - short) / (many - few))
    return max(0.0, short - few * a_byte), a_byte


def main() -> None:
    """Measure, and write what was measured into the file that is named."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m lab.runs.calibrate FILE")
    torch.set_num_threads(1)
    write_atomically(Path(sys.argv[1]), calibrate().to_json().encode())


if __name__ == "__main__":
    main()
