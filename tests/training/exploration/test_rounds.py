"""What rounds of both kinds print alike."""

import dataclasses

from ase.build import bulk

from dpa2calc.labels.errors import Errors
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.distill.config import DistillConfig
from dpa2calc.training.exploration.loop import Rounds
from dpa2calc.training.exploration.rounds import table
from dpa2calc.training.learning.selection import LearnRound


def test_a_line_a_round_under_titles_of_the_same_width():
    assert table([]) == []
    errors = Errors(
        n_frames=1, n_atoms=4, energy_rmse=1.5, energy_mae=1.0, force_rmse=12345.6, force_mae=30.0
    )
    given = {"threshold": 0.2, "trajectories": 1, "cut": 0, "explored": 8, "accurate": 6, "added": 2}
    doubts = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    rounds = [
        LearnRound(number=n, trained_on=4, doubts=doubts, scale=1.0, checked=True, spent=6, errors=e, **given)
        for n, e in ((1, errors), (2, None))
    ]
    lines = table(rounds)
    assert len({len(line) for line in lines}) == 1
    titles = lines[0].replace(" E", "_E").replace(" F", "_F").split()
    rows = [dict(zip(titles, line.split())) for line in lines[1:]]
    assert rows[0]["new_F"] == "12345.6" and rows[1]["new_F"] == "-" and rows[0]["within"] == "75.0%"
    assert rows[0]["doubt"] == "300.0" and rows[0]["test_E"] == "-"


def test_steps_of_later_trainings_count_beside_minutes(tmp_path):
    """A run by the clock pays no heed to steps, so that they must put the clock aside."""
    train = TrainConfig(steps=10, minutes=5.0)
    config = DistillConfig(later_steps=20, final_steps=30)
    rounds = Rounds(bulk("Cu"), (), train, config, tmp_path, None, False)
    later, last = (rounds._later_training(last) for last in (False, True))
    assert (later.steps, later.minutes) == (20, 0.0) and (last.steps, last.minutes) == (30, 0.0)
    rounds.config = dataclasses.replace(config, later_steps=0, final_steps=0)
    assert [rounds._later_training(last).minutes for last in (False, True)] == [5.0, 5.0]
