"""Limits that are turned off, that are changed in a later call, or that nothing keeps; and early errors."""

import json

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from learning_cases import tiny

from dpa2calc.errors import ConfigError, DataError, TrainingError
from dpa2calc.store.checkpoint import checkpoint_info
from dpa2calc.training import TrainConfig, distill
from dpa2calc.training.exploration import loop

MD = {"temperature": 300, "timestep": 2, "steps": 4, "sample_interval": 2, "trajectories": 1}
TRAIN = TrainConfig(steps=2, batch_atoms=32)


def _copper():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    return atoms


def _distill(folder, teacher=None, start=None, **changes):
    options = {"md": MD, "train": TRAIN, "max_rounds": 1, "progress": False, **changes}
    student = options.pop("student", tiny())
    return distill(teacher or EMT(), start or _copper(), student, output=folder, **options)


@pytest.fixture
def untrained(monkeypatch):
    """A training would be a failure."""

    def trained(*arguments, **options):
        raise AssertionError("it trains before it looks")

    monkeypatch.setattr(loop.Rounds, "trained", trained)


def test_infinity_turns_limits_off(tmp_path, caplog):
    limits = dict.fromkeys(("force_limit", "temperature_limit", "upper_bound"), np.inf)
    train = TRAIN.replace(gradient_clip=np.inf)
    result = _distill(tmp_path, train=train, final_steps=1, **limits)
    assert result.rounds[0].explored == 2 and result.rounds[0].exploded == 0
    told = checkpoint_info(result.student).extra["distilled"]["options"]
    assert {told["loop"][name] for name in limits} == {told["train"]["gradient_clip"]} == {"Infinity"}
    assert _distill(tmp_path, train=train, final_steps=1, **limits).rounds == result.rounds
    assert not [r for r in caplog.records if "other options" in r.message]


def test_another_force_limit_lets_start_frames_count(tmp_path, caplog):
    for _ in range(2):
        caplog.clear()
        with pytest.raises(DataError, match="no start frame is fit to learn from; the warnings above"):
            _distill(tmp_path, force_limit=1e-3)
        assert "over force_limit = 0.001" in caplog.text
    assert _distill(tmp_path).rounds[0].trained_on == 1


def test_another_limit_lets_a_round_explore_again(tmp_path):
    still = bulk("Cu", cubic=True)
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"larger limit where one cut them, or start from other"):
            _distill(tmp_path, start=still, force_limit=1e-3)
        assert not list((tmp_path / "explore").glob("*/*"))
    assert _distill(tmp_path, start=still).rounds[0].explored == 2


def test_another_upper_bound_lets_the_loop_go_on(tmp_path):
    bounds = {"threshold": 1e-6, "upper_bound": 1e-5}
    assert _distill(tmp_path, max_rounds=3, **bounds).reason == "nothing to add"
    assert _distill(tmp_path, max_rounds=3, **bounds).reason == "nothing to add"
    result = _distill(tmp_path, max_rounds=2, threshold=1e-6)
    assert [r.added for r in result.rounds] == [0, 2] and result.reason == "max_rounds"
    assert [r.upper_bound for r in result.rounds] == [1e-5, 10.0]
    state = tmp_path / "state.json"
    stored = json.loads(state.read_text())
    del stored["rounds"][1:], stored["rounds"][0]["upper_bound"]  # as earlier versions wrote it
    state.write_text(json.dumps(stored))
    assert _distill(tmp_path, max_rounds=3, **bounds).reason == "nothing to add"


class _NoStress(LennardJones):
    implemented_properties = ("energy", "forces")


def test_errors_come_before_the_first_training(tmp_path, untrained):
    def refused(error, match, *arguments, **changes):
        with pytest.raises(error, match=match):
            _distill(tmp_path / f"{len(list(tmp_path.iterdir()))}", *arguments, **changes)

    ase.io.write(tmp_path / "iron.xyz", bulk("Fe"))
    iron = {**MD, "structures": str(tmp_path / "iron.xyz")}

    refused(DataError, r"teacher fails on md.structures \(Fe\): .*Fe", md=iron, student="dpa1-l0")
    refused(ConfigError, r"the student has no type for Fe, .* \(its type_map: Cu\)", md=iron)
    refused(ConfigError, "NPT needs stresses, which _NoStress", _NoStress(), md={**MD, "ensemble": "npt"})
    massless = _copper()
    massless.set_masses([63, 63, 63, 0])
    refused(DataError, "an atom of Cu4 has no mass", start=massless)
    refused(DataError, "in all 1 structures .* overlap, such as in Cu2: atoms 0 and 1", start=Atoms("Cu2"))


def test_no_dynamics_start_from_overlapping_atoms(tmp_path, caplog):
    start = [Atoms("Cu2", [[0, 0, 0], [0.3, 0, 0]]), _copper()]
    result = _distill(tmp_path, start=start, md={**MD, "trajectories": 3})
    assert (result.rounds[0].trajectories, result.rounds[0].cut) == (3, 0)
    assert "no dynamics start from a structure (Cu2): atoms 0 and 1 are 0.3 Å apart" in caplog.text
