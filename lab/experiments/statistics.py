"""Power laws and confidence intervals: what a verdict is made of."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Student's t, the point that 2.5 % lie above, for 1 to 30 degrees of freedom; 1.96 for more is near enough.
STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds and the 95 % confidence interval around it (Student's t)."""

    mean: float
    low: float
    high: float


def fitted_exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent p of the power law y = c x^p that fits best: least squares of log y against log x.

    NaN if a y is not finite and greater than 0.
    """
    values = np.asarray(y, dtype=float)
    if not (np.isfinite(values).all() and (values > 0).all()):
        return math.nan
    return float(np.polyfit(np.log(np.asarray(x, dtype=float)), np.log(values), 1)[0])


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values and its 95 % confidence interval; of one value alone the interval is infinite."""
    count = len(values)
    mean = float(np.mean(values))
    if count < 2:
        return Interval(mean=mean, low=-math.inf, high=math.inf)
    factor = STUDENT[count - 2] if count - 2 < len(STUDENT) else 1.96
    half = factor * float(np.std(values, ddof=1)) / math.sqrt(count)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds; 0 of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
