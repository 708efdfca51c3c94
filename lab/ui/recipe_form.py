"""The form of a training: every setting of a recipe described once, read from what a person typed, and written back.

A setting is kept as the text that stands in its field and in the address, so that nothing typed is lost by being wrong.
`read_form` turns texts into a `Recipe` or says at each field what is wrong with it, in the person's language. The
ranges repeat those of `ModelConfig`, `TrainingConfig`, `VocabularyConfig` and `DataConfig`; a test holds them equal.
"""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lab.ui.language import _
from transformer.config import MAX_LAYERS, MAX_WIDTH, ModelConfig
from transformer.data.tasks import TASKS
from transformer.optim import learning_rate
from transformer.recipe import DataConfig, ProbeConfig, Recipe, VocabularyConfig
from transformer.train import TrainingConfig

Texts = Mapping[str, str]

CONFIGS: dict[str, type] = {
    "data": DataConfig,
    "source_vocabulary": VocabularyConfig,
    "target_vocabulary": VocabularyConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
}
# What no field asks for: the sizes follow from the vocabularies, and the files from the person's own data.
DERIVED = ("model.source_size", "model.target_size", "data.train", "data.dev")
PROBES = "probes"
MOST_PROBES = 12
# A page reads the data in order to say what a training will take.
MOST_EXAMPLES, MOST_HELD_OUT = 1_000_000, 20_000
ARROW = "→"
NO_VALUE = "—"
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
# What stands for an error that belongs to no single field.
WHOLE = ""


class FieldError(ValueError):
    """What is wrong with the text of a field, in the person's language."""


