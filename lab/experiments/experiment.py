"""What an experiment is: a generator of events, with options, and a docstring that says what it is about.

The docstring of the generator states the claim, its source and the rule of the verdict, each in a paragraph of its own
that begins with ``Claim:``, ``Source:`` and ``Verdict:``. They are read from there, so that they stand in one place.
"""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from lab.experiments.events import Concluded, Event
from transformer.config import build

Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """Something that an experiment measures, for whoever draws it.

    Attributes:
        name: What `Measured.quantity` says.
        x: What `Measured.x` is.
        y: What `Measured.y` is.
        log_x: Whether x is best drawn on a logarithmic axis.
        log_y: Whether y is best drawn on a logarithmic axis.
    """

    name: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, kw_only=True)
class Experiment(Generic[Options]):
    """A claim and what puts it to the test.

    Attributes:
        name: What the command line and the pages call it.
        options: A frozen dataclass. Its defaults take at most a minute on one core; it checks itself when it is made.
        run: Does the work, and yields what happens at least every second. Closed early, it stops.
        quantities: What it measures.
        claim: The claim, from the docstring of `run`.
        source: Who claims it, from there.
        rule: How the verdict follows from what was measured, from there.
    """

    name: str
    options: type[Options]
    run: Callable[[Options], Iterator[Event]]
    quantities: tuple[Quantity, ...]

    @property
    def claim(self) -> str:  # noqa: D102
        return self._paragraph("Claim")

    @property
    def source(self) -> str:  # noqa: D102
        return self._paragraph("Source")

    @property
    def rule(self) -> str:  # noqa: D102
        return self._paragraph("Verdict")

    def _paragraph(self, heading: str) -> str:
        for paragraph in (inspect.getdoc(self.run) or "").split("\n\n"):
            if paragraph.startswith(f"{heading}: "):
                return " ".join(paragraph.split()).removeprefix(f"{heading}: ")
        raise ValueError(
            f"The docstring of the experiment {self.name} has no paragraph that begins with {heading}:."
        )

    def make_options(self, values: Mapping[str, Any]) -> Options:
        """Options from plain JSON or TOML values; what is not named stays at its default.

        Raises:
            ValueError: If an option is unknown or has a value that is not allowed.
        """
        made: Options = build(
            self.options,
            {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()},
            self.name,
        )
        return made


def options_record(options: Any) -> dict[str, Any]:
    """Options as plain JSON values."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()
    }


def report(experiment: Experiment[Any], concluded: Concluded, seconds: float) -> dict[str, Any]:
    """What is told in the end, as a JSON object.

    A figure that is not finite becomes null, and ``NAME_diverged``, true, stands beside it.

    Args:
        experiment: What ran.
        concluded: Its last event.
        seconds: How long it worked.
    """
    numbers: dict[str, float | int | bool | None] = {}
    for name, value in concluded.numbers.items():
        finite = math.isfinite(value)
        numbers[name] = value if finite else None
        if not finite:
            numbers[f"{name}_diverged"] = True
    return {
        "name": experiment.name,
        "claim": experiment.claim,
        "source": experiment.source,
        "verdict": concluded.verdict,
        "numbers": numbers,
        "seeds": list(concluded.seeds),
        "seconds": round(seconds, 2),
    }


def require_integers(name: str, values: Any, *, low: int, high: int) -> None:
    """Raise ValueError unless `values` is a tuple of rising integers in [low, high]."""
    fine = rising(values) and all(isinstance(value, int) and low <= value <= high for value in values)
    if not fine:
        raise ValueError(
            f"{name} is {shown(values)}; it must be a list of rising whole numbers from {low} to {high}."
        )


def require_numbers(name: str, values: Any, *, low: float, high: float) -> None:
    """Raise ValueError unless `values` is a tuple of rising numbers in [low, high]."""
    if not (rising(values) and all(low <= value <= high for value in values)):
        raise ValueError(
            f"{name} is {shown(values)}; it must be a list of rising numbers from {low:g} to {high:g}."
        )


def require_choices(name: str, values: Any, allowed: tuple[str, ...]) -> None:
    """Raise ValueError unless `values` is a tuple of different strings out of `allowed`."""
    fine = isinstance(values, tuple) and values and all(value in allowed for value in values)
    if not fine or len(set(values)) != len(values):
        raise ValueError(f"{name} is {shown(values)}; it must be a list of some of {', '.join(allowed)}.")


def rising(values: Any) -> bool:
    """Whether this is a tuple of one or more numbers, each greater than the one before."""
    if not isinstance(values, tuple) or not values:
        return False
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return False
    return all(before < after for before, after in itertools.pairwise(values))


def shown(values: Any) -> str:
    """A value as a person wrote it."""
    return repr(list(values) if isinstance(values, tuple) else values)


def seeds_of(count: int) -> tuple[int, ...]:
    """The first `count` seeds."""
    return tuple(range(1, count + 1))
