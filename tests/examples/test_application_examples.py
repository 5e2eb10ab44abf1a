"""What the application examples add: the LGPS cell, verdicts, elastic constants of PBE, labels."""

import argparse
import json
import time

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import neighbor_list


@pytest.mark.parametrize("cell", ["pbe", "experiment"])
def test_lgps_cell_has_its_composition_and_tetrahedra(script, cell):
    atoms = script("paper.lgps").unit_cell(cell)
    assert atoms.get_chemical_formula() == "Ge2Li20P4S24"
    i, j, d = neighbor_list("ijd", atoms, 2.4)
    symbols = np.array(atoms.get_chemical_symbols())
    for centre in ("P", "Ge"):
        bonds = d[(symbols[i] == centre) & (symbols[j] == "S")]
        assert len(bonds) == 4 * (symbols == centre).sum()  # PS4 and GeS4
        assert bonds.min() > 1.95 and bonds.max() < 2.3
    assert d[(symbols[i] == "Li") & (symbols[j] == "Li")].min() > 2.0
    assert len(atoms.repeat((3, 3, 2))) == 900  # as in the paper


def test_published_values_from_a_file(script, tmp_path):
    lgps = script("paper.lgps")
    text = "source,kind,temperature,coefficient,activation_energy\nA,DP,600,1e-5,\nB,AIMD,,,0.2\n"
    (tmp_path / "values.csv").write_text(text)
    first, second = lgps.read_published(tmp_path / "values.csv")
    assert first == lgps.Published("A", "DP", temperature=600.0, coefficient=1e-5)
    assert second.activation_energy == 0.2 and second.coefficient is None


def test_conductivity_of_lgps_means_the_listed_coefficient(script):
    """Nernst-Einstein: 12 mS/cm at 300 K, 20 Li in the measured cell."""
    lgps = script("paper.lgps")
    a, c = lgps.CELLS["experiment"]
    density = 20 / (a * a * c * 1e-30)  # 1/m³
    coefficient = 1.2 * 1.380649e-23 * 300 / (density * 1.602176634e-19**2)  # m²/s
    listed = next(known for known in lgps.PUBLISHED if known.coefficient)
    assert listed.coefficient == pytest.approx(coefficient * 1e4, rel=0.02)


def test_verdicts(script):
    science = script("paper.science")
    assert science.judge("shift", -0.02, 0.03, "Å").passed is True
    assert str(science.judge("shift", 0.05, 0.03, "Å")) == "NO         shift within 0.03 Å: +0.050 Å"
    assert str(science.Verdict("D", "none given", None)).startswith("not judged")


def test_elastic_constants_from_strained_cells(script):
    """Stresses of a made cubic crystal come back as its constants; a cell with forces does not count."""
    c11, c12, c44 = 170.0, 120.0, 80.0
    frames = []
    for axis in range(3):
        for e in (-0.04, -0.03, -0.02, -0.01, 0.01, 0.02, 0.03, 0.04):
            stress = np.full(6, c12 * e)
            stress[axis], stress[3:] = c11 * e, 0.0
            strain = np.zeros((3, 3))
            strain[axis, axis] = e
            frames.append(_strained(strain, stress - 300 * e**2 * (np.arange(6) == axis)))
            shear = np.zeros((3, 3))
            others = [k for k in range(3) if k != axis]
            shear[others[0], others[1]] = shear[others[1], others[0]] = e / 2
            frames.append(_strained(shear, c44 * e * (np.arange(6) == 3 + axis)))
    frames.append(_strained(np.diag([0.03, 0, 0]), np.full(6, 1e3), force=0.5))
    found = script("mlearn_elastic").elastic_constants(frames)
    assert {name: round(value, 6) for name, (value, _) in found.items()} == {
        "C11": c11,
        "C12": c12,
        "C44": c44,
    }
    assert found["C11"][1] == 24