@dataclass(frozen=True, kw_only=True)
class Field:
    """A setting.

    Attributes:
        key: Its section and name, as in the address: ``training.steps``.
        label: What it is called.
        help: What it is.
        paper: The value of the paper's base model, or None where the paper has none.
        remark: What is said in place of that value, where it would mislead.
        main: Whether it stands in the first view.
    """

    key: str
    label: str
    help: str
    paper: Any = None
    remark: str = ""
    main: bool = False

    @property
    def section(self) -> str:
        """Its section of the recipe."""
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        """Its name in that section."""
        return self.key.partition(".")[2]

    @property
    def allowed(self) -> str:
        """The values it may have, in words; empty where the field itself shows them."""
        return ""

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            FieldError: If it is none that is allowed.
        """
        raise NotImplementedError

    def write(self, value: Any) -> str:
        """The text that stands for a value."""
        return str(value)

    def shown(self, value: Any) -> str:
        """A value as people read it."""
        return self.write(value)


@dataclass(frozen=True, kw_only=True)
class Whole(Field):
    """A whole number from `low` to `high`."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        """The range in words."""
        return _("{low} to {high}").format(low=f"{self.low:,}", high=large(self.high))

    def read(self, text: str) -> int:
        """The number; digits may be grouped, and 1e5 is 100,000."""
        plain = unicodedata.normalize("NFKC", text).strip()
        if re.fullmatch(r"\d{1,3}(,\d{3})+", plain):
            plain = plain.replace(",", "")
        value = int(plain) if re.fullmatch(r"[+-]?\d{1,30}", plain) else round_number(plain)
        if value is None or not self.low <= value <= self.high:
            raise FieldError(
                _("“{text}” is no whole number from {low} to {high}.").format(
                    text=excerpt(text), low=f"{self.low:,}", high=large(self.high)
                )
            )
        return value

    def shown(self, value: Any) -> str:
        """The number with its digits grouped."""
        return f"{value:,}"


@dataclass(frozen=True, kw_only=True)
class Number(Field):
    """A number of at least `low` and less than `below`."""

    low: float
    below: float

    @property
    def allowed(self) -> str:
        """The range in words."""
        if math.isinf(self.below):
            return _("{low} or more").format(low=number_text(self.low))
        return _("{low} to below {high}").format(low=number_text(self.low), high=large(self.below))

    def read(self, text: str) -> float:
        """The number, such as 0.003 or 3e-3."""
        value = plain_number(unicodedata.normalize("NFKC", text).strip())
        if value is None or not self.low <= value < self.below:
            raise FieldError(
                _("“{text}” is no number in the range {range}.").format(
                    text=excerpt(text), range=self.allowed
                )
            )
        return value

    def write(self, value: Any) -> str:
        """The shortest text that stands for exactly this number."""
        return number_text(value)

    def shown(self, value: Any) -> str:
        """The number with its digits grouped, if it has many."""
        return f"{value:,.0f}" if float(value).is_integer() and 1000 <= value < 10**7 else number_text(value)


@dataclass(frozen=True, kw_only=True)
class Choice(Field):
    """One of a few values, with what each is called."""

    names: Mapping[str, str] = field(default_factory=dict)

    def read(self, text: str) -> str:
        """The value."""
        if text not in self.names:
            raise FieldError(
                _("“{text}” is none of: {allowed}.").format(
                    text=excerpt(text), allowed=" · ".join(self.names)
                )
            )
        return text

    def shown(self, value: Any) -> str:
        """What the value is called."""
        return self.names.get(value, value)


@dataclass(frozen=True, kw_only=True)
class Switch(Field):
    """On or off; ``true`` and ``false`` in the address."""

    def read(self, text: str) -> bool:
        """Whether it is on."""
        if text not in ("true", "false"):
            raise FieldError(
                _("“{text}” is none of: {allowed}.").format(text=excerpt(text), allowed="true · false")
            )
        return text == "true"

    def write(self, value: Any) -> str:
        """``true`` or ``false``."""
        return "true" if value else "false"

    def shown(self, value: Any) -> str:
        """On or off."""
        return _("on") if value else _("off")


@dataclass(frozen=True, kw_only=True)
class Pairs(Field):
    """A few sentence pairs, one a line, an arrow or a tab between source and target."""

    def read(self, text: str) -> tuple[ProbeConfig, ...]:
        """The pairs."""
        found = []
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
        for number, line in lines:
            parts = [part.strip() for part in re.split(rf"\t|{ARROW}|->|=>", line)]
            if len(parts) != 2 or not all(parts):
                raise FieldError(
                    _("Line {line}: write a source, an arrow {arrow} and a target, not “{text}”.").format(
                        line=number, arrow=ARROW, text=excerpt(line)
                    )
                )
            found.append(ProbeConfig(source=parts[0], target=parts[1]))
        if len(found) > MOST_PROBES:
            raise FieldError(
                _("These are {count} probe sentences; at most {limit} are recorded.").format(
                    count=len(found), limit=MOST_PROBES
                )
            )
        return tuple(found)

    def write(self, value: Any) -> str:
        """A line for each pair."""
        return "\n".join(f"{probe.source} {ARROW} {probe.target}" for probe in value)


def plain_number(text: str) -> float | None:
    """The number that a text writes, or None."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", text):
        return None
    return float(text)


def round_number(text: str) -> int | None:
    """The whole number that a text such as 1e5 writes, or None."""
    value = plain_number(text)
    return int(value) if value is not None and math.isfinite(value) and value.is_integer() else None


def number_text(value: float) -> str:
    """The shortest text that stands for exactly this number."""
    return re.sub(r"e([+-])0+", r"e\1", repr(float(value))).replace("e+", "e").removesuffix(".0")


def large(value: float) -> str:
    """A bound: its digits in groups, or a power where those would be many."""
    if value == 2**63 - 1:
        return "2⁶³ − 1"
    power = round(math.log10(value)) if value > 10**6 else 0
    if power and value == 10**power:
        return f"10{str(power).translate(SUPERSCRIPTS)}"
    return f"{value:,.10g}"


def excerpt(text: str, length: int = 40) -> str:
    """What was typed, or its beginning."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1]}…"


def form_fields() -> dict[str, Field]:
    """Every setting by its key, in the person's language and in the order of the form."""
    described = [*model_fields(), *training_fields()]
    for section in ("source_vocabulary", "target_vocabulary"):
        described += vocabulary_fields(section)
    described += data_fields()
    return {each.key: each for each in described}


