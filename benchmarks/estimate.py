"""What a training was said to take against what its worker took: processor time, and memory at its peak.

Each preset, and the shape of the en-zh recipe on random sentences, is trained for some steps by a real worker process. Both
times are of one core's work, so that a busy machine disturbs little. It measures the machine first, unless a file with
that is named.

    PYTHONPATH=. python benchmarks/estimate.py [--steps 300] [--calibration FILE] [RECIPE ...]
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from lab.runs.estimate import Calibration, estimate, facts_of_data, load_calibration
from lab.runs.own_data import DEV_FILE, TRAIN_FILE, write_data
from lab.runs.presets import preset_names, read_preset
from lab.runs.store import Store, new_id
from transformer.data.pairs import Pair
from transformer.recipe import Recipe, read_recipe

RECIPES = Path(__file__).parents[1] / "assets" / "recipes"
# Pairs of the shape of Tatoeba's: about 30,000 words in use, 4 to 14 of them a sentence.
WORDS, SENTENCES = 30_000, 12_000


def sentences() -> tuple[list[Pair], list[Pair]]:
    """Random pairs: English in made-up words, Chinese in characters, as often as a real text repeats them."""
    generator = random.Random(1)
    words = ["".join(generator.choices("etaoinshrdlu", k=generator.randint(2, 9))) for _ in range(WORDS)]
    characters = [chr(0x4E00 + index) for index in range(3000)]

    def text(units: list[str], low: int, high: int) -> list[str]:
        count = generator.randint(low, high)
        return [units[int(len(units) ** generator.random()) - 1] for _ in range(count)]

    pairs = [
        Pair(source=" ".join(text(words, 4, 10)), target="".join(text(characters, 5, 15)))
        for _ in range(SENTENCES)
    ]
    return pairs[500:], pairs[:500]


def real(recipe: Recipe, pairs: tuple[list[Pair], list[Pair]] | None) -> tuple[float, int]:
    """Processor seconds and peak bytes of the worker that trains a recipe."""
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name) / "runs.sqlite")
        run_id = new_id()
        if pairs is not None:
            write_data(Path(name) / "runs" / run_id / "data", *pairs)
        store.add(
            run_id=run_id, kind="training", name="", owner="", group="", spec=recipe.to_dict(),
            steps=recipe.training.steps, state="queued",
        )  # fmt: skip
        run = store.claim(1)
        assert run is not None
        worker = subprocess.Popen(
            [sys.executable, "-m", "lab.runs.worker", run_id, str(run.attempt)],
            env={**os.environ, "HEADLIGHT_DATA": name},
            start_new_session=True,  # It makes way, and would make the others of this session make way too.
        )
        _, status, usage = os.wait4(worker.pid, 0)
        ended = store.get(run_id)
        assert status == 0, status
        assert ended is not None
        assert ended.state == "succeeded", ended
        # Linux counts kilobytes, macOS bytes.
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def compare(
    name: str, recipe: Recipe, calibration: Calibration, pairs: tuple[list[Pair], list[Pair]] | None
) -> None:
    """Print one line: estimate, reality, and their ratio."""
    said = estimate(recipe, facts_of_data(recipe, pairs=pairs), calibration)
    assert said.seconds is not None
    seconds, peak = real(recipe, pairs)
    print(
        f"{name}, {recipe.training.steps} steps, {said.parameters:,} parameters: said {said.seconds:.1f} s, took "
        f"{seconds:.1f} s of one core ({said.seconds / seconds:.2f}); said {said.memory.total / 1e6:.0f} MB, took "
        f"{peak / 1e6:.0f} MB ({said.memory.total / peak:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("recipes", nargs="*", default=[*preset_names(), "en-zh"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = options.calibration or Path(name) / "calibration.json"
        if not path.exists():
            subprocess.run([sys.executable, "-m", "lab.runs.calibrate", str(path)], check=True)
        calibration = load_calibration(path)
    assert calibration is not None, "measured on another machine, or with another version of torch"
    for recipe_name in options.recipes:
        if recipe_name in preset_names():
            recipe, pairs = read_preset(recipe_name), None
        else:
            recipe, pairs = read_recipe(RECIPES / f"{recipe_name}.toml"), None
        if not recipe.data.task:
            pairs = sentences()
            recipe = replace(recipe, data=replace(recipe.data, train=TRAIN_FILE, dev=DEV_FILE, swap=False))
        steps = min(options.steps, recipe.training.steps)
        training = replace(
            recipe.training, steps=steps, evaluate_every=min(recipe.training.evaluate_every, steps)
        )
        compare(recipe_name, replace(recipe, training=training), calibration, pairs)


if __name__ == "__main__":
    main()
