"""One exploring trajectory: cut when it explodes, restartable to the bit, labelled by the teacher."""

import json
import logging
import re

import ase.io
import numpy as np
import pytest
from architectures import make_potential
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.emt import EMT
from emt_cases import with_emt
from simple_forces import Springs

from dpa2calc import DPA2Calculator
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.structures.attached import bare
from dpa2calc.training import Dataset
from dpa2calc.training.data.readers.frame_file import read_frames
from dpa2calc.training.distill.config import DistillConfig
from dpa2calc.training.distill.labels import label_start
from dpa2calc.training.evaluate import predict_calculator
from dpa2calc.training.exploration import sampling
from dpa2calc.training.exploration.options import MDCondition
from dpa2calc.training.exploration.sampling import Trajectory, run_trajectory
from dpa2calc.training.exploration.structures import plan_trajectories, start_structures, structures_digest
from dpa2calc.training.learning.labels import structure_key

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
        {"ensemble": "npt", "barostat_time": 100.0, "cell": "cell"},
    ],
    ids=["nve", "nvt", "npt volume", "npt cell"],
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
    assert again.count < 35  # it resumed, and did not begin again
    assert sorted(p.name for p in tmp_path.iterdir() if "cut" in p.name) == ["cut.extxyz", "cut.json"]
    assert (tmp_path / "cut.extxyz").read_text() == (tmp_path / "whole.extxyz").read_text()
    frames = ase.io.read(tmp_path / "whole.extxyz", ":")
    volumes = np.array([a.get_volume() for a in frames])
    assert (np.ptp(volumes) > 0) == (condition["ensemble"] == "npt")
    counted = Stops(1, _interrupt)
    assert _run(tmp_path / "cut.extxyz", trajectory, counted) == whole  # finished: nothing is run again
    assert counted.count == 0


@pytest.mark.parametrize("driven_by", ["teacher", "student"])
def test_models_in_float32_with_a_skin_repeat_every_bit_too(tmp_path, monkeypatch, driven_by):
    trajectory = _trajectory(driven_by, steps=30, temperature=300.0, timestep=2.0)

    def run(name):
        teacher, student = (DPA2Calculator(make_potential("dpa1-l0", seed=k), skin=2.0) for k in (1, 2))
        driver = teacher if driven_by == "teacher" else student
        return _run(tmp_path / name, trajectory, teacher, driver)

    whole = run("whole.extxyz")
    look = sampling._Sampler.look
    for stop in (7, 10, 23):

        def stopped(self, atoms, step, stop=stop):
            found = look(self, atoms, step)
            if step == stop:  # at 10 the frame is kept, and no point to resume from written
                raise KeyboardInterrupt
            return found

        monkeypatch.setattr(sampling._Sampler, "look", stopped)
        with pytest.raises(KeyboardInterrupt):
            run("cut.extxyz")
    monkeypatch.setattr(sampling._Sampler, "look", look)
    assert run("cut.extxyz") == whole and whole.frames == 3
    assert (tmp_path / "cut.extxyz").read_text() == (tmp_path / "whole.extxyz").read_text()


@pytest.mark.parametrize("cell", ["volume", "cell"])
def test_npt_has_the_temperature_asked_for(tmp_path, monkeypatch, cell):
    # of four atoms, 3N degrees of freedom in place of 3N - 3 would make it 400 K
    found = []
    look = sampling._Sampler.look

    def watched(self, atoms, step):
        found.append(2 * atoms.get_kinetic_energy() / ((3 * len(atoms) - 3) * units.kB))
        return look(self, atoms, step)

    monkeypatch.setattr(sampling._Sampler, "look", watched)
    condition = {"ensemble": "npt", "cell": cell, "thermostat_time": 50.0, "barostat_time": 300.0}
    walk = _run(
        tmp_path / "a.extxyz",
        _trajectory(temperature=300.0, steps=1200, sample_interval=1200, **condition),
        Springs(bulk("Cu", cubic=True)),
    )
    assert not walk.cut
    assert np.mean(found[200:]) == pytest.approx(300.0, rel=0.15)