def model_fields() -> list[Field]:
    """The shape and the variant of the model."""
    return [
        Whole(
            key="model.encoder_layers", label=_("Encoder layers"), paper=6, low=0, high=MAX_LAYERS, main=True,
            help=_("How often the source is read over: each layer attends, then transforms every position."),
        ),
        Whole(
            key="model.decoder_layers", label=_("Decoder layers"), paper=6, low=0, high=MAX_LAYERS, main=True,
            help=_("Layers that write the target: masked self-attention, cross-attention, feed-forward."),
        ),
        Whole(
            key="model.d_model", label=_("Width $d_{model}$"), paper=512, low=1, high=MAX_WIDTH, main=True,
            help=_("Numbers that represent a token between the layers; a multiple of the number of heads."),
        ),
        Whole(
            key="model.num_heads", label=_("Heads $h$"), paper=8, low=1, high=MAX_WIDTH, main=True,
            help=_("Heads of every attention; each is $d_{model}/h$ wide, so more heads cost nothing more."),
        ),
        Choice(
            key="model.norm", label=_("Normalisation"), paper="post", main=True,
            names={"post": _("post-norm"), "pre": _("pre-norm"), "deepnorm": "DeepNorm", "none": _("none")},
            help=_(
                "Where layer normalisation stands: after the sum, LN(x + f(x)), as in the paper; before the "
                "sub-layer, x + f(LN(x)); DeepNorm, LN(αx + f(x)); or nowhere."
            ),
        ),
        Choice(
            key="model.positions", label=_("Positions"), paper="sinusoidal", main=True,
            names={
                "sinusoidal": _("sinusoids"), "learned": _("learned"), "rotary": _("rotary"), "alibi": "ALiBi",
                "none": _("none"),
            },
            help=_("How the model knows the order of the tokens. Without, it reads a set."),
        ),
        Whole(
            key="model.d_ff", label=_("Feed-forward width $d_{ff}$"), paper=2048, low=1, high=MAX_WIDTH,
            help=_("Width of the hidden layer between a layer's two linear maps."),
        ),
        Number(
            key="model.dropout", label=_("Dropout"), paper=0.1, low=0, below=1,
            help=_("Share of the numbers that are dropped at random while training, against learning by heart."),
        ),
        Number(
            key="model.attention_dropout", label=_("Dropout of attention weights"), low=0, below=1,
            help=_("Share of the attention weights that are dropped while training. The paper's text has none."),
        ),
        Choice(
            key="model.attention", label=_("Attention"), paper="dot_product",
            names={"dot_product": _("dot product"), "additive": _("additive")},
            help=_("How a score is made from query and key: their dot product, or a small feed-forward network."),
        ),
        Choice(
            key="model.scale", label=_("Scaling factor"), paper="sqrt",
            names={"sqrt": "1/√dₖ", "linear": "1/dₖ", "none": _("none")},
            help=_("What dot-product scores are multiplied by before the softmax; additive scores are never scaled."),
        ),
        Number(
            key="model.position_base", label=_("Base of the positions"), paper=10000.0, low=1, below=math.inf,
            help=_("Base of the sinusoids' wavelengths and of the rotary angles."),
        ),
        Switch(
            key="model.residual", label=_("Residual connections"), paper=True,
            help=_("Add a sub-layer's input to its output. Without, its output takes the input's place."),
        ),
        Switch(
            key="model.causal", label=_("Causal mask"), paper=True,
            help=_("Hides from the decoder what it has yet to write. Without it, it cheats and learns nothing."),
        ),
        Choice(
            key="model.tied_embeddings", label=_("Shared embeddings"), paper="all",
            names={"none": _("none"), "target": _("target and output"), "all": _("source, target and output")},
            help=_("Which embeddings are one matrix. All three need two vocabularies of the same size."),
        ),
        Whole(
            key="model.max_length", label=_("Longest text the model takes"), low=1, high=MAX_WIDTH,
            help=_("In tokens. Learned positions need a row for each."),
        ),
    ]  # fmt: skip


