"""Labels made elsewhere: inputs of other programs, and results in any order of atoms."""

import shutil

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc100, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from dft_outputs import pw_output
from learning_cases import SMALL, learn

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.identity import text_digest
from dpa2calc.structures.attached import bare
from dpa2calc.training import LabelQueue
from dpa2calc.training.data.readers.frame_file import labelled, read_frames, write_frames
from dpa2calc.training.learning.labels import LabelStore, Waiting, structure_key

PSEUDOS = {"Na": "Na.upf", "Cl": "Cl.upf"}
pytestmark = pytest.mark.filterwarnings("ignore:atom .* is far from what head")


def calculate(queue):
    """What a user does: a result beside each frame that has none."""
    todo = [p.parent for p in queue.glob("*/frame.extxyz") if not (p.parent / "result.extxyz").exists()]
    for place in todo:
        atoms = labelled(ase.io.read(place / "frame.extxyz"), EMT())
        ase.io.write(place / "result.extxyz", atoms)
    return len(todo)


def test_a_run_waits_for_its_labels_and_ends_as_with_a_calculator(tmp_path):
    queue, folder = tmp_path / "queue", tmp_path / "run"
    counts = []
    for _ in range(6):
        result = learn(folder, str(queue), **SMALL)
        if result.reason != "waiting":
            break
        assert f"frames wait for labels in {queue}" in result.why and "model:" not in result.summary()
        counts.append(calculate(queue))
    assert counts == [4, 2, 2] and result.reason == "budget" and result.spent == 8
    direct = learn(tmp_path / "direct", EMT(), **SMALL)
    # labels in text have eight decimals, which training and dynamics carry on
    for mine, other in zip(result.rounds, direct.rounds):
        assert (mine.trained_on, mine.added, mine.spent) == (other.trained_on, other.added, other.spent)
        assert mine.errors.force_rmse == pytest.approx(other.errors.force_rmse, rel=1e-3)
    shutil.rmtree(queue)  # labels are kept in the run's folder
    assert learn(folder, str(queue), **SMALL).rounds == result.rounds


def store(folder, queue):
    return LabelStore(folder / "labels", queue)


def waiting(labels, atoms, match=None):
    """The place of a frame that has no label yet."""
    with pytest.raises(Waiting, match=match):
        labels.label([atoms], progress=False)
    (place,) = labels.source.folder.iterdir()
    return place


def frames():
    found = [bulk("NaCl", "rocksalt", a=5.6, cubic=True) for _ in range(2)]
    for k, atoms in enumerate(found):
        atoms.rattle(0.05, seed=k)
    return found


def test_vasp_sorts_atoms_and_results_are_put_back(tmp_path):
    (tmp_path / "settings").mkdir()
    (tmp_path / "settings/INCAR").write_text("ENCUT = 500\n")
    queue = LabelQueue(tmp_path / "queue", "vasp", template=tmp_path / "settings")
    wanted = frames()
    with pytest.raises(Waiting, match="2 of 2 frames wait for labels"):
        store(tmp_path, queue).label(wanted, progress=False)
    for place in (tmp_path / "queue").iterdir():
        assert (place / "INCAR").read_text() == "ENCUT = 500\n"
        made = ase.io.read(place / "POSCAR")
        assert str(made.symbols) == "Cl4Na4"
        forces = np.arange(24.0).reshape(8, 3) + made.positions  # of the order of the POSCAR
        made.calc = SinglePointCalculator(made, energy=-3.0, forces=forces)
        ase.io.write(place / "result.extxyz", made)
    got = store(tmp_path, queue).label(wanted, progress=False)
    for atoms, frame in zip(wanted, got):
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-7)
        order = np.argsort(atoms.symbols, kind="stable")
        expected = np.arange(24.0).reshape(8, 3) + atoms.positions[order]
        np.testing.assert_allclose(frame.get_forces()[order], expected, atol=1e-6)
        with pytest.raises(PropertyNotImplementedError):
            frame.get_stress()


SBATCH = "#SBATCH -t {}\n{}"