def test_a_trajectory_begun_by_an_earlier_version_begins_again(tmp_path, caplog):
    trajectory = _trajectory()
    whole = _run(tmp_path / "whole.extxyz", trajectory, EMT())
    text = (tmp_path / "whole.extxyz").read_text()
    finished = json.loads((tmp_path / "whole.json").read_text())
    first = text[: len(text) // 4]
    note = {"bytes": len(first), "frames": 1, "finished": False, "trajectory": finished["trajectory"]}
    (tmp_path / "old.extxyz.part").write_text(first)
    (tmp_path / "old.json").write_text(json.dumps({**note, "state": {"step": 10, "dynamics": {}}}))
    with caplog.at_level(logging.WARNING):
        assert _run(tmp_path / "old.extxyz", trajectory, EMT()) == whole
    assert "was begun by an earlier version; it begins again" in caplog.text
    assert (tmp_path / "old.extxyz").read_text() == text
    # a finished one is that of the same fingerprint, which earlier versions wrote too
    assert finished["trajectory"] == "4596b4a63509429c"


def test_another_calculator_does_not_resume_a_trajectory(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path / "a.extxyz", _trajectory(), Stops(20, _interrupt))
    other = EMT(asap_cutoff=True)
    with pytest.raises(ConfigError, match=r"trajectory 1: teacher.*a.npz .*calculator"):
        _run(tmp_path / "a.extxyz", _trajectory(), other)


@pytest.mark.parametrize(
    ("driver", "condition", "why"),
    [
        (EMT(), {"timestep": 60.0}, r"step \d+: the (force on|temperature is|calculator failed|volume is)"),
        (Stops(25, _not_a_number), {}, r"step \d+: 4 of 4 atoms have a NaN or infinite force"),
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
        check = with_emt(atoms.copy())
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


class Charged(EMT):
    """EMT of atoms whose energy is raised by their charges and by what `info` says, eV."""

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        self.results["energy"] += float(atoms.get_initial_charges().sum() + 10 * atoms.info.get("charge", 0))


def charged():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=0)
    atoms.set_initial_charges([0.5, 0.25, 0.0, 0.0])
    atoms.set_masses([63.0, 63.0, 65.0, 65.0])
    atoms.info.update(charge=2, fparam=np.array([0.5, 1.0]), name="mine")
    atoms.set_array("aparam", np.arange(4.0))
    return atoms


def test_what_results_depend_on_goes_along(tmp_path):
    atoms = charged()
    atoms.calc = Charged()
    expected = atoms.get_potential_energy()
    data = Dataset.from_atoms([atoms])
    for given in (atoms, data):
        (start,) = start_structures(given)
        label_start(tmp_path / f"{type(given).__name__}.extxyz", [start], Charged(), CONFIG, progress=False)
        (frame,) = read_frames(tmp_path / f"{type(given).__name__}.extxyz")
        assert frame.get_potential_energy() == pytest.approx(expected, abs=1e-6)
        assert frame.info["fparam"].tolist() == [0.5, 1.0] and "name" not in frame.info
        assert frame.arrays["aparam"].tolist() == [0, 1, 2, 3]
        assert frame.get_masses().tolist() == [63.0, 63.0, 65.0, 65.0]
    (made,) = predict_calculator(Charged(), data)
    assert made.energy == pytest.approx(expected)


def test_start_frames_may_be_several_files_patterns_and_atoms(tmp_path):
    ase.io.write(tmp_path / "a.xyz", [bulk("Cu", a=a) for a in (3.5, 3.6)])
    ase.io.write(tmp_path / "b.cif", bulk("Cu", a=3.7))
    given = [tmp_path / "a.xyz", bulk("Cu", a=3.8), str(tmp_path / "*.cif")]
    lattices = [(4 * atoms.get_volume()) ** (1 / 3) for atoms in start_structures(given)]
    np.testing.assert_allclose(lattices, [3.5, 3.6, 3.8, 3.7])
    (only,) = start_structures(str(tmp_path / "*.cif"))
    assert 4 * only.get_volume() == pytest.approx(3.7**3)
    with pytest.raises(DataError, match=r"no file fits the pattern .*\*.xyzz"):
        start_structures(str(tmp_path / "*.xyzz"))


def test_other_charges_are_other_structures_to_be_labelled():
    atoms, other = charged(), charged()
    other.info["charge"] = 1
    plain = bare(atoms)
    for name in ("initial_charges", "aparam"):
        del plain.arrays[name]
    plain.info.clear()
    assert len({structure_key(a) for a in (atoms, other, plain)}) == 3
    assert len({structures_digest([a]) for a in (atoms, other, plain)}) == 3


@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_a_label_that_is_not_finite_is_not_learned(name):
    class Broken(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            if name in self.results:
                self.results[name] = np.full_like(self.results[name], np.inf)

    class OneNumber(EMT):
        def calculate(self, *args, **kwargs):
            super().calculate(*args, **kwargs)
            self.results["energy"] = np.array([self.results["energy"]])

    crystal = bulk("Cu", cubic=True)
    reason = sampling.unsound(sampling.fresh_label(crystal, Broken()), CONFIG)
    assert reason.startswith("its labels are not finite (") and name in reason
    assert sampling.unsound(sampling.fresh_label(crystal, OneNumber()), CONFIG) == ""


def test_atoms_crowded_into_one_place_are_no_start():
    crowd = Atoms("Cu60", np.random.default_rng(0).random((60, 3)), cell=[1, 1, 1], pbc=True)
    assert "atoms" in sampling.too_close(crowd)
    crowd.set_cell([0.2, 0.2, 0.2], scale_atoms=True)
    assert "the cell has a volume of 0.008" in sampling.too_close(crowd)