def training_fields() -> list[Field]:
    """How it is trained."""
    many = 10**8
    return [
        Whole(
            key="training.steps", label=_("Steps"), paper=100_000, low=1, high=many, main=True,
            help=_("How often the weights are changed, each time after one batch."),
        ),
        Number(
            key="training.peak", label=_("Peak learning rate"), paper=1.0, low=0, below=1e6, main=True,
            remark=f"1 {ARROW} {papers_highest_rate():.1g}",
            help=_("Highest learning rate. With the paper's schedule it is a factor, 1 in the paper, and no rate."),
        ),
        Whole(
            key="training.warmup_steps", label=_("Warm-up steps"), paper=4000, low=0, high=many, main=True,
            help=_("Steps over which the learning rate rises from zero; 0 for none."),
        ),
        Whole(
            key="training.seed", label=_("Seed"), low=0, high=2**63 - 1, main=True,
            help=_("Decides the initial weights, the order of the data and dropout. The same seed gives the same run."),
        ),
        Choice(
            key="training.schedule", label=_("Schedule"), paper="noam",
            names={
                "noam": "Noam", "inverse_sqrt": _("inverse square root"), "cosine": _("cosine"),
                "linear": _("linear"), "constant": _("constant"),
            },
            help=_(
                "How the learning rate goes on after the warm-up: Noam, the paper's, and the inverse square root fall with "
                "1/√step, cosine and linear fall to zero at the last step."
            ),
        ),
        Whole(
            key="training.batch_tokens", label=_("Tokens of a batch"), paper=50_000, low=8, high=10**7,
            help=_("Most source and target tokens of a batch, padding counted. The paper has about 25,000 of each."),
        ),
        Number(
            key="training.beta1", label=_("Adam $\\beta_1$"), paper=0.9, low=0, below=1,
            help=_("How slowly Adam's mean of the gradient forgets."),
        ),
        Number(
            key="training.beta2", label=_("Adam $\\beta_2$"), paper=0.98, low=0, below=1,
            help=_("How slowly Adam's mean of the squared gradient forgets."),
        ),
        Number(
            key="training.epsilon", label=_("Adam $\\epsilon$"), paper=1e-9, low=0, below=1,
            help=_("Keeps Adam from dividing by zero."),
        ),
        Number(
            key="training.weight_decay", label=_("Weight decay"), low=0, below=1e3,
            help=_("How strongly matrices are drawn towards zero, apart from the gradient (AdamW)."),
        ),
        Number(
            key="training.label_smoothing", label=_("Label smoothing"), paper=0.1, low=0, below=1,
            help=_("Share of the target's probability that is spread over all tokens: the model is never quite sure."),
        ),
        Number(
            key="training.clip_norm", label=_("Largest gradient norm"), low=0, below=1e9,
            help=_("Greater gradients are scaled down to it; 0 for no clipping."),
        ),
        Number(
            key="training.average_decay", label=_("Average of the weights"), low=0, below=1,
            help=_(
                "Decay of a moving average of the weights, which is then evaluated and kept; 0 keeps the last ones. The "
                "paper averages its last 5 checkpoints to the same end."
            ),
        ),
        Whole(
            key="training.evaluate_every", label=_("Steps between evaluations"), low=1, high=many,
            help=_("How often loss and accuracy on held-out pairs are measured, and the run is saved."),
        ),
        Whole(
            key="training.layers_every", label=_("Steps between looks at the layers"), low=0, high=many,
            help=_("How often gradient, residual stream and change of each layer are measured; 0 for never."),
        ),
        Whole(
            key="training.probe_count", label=_("Pictures for the time machine"), low=0, high=1000,
            help=_("Moments at which the attention of the probe sentences is recorded, close together at first."),
        ),
    ]  # fmt: skip


