"""Training steps a second and peak memory of deep models of width 32 against `torch.nn.Transformer`, one thread.

Half of the layers are the encoder's. Both sides take turns in one process, on the processor's clock, which stands still
while others compute; for the memory (on Linux) each has a process of its own.

PYTHONPATH=. python benchmarks/depth.py
"""

import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from peer import median_seconds, our_step, random_batch, their_step

from transformer.config import ModelConfig

SIDES = {"Headlight": our_step, "torch.nn.Transformer": their_step}
DEPTHS = (6, 50, 200)
SENTENCES, LENGTH = 64, 10


def shape(layers: int) -> ModelConfig:
    return ModelConfig(
        source_size=14, target_size=14, d_model=32, num_heads=1, d_ff=64, dropout=0.0, norm="pre", max_length=64,
        encoder_layers=layers // 2, decoder_layers=layers // 2,
    )  # fmt: skip


def peak_megabytes(side: str, layers: int) -> int:
    """Peak memory of a process that takes three steps."""
    arguments = [sys.executable, __file__, side, str(layers)]
    return int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(1)
    batch = random_batch(SENTENCES, LENGTH, size=14)
    if len(sys.argv) == 3:
        step = SIDES[sys.argv[1]](shape(int(sys.argv[2])), *batch)
        for _ in range(3):
            step()
        # Not ru_maxrss: in a new process that begins with what its parent holds.
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) // 1024)
        return
    print(f"batches of {SENTENCES} x {LENGTH} tokens, d_model 32, pre-norm; without layers a process takes")
    print(f"{peak_megabytes('Headlight', 0)} MB")
    for layers in DEPTHS:
        steps = [side(shape(layers), *batch) for side in SIDES.values()]
        ours, theirs = median_seconds(*steps, rounds=15, clock=time.process_time)
        memory = [peak_megabytes(side, layers) for side in SIDES]
        print(
            f"{layers} layers: Headlight {1 / ours:.2f} steps/s, {memory[0]} MB; torch.nn.Transformer "
            f"{1 / theirs:.2f} steps/s, {memory[1]} MB; {theirs / ours:.2f} times as fast"
        )


if __name__ == "__main__":
    main()
