"""What the experiments say of themselves, by name, in both languages; a test holds the English to their docstrings.

A number without words of its own is shown under its name, so that a new experiment can be shown before it has any here.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from lab.experiments.catalogue import find_experiment
from lab.ui.language import _


@dataclass(frozen=True, kw_only=True)
class ExperimentWords:
    """The words of an experiment.

    Attributes:
        claim: What is claimed.
        source: Who claims it.
        rule: How the verdict follows.
        main: What the telling numbers are called, by name; bounds of an interval have no words of their own.
        numbers: What others are called.
    """

    claim: str
    source: str
    rule: str
    main: Mapping[str, str] = field(default_factory=dict)
    numbers: Mapping[str, str] = field(default_factory=dict)


def experiment_words(name: str, numbers: Collection[str] = ()) -> ExperimentWords:
    """The words of an experiment; what is not translated is as the experiment itself says it.

    Args:
        name: The experiment.
        numbers: Names of its numbers, where they depend on what was tried.
    """
    known = {
        "norm-gradients-at-init": gradients_at_init,
        "norm-warm-up": warm_up,
        "norm-final-quality": final_quality,
    }
    if name in known:
        return known[name]()
    if name == "norm-depth":
        return depth(numbers)
    experiment = find_experiment(name)
    return ExperimentWords(claim=experiment.claim, source=experiment.source, rule=experiment.rule)


def gradients_at_init() -> ExperimentWords:
    """norm-gradients-at-init."""
    return ExperimentWords(
        claim=_(
            "At initialisation the gradient of the last feed-forward weight does not depend on the number of layers L "
            "under post-norm, and falls like 1/sqrt(L) under pre-norm."
        ),
        source=_("Xiong et al. 2020, On Layer Normalization in the Transformer Architecture, theorem 1."),
        rule=_(
            "A power of L is fitted to each seed's gradients in the setting of the theory (least squares in "
            "logarithms); the 95 % confidence interval of its exponent over the seeds (Student's t) is compared with the "
            "law, 0 for post-norm and -1/2 for pre-norm. The claim holds if both intervals lie within 0.15 of the law, "
            "does not hold if one of them lies wholly outside, and is not decided otherwise. The full encoder and "
            "decoder have no part in the verdict."
        ),
        main={
            "post_exponent": _("post-norm: exponent of L (theory: 0)"),
            "pre_exponent": _("pre-norm: exponent of L (theory: −1/2)"),
            "deepnorm_exponent": _("DeepNorm: exponent of L"),
        },
        numbers={
            "full_post_exponent": _("full model, post-norm: exponent of L"),
            "full_pre_exponent": _("full model, pre-norm: exponent of L"),
            "full_deepnorm_exponent": _("full model, DeepNorm: exponent of L"),
        },
    )


def warm_up() -> ExperimentWords:
    """norm-warm-up."""
    return ExperimentWords(
        claim=_("Post-norm needs warm-up to learn at a learning rate at which pre-norm learns without it."),
        source=_("Xiong et al. 2020, section 3.2, and Nguyen and Salazar 2019, section 4."),
        rule=_(
            "A training fails if its loss on held-out pairs in the end is not below that of guessing by how often each "
            "token occurs, or not finite; it has learned if the loss is below half of that. A seed shows the claim at a "
            "learning rate if post-norm without warm-up does not learn there, post-norm with the longest warm-up learns, "
            "and pre-norm without warm-up learns. The claim holds if all seeds show it at one learning rate of the grid, "
            "does not hold if at no learning rate more than half of them do, and is not decided otherwise."
        ),
        main={
            "seeds_as_claimed": _("Seeds that show the claim"),
            "learning_rate": _("at the learning rate"),
            "guessing_loss": _("Loss of guessing by frequency"),
            "post_without_warm_up_loss": _("post-norm without warm-up: loss"),
            "post_with_warm_up_loss": _("post-norm with warm-up: loss"),
            "pre_without_warm_up_loss": _("pre-norm without warm-up: loss"),
        },
        numbers={
            "warm_up": _("Longest warm-up, steps"),
            "pre_with_warm_up_loss": _("pre-norm with warm-up: loss"),
            "post_without_warm_up_failed": _("post-norm without warm-up: seeds that failed"),
            "post_without_warm_up_learned": _("post-norm without warm-up: seeds that learned"),
            "post_with_warm_up_failed": _("post-norm with warm-up: seeds that failed"),
            "post_with_warm_up_learned": _("post-norm with warm-up: seeds that learned"),
            "pre_without_warm_up_failed": _("pre-norm without warm-up: seeds that failed"),
            "pre_without_warm_up_learned": _("pre-norm without warm-up: seeds that learned"),
            "pre_with_warm_up_failed": _("pre-norm with warm-up: seeds that failed"),
            "pre_with_warm_up_learned": _("pre-norm with warm-up: seeds that learned"),
        },
    )


def depth(numbers: Collection[str]) -> ExperimentWords:
    """norm-depth, whose numbers are named after variants and depths."""
    variants = {
        "post": _("post-norm"),
        "pre": _("pre-norm"),
        "deepnorm": "DeepNorm",
        "no_norm": _("without Norm"),
        "no_residual": _("without Add"),
    }
    kinds = {
        "learned": _("{variant}, {layers} layers: seeds that learned"),
        "loss": _("{variant}, {layers} layers: loss in the end"),
        "movement": _("{variant}, {layers} layers: movement by a layer"),
        "diverged_trainings": _("{variant}, {layers} layers: seeds that diverged"),
    }
    named: dict[str, str] = {}
    learned: dict[int, dict[str, str]] = {}
    for number in numbers:
        found = re.fullmatch(r"(\w+?)_(\d+)_(\w+)", number)
        if found is None or found[1] not in variants or found[3] not in kinds:
            continue
        named[number] = kinds[found[3]].format(variant=variants[found[1]], layers=found[2])
        if found[3] == "learned" and found[1] in ("post", "pre", "deepnorm"):
            learned.setdefault(int(found[2]), {})[number] = named[number]
    # What the claim is about: the deepest models, and the shallowest post-norm.
    main: dict[str, str] = {}
    if learned:
        shallow, deep = min(learned), max(learned)
        main |= {number: text for number, text in learned[shallow].items() if number.startswith("post_")}
        main |= learned[deep]
    return ExperimentWords(
        claim=_(
            "With warm-up, a shallow post-norm model learns and a deep one does not; pre-norm and DeepNorm learn at both "
            "depths."
        ),
        source=_("Xiong et al. 2020 and Wang et al. 2022, DeepNet, figures 1 and 5."),
        rule=_(
            "A training has learned if its loss on held-out pairs in the end is below half the loss of guessing by how "
            "often each token occurs. The claim holds if pre-norm and DeepNorm have learned at every depth in all seeds, "
            "and post-norm at the smallest depth in all seeds and at the greatest in none. It does not hold if at the "
            "greatest depth post-norm has learned in all seeds, or pre-norm or DeepNorm in none. Otherwise, or if one of "
            "the three was not trained, or at one depth only, it is not decided."
        ),
        main=main,
        numbers={"guessing_loss": _("Loss of guessing by frequency"), **named},
    )


def final_quality() -> ExperimentWords:
    """norm-final-quality."""
    return ExperimentWords(
        claim=_("Post-norm, once it has converged, is better than pre-norm."),
        source=_(
            "Wang et al. 2022, DeepNet, section 1, citing Nguyen and Salazar 2019 and Xiong et al. 2020."
        ),
        rule=_(
            "Each seed gives one difference, the BLEU of post-norm minus that of pre-norm, both with the same initial "
            "seed, the same data in the same order, the same steps and the same warm-up. The claim holds if the 95 % "
            "confidence interval of the mean difference (Student's t over the seeds) lies above 0, does not hold if it "
            "lies below 0, and is not decided if 0 is inside. A training that diverges translates nothing: its BLEU is 0."
        ),
        main={
            "bleu_difference": _("BLEU of post-norm minus pre-norm, at the end"),
            "bleu_difference_halfway": _("The same after half of the steps"),
            "post_bleu": _("post-norm: BLEU at the end"),
            "pre_bleu": _("pre-norm: BLEU at the end"),
        },
        numbers={
            "dev_loss_difference": _("Dev loss of post-norm minus pre-norm"),
            "seeds_with_post_ahead": _("Seeds in which post-norm ends ahead"),
            "steps": _("Steps of each training"),
        },
    )


def verdict_text(verdict: str) -> str:
    """A verdict as a sentence."""
    return {
        "holds": _("The claim holds"),
        "does not hold": _("The claim does not hold"),
        "not decided": _("It is not decided"),
    }[verdict]
