"""Outputs of VASP and Quantum ESPRESSO: numbers against the raw text, and steps that did not converge."""

import numpy as np
import pytest
from ase.units import Bohr, GPa, Ry
from dft_outputs import KBAR, outcar, pw_output, vasprun

from dpa2calc.errors import DataError
from dpa2calc.training import Dataset
from dpa2calc.training.data.readers.converged import read_for_labels

REACHED, MISSED = "because EDIFF is reached", "EDIFF was not reached (unconverged)"


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_numbers_of_vasp_are_those_of_the_text(tmp_path, name):
    text = outcar([(2, REACHED)] * 2) if name == "OUTCAR" else vasprun([2, 2])
    (tmp_path / name).write_text(text)
    data = Dataset.read(tmp_path / name)
    assert [f.energy for f in data] == pytest.approx([-6.35, -7.35])
    # with selective dynamics too: the forces on fixed atoms are labels as well
    np.testing.assert_allclose(data[1].forces, [[0, 0, 1.5], [0, 0, -1.5]])
    xx, yy, zz, xy, yz, zx = (-0.1 * GPa * float(value) for value in KBAR.split())
    np.testing.assert_allclose(data[0].stress, [[xx, xy, zx], [xy, yy, yz], [zx, yz, zz]], rtol=1e-6)


def test_numbers_of_espresso_are_those_of_the_text(tmp_path):
    (tmp_path / "pw.out").write_text(pw_output([True, True]))
    first, second = Dataset.read(tmp_path / "pw.out")
    assert (first.energy, second.energy) == pytest.approx((-2.3 * Ry, -3.3 * Ry), rel=1e-6)
    assert second.forces[0, 2] == pytest.approx(0.01 * Ry / Bohr, rel=1e-6)
    assert first.stress[0, 0] == pytest.approx(1e-5 * Ry / Bohr**3, rel=1e-6)
    assert first.cell[0, 0] == pytest.approx(10 * Bohr, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("OUTCAR", outcar([(2, REACHED), (4, REACHED), (3, REACHED)])),  # VASP 5 says "reached" in any case
        ("OUTCAR", outcar([(4, REACHED), (4, MISSED), (3, REACHED)], version="6.4.2")),
        ("vasprun.xml", vasprun([3, 4, 2])),
        ("pw.out", pw_output([True, False, True])),
    ],
    ids=["VASP 5", "VASP 6", "vasprun", "espresso"],
)
def test_steps_that_did_not_converge_are_left_out_and_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.warns(UserWarning, match="electrons of frame 1 had not converged.*2 frames are taken"):
        data = Dataset.read(tmp_path / name)
    assert data[1].source == f"{tmp_path / name}, frame 2"
    step = -2 * Ry if name == "pw.out" else -2.0
    assert data[1].energy - data[0].energy == pytest.approx(step, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "text"),
    [("OUTCAR", outcar([(4, REACHED)])), ("vasprun.xml", vasprun([4])), ("pw.out", pw_output([False]))],
    ids=["OUTCAR", "vasprun", "espresso"],
)
def test_an_output_without_a_converged_step_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}: the electrons of frame 0 .* no other frame is there"):
        Dataset.read(tmp_path / name)


@pytest.mark.parametrize(
    ("index", "labelled"), [(":", [True, False, True]), ("1", [False]), ("-1", [True]), ("1:", [False, True])]
)
@pytest.mark.parametrize("name", ["vasprun.xml", "pw.out"])
def test_all_frames_are_read_but_not_the_labels_of_what_did_not_converge(tmp_path, name, index, labelled):
    (tmp_path / name).write_text(vasprun([3, 4, 2]) if name == "vasprun.xml" else pw_output([1, 0, 1]))
    with pytest.warns(UserWarning, match="electrons of frame 1 had not converged"):
        frames = read_for_labels(tmp_path / name, index)
    assert [atoms.calc is not None for atoms in frames] == labelled


def test_without_a_converged_frame_there_are_no_labels(tmp_path):
    (tmp_path / "OUTCAR").write_text(outcar([(4, REACHED)]))
    with pytest.warns(UserWarning, match="these labels are left out"):
        (atoms,) = read_for_labels(tmp_path / "OUTCAR")
    assert atoms.calc is None and len(atoms) == 2
    for index in ("3", "-3", "3:"):
        with pytest.warns(UserWarning), pytest.raises(DataError, match=f"has no frame '{index}'"):
            read_for_labels(tmp_path / "OUTCAR", index)


@pytest.mark.parametrize("name", ["OUTCAR", "vasprun.xml"])
def test_of_a_cut_output_the_whole_steps_are_read(tmp_path, name):
    text = outcar([(2, REACHED)] * 2) if name == "OUTCAR" else vasprun([2, 2])
    (tmp_path / name).write_text(text[: text.rindex("TOTAL-FORCE" if name == "OUTCAR" else "<energy>")])
    assert [f.energy for f in Dataset.read(tmp_path / name)] == pytest.approx([-6.35])


@pytest.mark.parametrize(
    ("program", "line"),
    [("CP2K", " CP2K| version string: CP2K version 2025.1"), ("ABACUS", " Atomic-orbital Based Ab-initio ")],
)
def test_outputs_that_ase_does_not_read_are_named_with_the_way_out(tmp_path, program, line):
    (tmp_path / "run.log").write_text(f"\n\n{line}\n\n" + "text\n" * 20)
    with pytest.raises(DataError, match=f"output of {program}, which ASE does not read; .*dpdata"):
        Dataset.read(tmp_path / "run.log")