@pytest.mark.parametrize(
    ("program", "file", "before", "after", "same"),
    [
        (
            "vasp",
            "job.sh",
            SBATCH.format(1, "mpirun -n 8 vasp\n"),
            SBATCH.format(9, "mpirun -n 16 vasp\n"),
            True,
        ),
        ("vasp", "job", "#!/bin/bash\nvasp\n", "#!/usr/bin/env bash\nmodule load vasp\nvasp\n", True),
        ("vasp", "job.sh", "cat > INCAR << EOF\nENCUT=4\nEOF\n", "cat > INCAR << EOF\nENCUT=5\nEOF\n", False),
        ("vasp", "INCAR", "ENCUT = 500\n", "ENCUT = 520\n", False),
        ("extxyz", "job.slurm", SBATCH.format(1, "\norca in\n"), SBATCH.format(2, "orca in\n"), True),
        ("extxyz", "job.slurm", SBATCH.format(1, "orca in\n"), SBATCH.format(1, "orca other\n"), False),
        ("extxyz", "run.com", "# B3LYP/6-31G\n", "# PBE/6-31G\n", False),
        ("extxyz", "run.py", "#!/usr/bin/python\n# one\n", "#!/usr/bin/python\n# two\n", False),
    ],
)
def test_another_job_script_makes_no_other_labels(tmp_path, program, file, before, after, same):
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "KPOINTS").write_text("Gamma\n")
    queue, atoms = LabelQueue(tmp_path / "queue", program, template=settings), frames()[0]
    (settings / file).write_text(before)
    place = waiting(store(tmp_path, queue), atoms)
    done = atoms.copy()
    done.calc = SinglePointCalculator(done, energy=-3.0, forces=np.zeros((8, 3)))
    ase.io.write(place / "result.extxyz", done)
    store(tmp_path, queue).label([atoms], progress=False)
    earlier = queue.earlier_identity()
    (settings / file).write_text(after)
    if same:
        assert store(tmp_path, queue).label([atoms], progress=False)[0].get_potential_energy() == -3.0
    else:
        with pytest.raises(DataError, match="has a label of another source"):
            store(tmp_path, queue).label([atoms], progress=False)
    # labels of earlier versions, which took the whole script, are known by the script that made them
    (settings / file).write_text(before)
    (path,) = (tmp_path / "labels").glob("*.extxyz")
    path.write_text(path.read_text().replace(text_digest(queue.identity()), text_digest(earlier)))
    assert len(store(tmp_path, queue).label([atoms], progress=False)) == 1


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_inputs_of_espresso_and_cp2k(tmp_path):
    (atoms, *_) = frames()
    options = {"pseudopotentials": PSEUDOS, "input_data": {"ecutwfc": 40}, "kpts": (2, 2, 2)}
    queue = LabelQueue(tmp_path / "qe", "espresso", options=options)
    path = waiting(store(tmp_path, queue), atoms) / "espresso.pwi"
    text = path.read_text()
    assert "ecutwfc" in text and "tprnfor          = .true." in text
    np.testing.assert_allclose(ase.io.read(path).positions, atoms.positions, atol=1e-6)

    (tmp_path / "cp2k").mkdir()
    (tmp_path / "cp2k/cp2k.inp").write_text(
        "&FORCE_EVAL\n METHOD QS\n &SUBSYS\n  &KIND Na\n   BASIS_SET DZVP\n  &END KIND\n &END SUBSYS\n"
        "&END FORCE_EVAL\n"
    )
    queue = LabelQueue(tmp_path / "c", "cp2k", template=tmp_path / "cp2k")
    path = waiting(store(tmp_path, queue), atoms) / "cp2k.inp"
    lines = [line.split() for line in path.read_text().splitlines()]
    rows = [line[1:] for line in lines if line[0] in ("Na", "Cl")]
    np.testing.assert_allclose(np.array(rows, dtype=float), atoms.positions, atol=1e-9)
    assert ["PERIODIC", "XYZ"] in lines and ["BASIS_SET", "DZVP"] in lines


def test_results_of_another_structure_and_unfinished_ones(tmp_path):
    queue, (atoms, other) = LabelQueue(tmp_path / "q"), frames()
    labels = store(tmp_path, queue)
    place = waiting(labels, atoms)
    (place / "job.out").write_text("iteration 1\n")
    waiting(labels, atoms, r"job.out has no frame")
    other.calc = SinglePointCalculator(other, energy=0.0, forces=np.zeros((8, 3)))
    ase.io.write(place / "result.extxyz", other)
    with pytest.raises(DataError, match=r"is of another structure .* without relaxing it"):
        labels.label([atoms], progress=False)
    (place / "skip").touch()
    assert labels.label([atoms], progress=False) == [] and labels.spent == 0