def vocabulary_fields(section: str) -> list[Field]:
    """How a vocabulary is made."""
    return [
        Choice(
            key=f"{section}.level", label=_("A token is a"), paper="bpe",
            names={"bpe": _("sub-word (BPE)"), "word": _("word"), "character": _("character")},
            help=_("What text is cut into. Every Chinese character is a token of its own in any case."),
        ),
        Whole(
            key=f"{section}.size", label=_("Most tokens"), paper=37_000, low=8, high=10**6,
            help=_("Size of the vocabulary at most; the rarest are left out. The paper has one for both languages."),
        ),
        Switch(
            key=f"{section}.lowercase", label=_("Lower case"),
            help=_("Whether text is lower-cased: fewer tokens, and the case is lost."),
        ),
        Whole(
            key=f"{section}.min_frequency", label=_("Least frequency"), low=1, high=10**6,
            help=_("What is seen less often is left out."),
        ),
    ]  # fmt: skip


def data_fields() -> list[Field]:
    """What it is trained on."""
    return [
        Choice(
            key="data.task", label=_("Task"), names={name: task_title(name) for name in TASKS},
            help=_("The generator that draws the examples."),
        ),
        Whole(
            key="data.task_train", label=_("Examples to learn from"), low=1, high=10**7,
            help=_("How many pairs are drawn for training. The paper has 4.5 million."), paper=4_500_000,
        ),
        Whole(
            key="data.task_dev", label=_("Examples held out"), low=1, high=10**6,
            help=_("Pairs on which the model is evaluated; it never learns from their sources."),
        ),
        Whole(
            key="data.task_seed", label=_("Seed of the examples"), low=0, high=2**63 - 1,
            help=_("Decides which examples are drawn."),
        ),
        Switch(
            key="data.swap", label=_("The other direction"),
            help=_("Read the second column and write the first. Only for data of your own."),
        ),
        Whole(
            key="data.max_length", label=_("Longest pair"), low=1, high=10**5,
            help=_("In tokens; pairs with a longer side are left out."),
        ),
        Pairs(
            key=PROBES, label=_("Probe sentences"),
            help=_("One a line, source → target. Their attention is recorded while the model learns."),
        ),
    ]  # fmt: skip


def task_title(name: str) -> str:
    """What a task is called."""
    titles = {
        "copy": _("Copy"),
        "reverse": _("Reverse"),
        "sort": _("Sort"),
        "addition": _("Addition"),
        "anaphora": _("Pronouns"),
        "cause_effect": _("Cause and effect"),
        "translation": _("Translation"),
    }
    return titles.get(name, name)


