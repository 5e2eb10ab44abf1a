"""The error bar: its interval holds the truth in 68 % of the cases, also where rows are correlated."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.stats import t

from dpa2calc.dynamics.averages import BlockAverage, block_error, series_error, student
from dpa2calc.errors import DataError

N_ROWS, N_SERIES = 4000, 1500


def autoregressive(correlation_time: float, seed: int) -> np.ndarray:
    """Series (N_SERIES, N_ROWS) of mean 0 whose correlations fall as exp(-rows / correlation_time)."""
    rng = np.random.default_rng(seed)
    decay = np.exp(-1.0 / correlation_time) if correlation_time else 0.0
    start = int(10 * correlation_time)
    noise = rng.standard_normal((N_SERIES, N_ROWS + start))
    return lfilter([1.0], [1.0, -decay], noise, axis=1)[:, start:]


@pytest.mark.parametrize("correlation_time", [0, 2, 10, 40])
def test_the_interval_holds_the_truth_in_68_percent_of_the_cases(correlation_time):
    series = autoregressive(correlation_time, seed=correlation_time)
    off = np.abs(series.mean(axis=1))
    held = np.mean([miss < series_error(values) for miss, values in zip(off, series)])
    assert held == pytest.approx(0.6827, abs=0.05)
    stream = BlockAverage()
    for row in series.T:
        stream.add(row)
    np.testing.assert_allclose(stream.mean(), series.mean(axis=1), atol=1e-12)
    assert np.mean(off < stream.error()) == pytest.approx(0.6827, abs=0.05)


@pytest.mark.parametrize("times", [5, 7, 10, 20, 40])
def test_short_series_are_allowed_for(times):
    """A series that is so many correlation times long; without the correlation of blocks 20 to 45 % hold."""
    series = autoregressive(40, seed=times)[:, : 40 * times]
    off = np.abs(series.mean(axis=1))
    assert 0.60 < np.mean([miss < series_error(values) for miss, values in zip(off, series)]) < 0.75


def test_a_block_that_never_changes_has_no_error():
    blocks = np.stack([np.zeros(6), np.arange(6.0) % 2], axis=1)
    assert block_error(blocks)[0] == 0.0 and block_error(blocks)[1] > 0.0


@pytest.mark.parametrize("n_blocks", [2, 3, 6, 20])
def test_few_blocks_are_allowed_for(n_blocks):
    blocks = np.random.default_rng(n_blocks).standard_normal((n_blocks, 20_000))
    held = np.mean(np.abs(blocks.mean(axis=0)) < block_error(blocks))
    assert held == pytest.approx(0.6827, abs=0.01)
    assert student(n_blocks - 1) == pytest.approx(-t.ppf(0.5 * (1 - 0.682689), n_blocks - 1))


def test_a_single_row_has_no_error():
    assert np.isnan(series_error(np.array([1.0]))) and np.isnan(series_error(np.array([])))
    assert series_error(np.array([1.0, 3.0])) == pytest.approx(student(1) * 1.0)
    assert np.isnan(block_error(np.ones((1, 3)))).all()
    with pytest.raises(DataError, match=r"n_blocks = 1: error bars need at least 2 blocks"):
        BlockAverage(1)


@pytest.mark.parametrize("n", [1, 2, 7, 10, 159, 160, 161, 1000, 5003])
def test_block_average_of_a_stream_is_its_mean(n: int) -> None:
    values = np.random.default_rng(n).normal(size=(n, 3))
    average = BlockAverage(10)
    for value in values:
        average.add(value)
    np.testing.assert_allclose(average.mean(), values.mean(axis=0), atol=1e-12)
    assert average.n_frames == n and len(average.counts) <= average.capacity
    assert len(average.blocks()) == min(n, 10)
    assert np.isnan(average.error()).all() == (n == 1)
