"""Which one ends better? Post-norm and pre-norm to the end of a training, warm-up given."""

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lab.experiments.events import Concluded, Event, Label, Measured, Verdict
from lab.experiments.experiment import Experiment, Quantity, seeds_of
from lab.experiments.statistics import Interval, mean_interval, spread
from lab.experiments.trainings import TRAINING_QUANTITIES, Work, train
from transformer.checkpoint import Checkpoint
from transformer.config import require_integer, require_number
from transformer.data.pairs import group_references
from transformer.recipe import Prepared, Recipe, prepare, read_recipe
from transformer.translate import score, translate

RECIPES = Path(__file__).parents[2] / "assets" / "recipes"
NORMS = ("post", "pre")
# Evaluations of the development set in a training; after the fifth and the last one the model translates it too.
EVALUATIONS = 10
# So few sentences take less than a second to translate.
SENTENCES = 32


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to compare.

    Attributes:
        data: Folder that holds ``tatoeba/cmn-eng.train.tsv.gz`` and the ``dev`` beside it; the recipe is then
            ``norm-quality.toml``. Empty: the toy task of ``norm-quality-toy.toml``, which needs no files.
        seeds: How many trainings of each norm.
        steps: Steps of each training; 0 for as many as the recipe says.
        learning_rate: Highest learning rate; 0 for the recipe's.
    """

    data: str = ""
    seeds: int = 4
    steps: int = 0
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.data, str):
            raise ValueError(
                f"data is {self.data!r}; it must be the name of a folder, or empty for the toy task."
            )
        require_integer("seeds", self.seeds, low=2, high=100)
        require_integer("steps", self.steps, low=0, high=10**6)
        require_number("learning_rate", self.learning_rate, low=0.0, below=1.0)
        if 0 < self.steps < EVALUATIONS:
            raise ValueError(f"steps is {self.steps}; it must be 0, or at least {EVALUATIONS}.")


def run(options: Options) -> Iterator[Event]:
    """Train post-norm and pre-norm alike, and compare how well they translate in the end.

    Claim: Post-norm, once it has converged, is better than pre-norm.

    Source: Wang et al. 2022, DeepNet, section 1, citing Nguyen and Salazar 2019 and Xiong et al. 2020.

    Verdict: Each seed gives one difference, the BLEU of post-norm minus that of pre-norm, both with the same initial
    seed, the same data in the same order, the same steps and the same warm-up. The claim holds if the 95 % confidence
    interval of the mean difference (Student's t over the seeds) lies above 0, does not hold if it lies below 0, and is
    not decided if 0 is inside. A training that diverges translates nothing: its BLEU is 0.

    The verdict is about trainings of this length. Whether they have converged shows in the curves; half of the steps
    and the end are both measured, to see where the difference is going.
    """
    name = "norm-quality.toml" if options.data else "norm-quality-toy.toml"
    folder = Path(options.data) if options.data else None
    recipe = read_recipe(RECIPES / name)
    if options.learning_rate:
        recipe = replace(recipe, training=replace(recipe.training, peak=options.learning_rate))
    steps = options.steps or recipe.training.steps
    seeds = seeds_of(options.seeds)
    work = Work(steps * len(seeds) * len(NORMS))
    yield work.did(0)
    halfway = {norm: [0.0] * len(seeds) for norm in NORMS}
    final = {norm: [0.0] * len(seeds) for norm in NORMS}
    losses = {norm: [math.nan] * len(seeds) for norm in NORMS}
    for index, seed in enumerate(seeds):
        for norm in NORMS:
            prepared = prepare(arm(recipe, norm, seed, steps), folder)
            yield work.did(0)
            bleu, loss = yield from compare_arm(prepared, norm, seed, work)
            halfway[norm][index], final[norm][index] = bleu
            losses[norm][index] = loss
    difference = paired(final)
    half_difference = paired(halfway)
    loss_difference = mean_interval([a - b for a, b in zip(losses["post"], losses["pre"], strict=True)])
    yield Concluded(
        verdict=verdict_of(difference),
        numbers={
            **{f"{norm}_bleu": sum(final[norm]) / len(seeds) for norm in NORMS},
            **{f"{norm}_bleu_spread": spread(final[norm]) for norm in NORMS},
            **{f"{norm}_bleu_halfway": sum(halfway[norm]) / len(seeds) for norm in NORMS},
            **{f"{norm}_dev_loss": sum(losses[norm]) / len(seeds) for norm in NORMS},
            "bleu_difference": difference.mean,
            "bleu_difference_low": difference.low,
            "bleu_difference_high": difference.high,
            "bleu_difference_halfway": half_difference.mean,
            "bleu_difference_halfway_low": half_difference.low,
            "bleu_difference_halfway_high": half_difference.high,
            "dev_loss_difference": loss_difference.mean,
            "dev_loss_difference_low": loss_difference.low,
            "dev_loss_difference_high": loss_difference.high,
            **{f"{norm}_diverged": sum(map(math.isnan, losses[norm])) for norm in NORMS},
            "seeds_with_post_ahead": sum(a > b for a, b in zip(final["post"], final["pre"], strict=True)),
            "steps": steps,
        },
        seeds=seeds,
    )


def arm(recipe: Recipe, norm: str, seed: int, steps: int) -> Recipe:
    """The recipe with one norm and one seed."""
    return replace(
        recipe,
        model={**recipe.model, "norm": norm},
        training=replace(
            recipe.training, seed=seed, steps=steps, evaluate_every=max(1, steps // EVALUATIONS)
        ),
    )


def compare_arm(
    prepared: Prepared, norm: str, seed: int, work: Work
) -> Generator[Event, None, tuple[tuple[float, float], float]]:
    """Train and translate halfway and at the end; returns both BLEUs and the last loss."""
    labels: dict[str, Label] = {"norm": norm, "seed": seed}
    every = prepared.recipe.training.evaluate_every
    steps = prepared.recipe.training.steps
    bleu = {5 * every: 0.0, steps: 0.0}
    training = train(prepared.trainer, labels, work, every=max(1, every // 6))
    while True:
        try:
            event = next(training)
        except StopIteration as stopped:
            return (bleu[5 * every], bleu[steps]), stopped.value.loss
        yield event
        if isinstance(event, Measured) and event.quantity == "sequence_accuracy" and event.x in bleu:
            bleu[int(event.x)] = yield from measure_bleu(prepared, work)
            yield Measured(quantity="bleu", labels=labels, x=event.x, y=bleu[int(event.x)])


def measure_bleu(prepared: Prepared, work: Work) -> Generator[Event, None, float]:
    """Translate the development pairs greedily with the weights as they are now; returns BLEU."""
    checkpoint = Checkpoint(
        model=prepared.trainer.averaged.eval(),
        source_vocabulary=prepared.source_vocabulary,
        target_vocabulary=prepared.target_vocabulary,
        config={},
        hash="",
    )
    references = group_references(prepared.dev)
    sources = list(references)
    translations: list[str] = []
    began = time.perf_counter()
    for start in range(0, len(sources), SENTENCES):
        translations += translate(checkpoint, sources[start : start + SENTENCES], beam=1)
        yield work.did(0)
    return score(translations, references, seconds=time.perf_counter() - began).bleu


def paired(bleu: dict[str, list[float]]) -> Interval:
    """Mean over the seeds of post-norm's BLEU minus pre-norm's."""
    return mean_interval([a - b for a, b in zip(bleu["post"], bleu["pre"], strict=True)])


def verdict_of(difference: Interval) -> Verdict:
    """What the rule says about the differences in BLEU."""
    if difference.low > 0:
        return "holds"
    return "does not hold" if difference.high < 0 else "not decided"


EXPERIMENT = Experiment(
    name="norm-final-quality",
    options=Options,
    run=run,
    quantities=(
        *TRAINING_QUANTITIES,
        Quantity(name="bleu", x="step", y="BLEU, greedy, on held-out pairs"),
    ),
)