def test_a_slab_in_a_cell_of_other_sides_is_another_structure(tmp_path):
    slab = fcc100("Cu", (2, 2, 2), vacuum=5.0)
    slab.pbc = (True, True, False)
    labels = store(tmp_path, LabelQueue(tmp_path / "q"))
    place = waiting(labels, slab)
    made = slab.copy()
    made.calc = SinglePointCalculator(made, energy=-3.0, forces=np.ones((8, 3)))
    for sides, height in ((1.02, 1.0), (1.0, 1.5)):  # relaxed; another vacuum does not matter
        made.set_cell(slab.cell.array * np.array([[sides], [sides], [height]]))
        made.calc.atoms = made.copy()
        ase.io.write(place / "result.extxyz", made)
        if sides > 1.0:
            with pytest.raises(DataError, match="is of another structure"):
                labels.label([slab], progress=False)
    (got,) = labels.label([slab], progress=False)
    assert got.get_potential_energy() == -3.0 and np.allclose(got.cell.array, slab.cell.array)


def test_forces_on_fixed_atoms_are_labels_too(tmp_path):
    (atoms, *_) = frames()
    labels = store(tmp_path, LabelQueue(tmp_path / "q"))
    place = waiting(labels, atoms)
    made = ase.io.read(place / "frame.extxyz")
    made.set_constraint(FixAtoms([0, 1]))
    made.calc = SinglePointCalculator(made, energy=-3.0, forces=np.ones((8, 3)))
    ase.io.write(place / "result.extxyz", made)  # with the column move_mask
    assert ase.io.read(place / "result.extxyz").constraints
    (got,) = labels.label([atoms], progress=False)
    np.testing.assert_array_equal(got.get_forces(), np.ones((8, 3)))


def test_a_molecule_that_the_program_puts_back_into_its_box_is_the_same(tmp_path):
    atoms = molecule("H2O", cell=[8.0, 9.0, 10.0])  # atoms on both sides of the origin
    assert atoms.positions.min() < 0
    labels = store(tmp_path, LabelQueue(tmp_path / "q", "vasp"))
    place = waiting(labels, atoms)
    made = ase.io.read(place / "POSCAR")
    made.wrap()
    made.calc = SinglePointCalculator(made, energy=-3.0, forces=made.numbers[:, None] * np.ones(3))
    ase.io.write(place / "result.extxyz", made)
    (got,) = labels.label([atoms], progress=False)
    np.testing.assert_allclose(got.get_forces()[:, 0], atoms.numbers)
    np.testing.assert_allclose(got.positions, atoms.positions, atol=1e-7)


def test_results_that_did_not_converge_are_waited_for(tmp_path):
    (atoms, *_) = frames()
    labels = store(tmp_path, LabelQueue(tmp_path / "q", "espresso", options={"pseudopotentials": PSEUDOS}))
    place = waiting(labels, atoms)
    (place / "espresso.pwo").write_text(pw_output([False]))
    (place / "slurm-17.out").write_text("the job has ended\n")
    waiting(labels, atoms, r"espresso.pwo: the electrons of frame 0 had not converged")
    (place / "espresso.pwo").write_text(pw_output([True]).split("     Forces acting")[0])  # still running
    waiting(labels, atoms, r"espresso.pwo has no forces \(yet\)")


def test_wrong_queues_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"program = 'gauss' is not allowed; allowed: extxyz, vasp"):
        LabelQueue(tmp_path, "gauss")
    with pytest.raises(ConfigError, match="is no folder; name the folder of the settings"):
        LabelQueue(tmp_path, template=tmp_path / "none")
    with pytest.raises(ConfigError, match="needs a template with a file"):
        LabelQueue(tmp_path, "cp2k")
    with pytest.raises(ConfigError, match="needs a cell, but OH2 has none"):
        store(tmp_path, LabelQueue(tmp_path / "q", "vasp")).label([molecule("H2O")], progress=False)


def test_a_structure_has_one_name_before_and_after_it_was_written(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(5):
        atoms = Atoms("H100", rng.uniform(-9, 9, (100, 3)), cell=rng.uniform(5, 20, 3), pbc=True)
        for empty in (None, "", [], np.zeros(0)):
            atoms.info.update(charge=empty, spin=empty, fparam=empty)
            write_frames(tmp_path / "a.extxyz", [bare(atoms)])
            (again,) = read_frames(tmp_path / "a.extxyz")
            assert not {"charge", "spin", "fparam"} & set(again.info)
            assert structure_key(again) == structure_key(atoms)
    atoms.info.update(charge=0)
    assert structure_key(again) != structure_key(atoms)
