"""Programs that take ASE calculators: a real run of each, against the calculator's own numbers."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.io import read

from dpa2calc import DPA2Calculator
from dpa2calc.applications import elastic_constants, relax
from dpa2calc.errors import MissingDependencyError

WATER = Path(__file__).parents[2] / "examples" / "data" / "water64.extxyz"
HEAD = "mlearn-PBE"


@pytest.fixture(scope="module")
def calculator():
    return DPA2Calculator(head=HEAD, default_dtype="float64")


@pytest.fixture(scope="module")
def student():
    return DPA2Calculator("student-water", dtype="float64")


def relaxed(calculator):
    atoms = bulk("Cu", a=3.65)
    atoms.calc = calculator
    return relax(atoms, relax="cell", fmax=1e-4, smax_gpa=1e-3, progress=False)


def test_what_other_programs_ask_of_a_calculator(calculator):
    assert calculator.parameters["arch"] == "dpa2calc"
    assert calculator.parameters["model"] == "default"
    assert calculator.parameters["dtype"] == "float64"
    json.dumps(calculator.parameters)
    options = json.loads(json.dumps({"model": "student-water", "device": "cpu", "default_dtype": "float32"}))
    made = DPA2Calculator(**options)
    assert made.parameters["dtype"] == "float32"
    assert "arch" not in repr(made) and "arch" not in made.describe()


def test_openmm_runs_a_water_box(student):
    openmm = pytest.importorskip("openmm", reason="OpenMM is not installed (PyPI: openmm openmmml)")
    potential = pytest.importorskip("openmmml", reason="OpenMM-ML is not installed (PyPI: openmmml)")
    app, unit = openmm.app, openmm.unit
    atoms = read(WATER)
    topology = app.Topology()
    chain = topology.addChain()
    for symbol in atoms.symbols:
        residue = topology.addResidue(symbol, chain)
        topology.addAtom(symbol, app.Element.getBySymbol(symbol), residue)
    topology.setPeriodicBoxVectors(atoms.cell.array * unit.angstrom)
    system = potential.MLPotential("ase").createSystem(topology, calculator=student)
    integrator = openmm.VerletIntegrator(0.25 * unit.femtosecond)
    platform = openmm.Platform.getPlatformByName("Reference")
    simulation = app.Simulation(topology, system, integrator, platform)
    simulation.context.setPositions(atoms.positions * unit.angstrom)
    simulation.context.setVelocitiesToTemperature(300 * unit.kelvin, 1)

    def state():
        return simulation.context.getState(getEnergy=True, getForces=True)

    found, per_mol = state(), units.kJ / units.mol
    atoms.calc = student
    energy = found.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * per_mol
    assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    forces = found.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    np.testing.assert_allclose(forces * per_mol / 10, atoms.get_forces(), atol=1e-6)

    def total(s):
        return (s.getPotentialEnergy() + s.getKineticEnergy()).value_in_unit(
            unit.kilojoule_per_mole
        ) * per_mol

    before = total(state())
    simulation.step(20)
    assert total(state()) == pytest.approx(before, abs=1e-3 * len(atoms))


def test_matcalc_finds_our_elastic_constants(calculator):
    matcalc = pytest.importorskip("matcalc", reason="matcalc is not installed (PyPI: matcalc)")
    from pymatgen.io.ase import AseAtomsAdaptor

    start = relaxed(calculator).atoms()
    task = matcalc.ElasticityCalc(
        calculator, norm_strains=(-0.005, 0.005), shear_strains=(-0.01, 0.01), relax_structure=False,
        units_GPa=True, r2_min=-1,  # a component that is zero by symmetry has no line
    )  # fmt: skip
    found = task.calc(AseAtomsAdaptor.get_structure(start))
    start.calc = calculator
    ours = elastic_constants(start, relax="fixed", progress=False)
    assert found["bulk_modulus_vrh"] == pytest.approx(ours.moduli["bulk_hill"], rel=0.02)
    assert found["shear_modulus_vrh"] == pytest.approx(ours.moduli["shear_hill"], rel=0.05)


def test_atomate2_relaxes_by_jobflow(calculator, tmp_path, monkeypatch):
    jobs = pytest.importorskip("atomate2.forcefields.jobs", reason="atomate2 is not installed (PyPI)")
    from jobflow import run_locally
    from pymatgen.io.ase import AseAtomsAdaptor

    monkeypatch.chdir(tmp_path)
    maker = jobs.ForceFieldRelaxMaker(
        force_field_name={"@module": "dpa2calc", "@callable": "DPA2Calculator"},
        calculator_kwargs={"head": HEAD, "dtype": "float64"},
        relax_kwargs={"fmax": 1e-3},
    )
    job = maker.make(AseAtomsAdaptor.get_structure(bulk("Cu", a=3.65)))
    output = run_locally(job, ensure_success=True)[job.uuid][1].output
    assert output.forcefield_name == "DPA2Calculator"
    ours = relaxed(calculator)
    assert output.output.energy == pytest.approx(ours.energy, abs=1e-4)
    assert output.structure.volume == pytest.approx(ours.atoms().get_volume(), rel=2e-3)


def test_quacc_relaxes(calculator, tmp_path, monkeypatch):
    ase = pytest.importorskip("quacc.runners.ase", reason="quacc is not installed (PyPI: quacc)")
    from quacc import change_settings

    monkeypatch.chdir(tmp_path)
    with change_settings({"RESULTS_DIR": tmp_path, "SCRATCH_DIR": tmp_path}):
        run = ase.Runner(bulk("Cu", a=3.65), calculator).run_opt(relax_cell=True, fmax=1e-3)
    assert run.atoms.get_potential_energy() == pytest.approx(relaxed(calculator).energy, abs=1e-4)


def test_janus_core_computes_and_relaxes(calculator, tmp_path, monkeypatch):
    janus = pytest.importorskip("janus_core.calculations", reason="janus-core is not installed (PyPI)")
    from janus_core.calculations.geom_opt import GeomOpt
    from janus_core.calculations.single_point import SinglePoint

    assert janus is not None
    monkeypatch.chdir(tmp_path)
    atoms = bulk("Cu", a=3.65)
    atoms.calc = calculator
    found = SinglePoint(struct=atoms, properties=("energy", "forces", "stress")).run()
    assert found["energy"] == pytest.approx(calculator.evaluate([bulk("Cu", a=3.65)])[0]["energy"], abs=1e-9)
    assert atoms.info["arch"] == "dpa2calc" and atoms.info["model"] == "default"
    GeomOpt(struct=atoms, fmax=1e-3).run()
    assert atoms.get_potential_energy() == pytest.approx(relaxed(calculator).energy, abs=1e-4)


def test_mlip_arena_relaxes(calculator):
    task = pytest.importorskip("mlip_arena.tasks.optimize", reason="mlip-arena is not installed (PyPI)")
    found = task.run.fn(
        atoms=bulk("Cu", a=3.65), calculator=calculator, filter="FrechetCell", criterion={"fmax": 1e-3}
    )
    assert found["atoms"].get_potential_energy() == pytest.approx(relaxed(calculator).energy, abs=1e-4)


def test_ml_peg_makes_curves_of_diatomics(tmp_path, monkeypatch):
    try:
        from ml_peg.calcs.physicality.diatomics import calc_diatomics
        from ml_peg.models.models import GenericASECalc
    except ImportError as error:
        pytest.skip(f"ml-peg is not installed (PyPI: ml-peg): {error}")
    import pandas

    for name, value in (("OUT_PATH", tmp_path), ("ELEMENTS", ["H", "O"]), ("N_POINTS", 12)):
        monkeypatch.setattr(calc_diatomics, name, value)
    model = GenericASECalc(
        module="dpa2calc", class_name="DPA2Calculator", device="cpu", kwargs={"head": "H2O-PBE0TS"}
    )
    calc_diatomics.run_diatomics("dpa2calc", model)
    table = pandas.read_csv(tmp_path / "dpa2calc" / "diatomics.csv")
    assert set(table["pair"]) == {"H-H", "O-O", "H-O"}
    assert np.isfinite(table["energy"]).all()
    far = molecule("H2")
    far.positions = [[0, 0, 0], [0, 0, 6.0]]
    ours = DPA2Calculator(head="H2O-PBE0TS", dtype="float64").evaluate([far])[0]["energy"]
    row = table[(table["pair"] == "H-H") & (table["distance"] == 6.0)]
    assert row["energy"].item() == pytest.approx(ours, abs=1e-9)


@pytest.mark.skipif(find_spec("torch_sim") is not None, reason="torch-sim is installed")
def test_torch_sim_is_missing():
    from dpa2calc.integrations.torch_sim import TorchSimModel

    with pytest.raises(MissingDependencyError, match=r"pip install 'dpa2calc\[torch-sim\]' \(Python 3.12"):
        TorchSimModel(DPA2Calculator("student-water"))
