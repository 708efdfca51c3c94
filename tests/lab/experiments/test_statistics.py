"""Power laws and intervals against closed forms and a brute-force integral."""

import math

import numpy as np
import pytest

from lab.experiments.statistics import STUDENT, fitted_exponent, mean_interval, spread


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 1.7])
def test_the_exponent_of_a_power_law_is_found(exponent):
    x = [2, 4, 8, 16, 32, 64]
    assert fitted_exponent(x, [3.0 * each**exponent for each in x]) == pytest.approx(exponent, abs=1e-12)


def test_the_exponent_is_the_least_squares_slope():
    x, y = [1.0, math.e, math.e**2], [1.0, math.e**2, math.e]
    # log x = 0, 1, 2 and log y = 0, 2, 1: covariance 1/3 over variance 2/3.
    assert fitted_exponent(x, y) == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_what_has_no_logarithm_has_no_exponent(bad):
    assert math.isnan(fitted_exponent([1, 2, 3], [1.0, bad, 1.0]))


def test_an_interval_by_hand():
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.mean == 2.0
    # Standard deviation 1, three values, t = 4.303.
    assert interval.high - 2.0 == pytest.approx(4.303 / math.sqrt(3))
    assert 2.0 - interval.low == pytest.approx(4.303 / math.sqrt(3))
    assert mean_interval([5.0, 5.0]) == mean_interval([5.0, 5.0, 5.0])
    alone = mean_interval([5.0])
    assert (alone.mean, alone.low, alone.high) == (5.0, -math.inf, math.inf)


def test_the_table_is_student_s():
    for freedom, point in enumerate(STUDENT, 1):
        t = np.linspace(0.0, point, 200_001)
        density = (
            math.gamma((freedom + 1) / 2)
            / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
            * (1 + t**2 / freedom) ** (-(freedom + 1) / 2)
        )
        assert 2 * np.trapezoid(density, t) == pytest.approx(0.95, abs=2e-4), freedom


def test_an_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    draws = generator.normal(3.0, 2.0, size=(4000, 5))
    covered = [interval.low <= 3.0 <= interval.high for interval in map(mean_interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_spread():
    assert spread([2.0]) == 0.0
    assert spread([1.0, 3.0]) == pytest.approx(math.sqrt(2))