def texts_of(recipe: Recipe) -> dict[str, str]:
    """The text of every field of a recipe."""
    values = recipe_values(recipe)
    return {key: each.write(values[key]) for key, each in form_fields().items()}


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """The value of every field of a recipe, defaults included."""
    values: dict[str, Any] = {PROBES: recipe.probes}
    for section, config in CONFIGS.items():
        given = recipe.model if section == "model" else None
        for each in fields(config):
            key = f"{section}.{each.name}"
            if given is None:
                values[key] = getattr(getattr(recipe, section), each.name)
            elif key not in DERIVED:
                values[key] = given.get(each.name, each.default)
    return values


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A form that was read.

    Attributes:
        recipe: What it asks for, or None if something is wrong.
        problems: What is wrong, by field; under `WHOLE` what belongs to no single one.
    """

    recipe: Recipe | None
    problems: Mapping[str, str]


def read_form(texts: Texts, *, train: str = "", dev: str = "") -> Filled:
    """Read every field.

    Args:
        texts: Text of every field.
        train: File of training pairs; empty for a task.
        dev: File of held-out pairs.
    """
    known = form_fields()
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for key, each in known.items():
        if train and key == "data.task":
            continue
        try:
            values[key] = each.read(texts[key])
        except FieldError as error:
            problems[key] = str(error)
    problems |= {key: said for key, said in misfits(values).items() if key not in problems}
    if problems:
        return Filled(recipe=None, problems=problems)
    sections: dict[str, dict[str, Any]] = {section: {} for section in CONFIGS}
    for key, value in values.items():
        if key != PROBES:
            sections[known[key].section][known[key].name] = value
    if train:
        sections["data"] |= {"train": train, "dev": dev}
    probes = [{"source": probe.source, "target": probe.target} for probe in values[PROBES]]
    try:
        recipe = Recipe.from_dict({**sections, PROBES: probes})
    except ValueError as error:
        # Every rule has its own sentence above; should one be missing there, this one is better than none.
        said = _("These settings do not go together: {reason}").format(reason=error)
        return Filled(recipe=None, problems={WHOLE: said})
    return Filled(recipe=recipe, problems={})


def misfits(values: Mapping[str, Any]) -> dict[str, str]:
    """What is wrong between fields that are each right: by the field that is easiest to mend."""
    found: dict[str, str] = {}
    width, heads = values.get("model.d_model"), values.get("model.num_heads")
    if width is not None and heads is not None:
        if width % heads:
            found["model.num_heads"] = _(
                "{width} cannot be shared out evenly among {heads} heads; {suggestions} would do."
            ).format(width=width, heads=heads, suggestions=" · ".join(map(str, divisors_near(width, heads))))
        elif values.get("model.positions") == "rotary" and width // heads % 2:
            found["model.positions"] = _(
                "Rotary positions turn pairs of dimensions, so a head must be evenly wide; {width} / {heads} is {each}."
            ).format(width=width, heads=heads, each=width // heads)
    if values.get("model.norm") == "deepnorm" and values.get("model.residual") is False:
        found["model.norm"] = _("DeepNorm weighs the residual connection, so it needs one: switch it on.")
    longest, limit = values.get("data.max_length"), values.get("model.max_length")
    if longest is not None and limit is not None and longest > limit:
        found["data.max_length"] = _(
            "Pairs of {longest} tokens do not fit a model that takes {limit}; lower this or raise that."
        ).format(longest=longest, limit=limit)
    for key, most in (("data.task_train", MOST_EXAMPLES), ("data.task_dev", MOST_HELD_OUT)):
        if values.get(key, 0) > most:
            found[key] = _("At most {limit:,} examples are drawn here.").format(limit=most)
    if limit is not None:
        for probe in values.get(PROBES, ()):
            # A token has at least one character, and the end of the text is a token too.
            if max(len(probe.source), len(probe.target)) >= limit:
                found[PROBES] = _(
                    "“{text}” may be longer than the {limit} tokens that the model takes; shorten it."
                ).format(text=excerpt(max(probe.source, probe.target, key=len)), limit=limit)
    return found


def divisors_near(width: int, heads: int, count: int = 3) -> list[int]:
    """Numbers of heads that divide a width, the nearest ones."""
    divisors = [each for each in range(1, width + 1) if width % each == 0]
    return sorted(sorted(divisors, key=lambda each: abs(each - heads))[:count])


def changes(texts: Texts, base: Texts) -> dict[str, str]:
    """The texts that stand for another value than the base's."""
    known = form_fields()
    changed = {}
    for key, text in texts.items():
        if text == base[key]:
            continue
        try:
            same = known[key].read(text) == known[key].read(base[key])
        except FieldError:
            same = False
        if not same:
            changed[key] = text
    return changed


def papers_highest_rate() -> float:
    """The highest learning rate of the paper's base model: 0.0007."""
    training, width = TrainingConfig(steps=100_000), ModelConfig.d_model
    return learning_rate(
        training.schedule, training.warmup_steps, peak=training.peak, warmup_steps=training.warmup_steps,
        total_steps=training.steps, d_model=width,
    )  # fmt: skip


def highest_rate(recipe: Recipe) -> float:
    """The highest learning rate that a training reaches, which is not `peak` for the paper's schedule."""
    training = recipe.training
    return max(
        learning_rate(
            training.schedule, step, peak=training.peak, warmup_steps=training.warmup_steps,
            total_steps=training.steps, d_model=recipe.model.get("d_model", ModelConfig.d_model),
        )
        for step in {1, min(max(training.warmup_steps, 1), training.steps), training.steps}
    )  # fmt: skip


def summary(changed: Sequence[str], texts: Texts) -> str:
    """The changes in a few words, such as ``norm=post, seed=3``."""
    return ", ".join(
        f"{key.rpartition('.')[2]}={excerpt(texts[key], 16)}" for key in changed if key != PROBES
    )