def test_lattice_constant_is_where_the_energies_are_least(script):
    """A made crystal under tension at its listed cell, whose stress labels deny it, is smaller by s / 3B."""
    c11, c12, tension = 170.0, 120.0, 2.0
    frames = []
    for axis in range(3):
        for e in (-0.03, -0.02, -0.01, 0.0, 0.01, 0.02, 0.03):
            strain = np.zeros((3, 3))
            strain[axis, axis] = e
            energy = 3.6**3 * units.GPa * (tension * e + 0.5 * c11 * e**2)
            frames.append(_strained(strain, np.zeros(6), energy=energy))
    least, own = script("mlearn_elastic").lattice_constant(frames, c11, c12)
    assert own == pytest.approx(3.6)
    assert least == pytest.approx(3.6 * (1 - tension / (c11 + 2 * c12)), abs=1e-6)


def _strained(strain, stress_gpa, force=0.0, energy=0.0):
    atoms = bulk("Cu", a=3.6, cubic=True)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    forces = np.full((4, 3), force)
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress_gpa * units.GPa)
    return atoms


def test_columns_of_the_periodic_table(script):
    column = script("representation").column
    found = {z: column(z) for z in (1, 2, 3, 5, 8, 10, 11, 17, 20, 26, 31, 47, 58, 71, 79, 82, 86, 92)}
    assert found == {
        1: "1", 2: "18", 3: "1", 5: "13", 8: "16", 10: "18", 11: "1", 17: "17", 20: "2", 26: "3-12", 31: "13",
        47: "3-12", 58: "f block", 71: "3-12", 79: "3-12", 82: "14", 86: "18", 92: "f block",
    }  # fmt: skip


def test_table_of_the_metals_goes_between_its_marks(script, tmp_path):
    metals = script("metals_and_semiconductors")
    rows = {"Cu": {"a": 3.6, "B": 140.0, "C11": 170.0, "C12": 125.0, "C44": 80.0, "phonon": 7.5}}
    page = tmp_path / "page.md"
    page.write_text(f"before\n{metals.MARKS[0]}\nold\n{metals.MARKS[1]}\nafter\n")
    for _ in range(2):  # twice gives the same
        metals.put_table(page, metals.table(rows))
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert lines[4] == "| Cu | this model | 3.6 | 140 | 170 | 125 | 80 | 7.5 |  |  |"
    assert lines[5].startswith("|  | PBE | 3.633 | 149.9 | 173.8")
    page.write_text("no marks")
    with pytest.raises(SystemExit, match="has no lines"):
        metals.put_table(page, "")


def test_time_of_interrupted_runs_counts(script, tmp_path, monkeypatch):
    """The clock goes on where an earlier run with the same output stopped."""
    science = script("paper.science")
    hooks = []
    monkeypatch.setattr(science.atexit, "register", hooks.append)
    args = argparse.Namespace(output=tmp_path / "out", threads=1, quick=False)
    first = science.prepare(args)
    assert first == pytest.approx(time.time(), abs=5)
    (args.output / "seconds.txt").write_text("1000.0\n")
    second = science.prepare(args)
    assert time.time() - second == pytest.approx(1000, abs=5)
    hooks[-1]()  # importing torch may add its own before
    assert float((args.output / "seconds.txt").read_text()) == pytest.approx(1000, abs=5)


def test_a_stopped_simulation_leaves_its_reason(script, tmp_path, capsys):
    science = script("paper.science")
    args = argparse.Namespace(
        output=tmp_path, quick=False, model="m.safetensors", head=None, calculator="dpa2"
    )
    with pytest.raises(SystemExit):
        science.give_up(args, "water_rdf", "step 7: too hot", 0.0)
    record = json.loads((tmp_path / "water_rdf.json").read_text())
    assert record["verdicts"][0]["passed"] is False and record["status"] == "step 7: too hot"
    assert "NO         the simulation ran to its end: step 7: too hot" in capsys.readouterr().out
