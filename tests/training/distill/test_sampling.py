"""One exploring trajectory: cut when it explodes, restartable to the bit, labelled by the teacher."""

from __future__ import annotations

import re

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.training.distill.config import DistillConfig, MDCondition
from dpa2calc.training.distill.sampling import Trajectory, run_trajectory
from dpa2calc.training.distill.setup import plan_trajectories

CONFIG = DistillConfig(force_limit=20.0)


class Stops(EMT):
    """EMT that does something else from one evaluation on."""

    def __init__(self, at, then):
        super().__init__()
        self.at, self.then, self.count = at, then, 0

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.count += 1
        if self.count >= self.at:
            self.then(self)


def _interrupt(calculator):
    raise KeyboardInterrupt


def _not_a_number(calculator):
    calculator.results["forces"] = np.full_like(calculator.results["forces"], np.nan)


def _fail(calculator):
    raise RuntimeError("no convergence")


def _trajectory(driver="teacher", temperature=600.0, **condition):
    values = {"timestep": 4.0, "steps": 40, "sample_interval": 10, **condition}
    c = MDCondition(temperature=(temperature,), **values)
    return Trajectory(
        number=1,
        round=1,
        driver=driver,
        condition=c,
        temperature=temperature,
        pressure=c.pressure[0],
        start=bulk("Cu", cubic=True),
        seed=3,
    )


def _run(path, trajectory, teacher, driver=None):
    return run_trajectory(trajectory, path=path, teacher=teacher, driver=driver or teacher, config=CONFIG)


@pytest.mark.parametrize(
    "condition",
    [
        {"ensemble": "nve"},
        {"ensemble": "nvt"},
        {"ensemble": "npt", "barostat_time": 100.0, "pressure": (2.0,)},
        {"ensemble": "npt", "barostat_time": 100.0, "cell": "full"},
    ],
    ids=["nve", "nvt", "npt isotropic", "npt full"],
)
def test_interrupted_it_repeats_every_bit(tmp_path, condition):
    trajectory = _trajectory(**condition)
    whole = _run(tmp_path / "whole.extxyz", trajectory, EMT())
    assert whole.steps == 40 and whole.frames == 4 and not whole.cut
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "cut.extxyz", trajectory, Stops(29, _interrupt))
    assert not (tmp_path / "cut.extxyz").exists()
    again = Stops(10**9, _interrupt)
    assert _run(tmp_path / "cut.extxyz", trajectory, again) == whole
    assert again.count < 35  # it went on, and did not begin again
    assert (tmp_path / "cut.extxyz").read_text() == (tmp_path / "whole.extxyz").read_text()
    frames = ase.io.read(tmp_path / "whole.extxyz", ":")
    volumes = np.array([a.get_volume() for a in frames])
    assert (np.ptp(volumes) > 0) == (condition["ensemble"] == "npt")
    counted = Stops(1, _interrupt)
    assert _run(tmp_path / "cut.extxyz", trajectory, counted) == whole  # finished: nothing is run again
    assert counted.count == 0


@pytest.mark.parametrize(
    ("driver", "condition", "why"),
    [
        (EMT(), {"timestep": 60.0}, r"step \d+: (a force of|[\d.e+]+ K, over temperature_limit|\w+Error)"),
        (Stops(25, _not_a_number), {}, r"step \d+: positions or forces are not finite"),
        (Stops(25, _fail), {}, r"step \d+: RuntimeError: no convergence"),
    ],
    ids=["time step", "NaN", "failure"],
)
def test_an_explosion_is_cut_and_what_it_did_is_not_kept(tmp_path, driver, condition, why):
    walk = _run(tmp_path / "a.extxyz", _trajectory(steps=200, **condition), EMT(), driver)
    assert walk.cut and re.match(why, walk.cut), walk.cut
    assert walk.steps < 200
    text = (tmp_path / "a.extxyz").read_text()
    frames = ase.io.read(tmp_path / "a.extxyz", ":") if text else []
    assert len(frames) == walk.frames == text.count("Lattice")
    for atoms in frames:
        assert atoms.info["step"] <= walk.steps and np.abs(atoms.get_forces()).max() < CONFIG.force_limit
        check = atoms.copy()
        check.calc = EMT()
        np.testing.assert_allclose(check.get_forces(), atoms.get_forces(), atol=1e-6)


def test_a_frame_of_the_students_that_the_teacher_refuses_ends_the_trajectory(tmp_path):
    # The driver pulls atoms together without ever feeling it: EMT turned upside down.
    class Attractive(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["forces"] = -5.0 * self.results["forces"]

    trajectory = _trajectory("student", steps=400, sample_interval=5, timestep=2.0)
    walk = _run(tmp_path / "a.extxyz", trajectory, EMT(), Attractive())
    assert walk.cut
    frames = ase.io.read(tmp_path / "a.extxyz", ":")
    assert 0 < len(frames) == walk.frames < 80
    assert max(np.linalg.norm(a.get_forces(), axis=1).max() for a in frames) <= CONFIG.force_limit
    assert frames[0].info["group"].startswith("student nvt 600 K")


def test_failing_at_the_start_is_an_error(tmp_path):
    with pytest.raises(
        DataError, match=r"trajectory 1: teacher, nvt 600 K, Cu4: the calculator fails at the"
    ):
        _run(tmp_path / "a.extxyz", _trajectory(), Stops(1, _fail))
    with pytest.raises(DataError, match="forces on the start structure are not finite"):
        _run(tmp_path / "a.extxyz", _trajectory(), Stops(1, _not_a_number))


def test_plan_covers_every_condition_with_other_starts_and_velocities():
    pool = [bulk("Cu", a=3.5 + 0.1 * i) for i in range(5)]
    conditions = (
        MDCondition(temperature=(300, 600), trajectories=2),
        MDCondition(ensemble="npt", temperature=(400,), pressure=(0, 5), trajectories=1),
    )
    config = DistillConfig(explore_with="both")
    plan = plan_trajectories(1, conditions, [pool, pool], config)
    assert [t.number for t in plan] == list(range(1, 13))
    points = [(t.driver, t.condition.ensemble, t.temperature, t.pressure) for t in plan]
    assert points[:4] == [("teacher", "nvt", 300, 0)] * 2 + [("teacher", "nvt", 600, 0)] * 2
    assert points[4:6] == [("teacher", "npt", 400, 0), ("teacher", "npt", 400, 5)]
    assert {p[0] for p in points[6:]} == {"student"}
    assert len({t.seed for t in plan}) == 12 and len({t.start.get_volume() for t in plan[:4]}) == 4
    assert plan_trajectories(1, conditions, [pool, pool], config)[3].fingerprint() == plan[3].fingerprint()
    later = plan_trajectories(2, conditions, [pool, pool], config)
    assert not {t.seed for t in later} & {t.seed for t in plan}


def test_conditions_name_what_is_wrong():
    with pytest.raises(ConfigError, match=r"md.ensemble = 'nph' is not allowed; allowed: nve, nvt, npt"):
        MDCondition(ensemble="nph")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"md.temperature = .* is not allowed; allowed: above 0 K"):
        MDCondition(temperature=(300.0, 0.0))
