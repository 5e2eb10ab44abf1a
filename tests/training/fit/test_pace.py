"""A run of so many minutes: the schedule ends with them, in one call or several."""

import itertools
import math

import pytest

from dpa2calc.errors import ConfigError
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.fit import pace
from dpa2calc.training.runs.log import History

MINUTES = 0.5


@pytest.fixture
def ticking(monkeypatch):
    """A clock that moves on by a second each time it is read."""
    ticks = itertools.count()
    monkeypatch.setattr(pace.time, "monotonic", lambda: float(next(ticks)))
    return ticks


def test_the_rate_falls_with_the_clock():
    config = TrainConfig(minutes=10, steps=3, warmup_steps=4, learning_rate=1.0, learning_rate_stop=0.1)
    # half a cosine from 1 to 0.1, whatever the number of steps; the warm-up is over after 4 of them
    for progress, expected in ((0.0, 1.0), (0.5, 0.55), (1.0, 0.1)):
        assert config.learning_rate_at(1000, progress) == pytest.approx(expected)
    assert config.learning_rate_at(0, 0.0) == 0.25
    assert config.learning_rate_at(0, 0.2) == config.rate_fraction(0, 0.2)  # at most a fifth of the run
    falling = config.replace(schedule="exponential")
    assert falling.rate_fraction(7, 0.5) == pytest.approx(math.sqrt(0.1))
    assert falling.prefactors(falling.rate_fraction(7, 1.0)) == pytest.approx(
        [0.1 * start + 0.9 * limit for start, limit in ((0.02, 1), (1000, 1), (0.02, 1))]
    )


def test_minutes_end_the_run_and_its_schedule(run, ticking):
    result = run(minutes=MINUTES, clock="wall", log_every=1)
    assert result.finished and (result.output / "model.safetensors").exists()
    rates = [record["learning_rate"] for record in result.history.train]
    assert 5 < result.steps <= 60 * MINUTES + 1 and len(rates) == result.steps
    assert rates[-1] < 0.1 * max(rates) and rates[-1] >= 1e-4
    again = run(minutes=MINUTES, log_every=1)
    assert (again.steps, again.finished) == (result.steps, True)


def test_a_run_in_two_calls_has_one_budget(run, ticking):
    first = run(minutes=MINUTES, time_limit=5.0, log_every=1)
    assert not first.finished
    whole = run(minutes=MINUTES, log_every=1)
    assert whole.finished and whole.steps > first.steps
    assert next(ticking) < 3 * 60 * MINUTES  # each step reads the clock a few times
    rates = [record["learning_rate"] for record in History.read(whole.output / "log.jsonl").train]
    assert len(rates) == whole.steps and rates[-1] < 0.2 * max(rates)
    longer = run(minutes=2 * MINUTES, log_every=1)
    assert longer.finished and longer.steps > whole.steps


def test_a_first_step_that_compiles_kernels_is_not_counted(monkeypatch):
    now = [50.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    run = pace.Pace(TrainConfig(minutes=1.0, time_limit=200.0))
    run.seconds = 15.0  # of an earlier call
    run.start()
    now[0] += 90.0
    run.seconds = run.now
    assert run.progress == 1.0
    run.leave_out()
    assert run.progress == 0.25 and not run.complete(1)
    now[0] += 30.0
    assert run.now == 45.0 and not run.out_of_time
    now[0] += 100.0
    assert run.out_of_time  # all of this call


def test_cpu_time_is_a_clock_too(run, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(pace.time, "process_time", lambda: float(next(ticks)))
    assert run(minutes=MINUTES, clock="cpu").finished and next(ticks) >= 60 * MINUTES


def test_minutes_below_zero_are_refused():
    with pytest.raises(ConfigError, match=r"minutes = -1"):
        TrainConfig(minutes=-1)
