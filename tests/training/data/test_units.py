"""Units and signs that were mixed up show in a set itself, whatever the model."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.units import Bohr, Hartree

from dpa2calc.training.data.checks.distances import odd_distances
from dpa2calc.training.data.checks.force_misfit import force_misfit
from dpa2calc.training.data.checks.report import check_dataset
from dpa2calc.training.data.dataset import Dataset


@pytest.fixture(scope="module")
def path() -> Dataset:
    """Steps of copper that vibrates, with exact labels of EMT."""
    rng = np.random.default_rng(0)
    start = bulk("Cu", cubic=True)
    move, phase = rng.normal(0.0, 0.15, (4, 3)), rng.uniform(0.0, 6.0, (4, 3))
    frames = []
    for step in range(20):
        atoms = start.copy()
        atoms.positions += move * np.sin(0.4 * step + phase)
        atoms.calc = EMT()
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return Dataset.from_atoms(frames)


def _scaled(data: Dataset, *, energy: float = 1.0, forces: float = 1.0, positions: float = 1.0) -> Dataset:
    return Dataset(
        tuple(
            dataclasses.replace(
                f,
                energy=f.energy * energy,
                forces=f.forces * forces,
                positions=f.positions * positions,
                cell=f.cell * positions,
            )
            for f in data
        )
    )


def test_sound_labels_pass(path):
    assert force_misfit(path) is None and odd_distances(path) is None
    shuffled = path.subset(np.random.default_rng(1).permutation(len(path)))
    assert force_misfit(shuffled) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"forces": -1.0}, "falls by -1 times the work of the forces: gradients of the energy in place of"),
        (
            {"energy": 1 / Hartree, "forces": Bohr / Hartree},
            "1.89 times .* as in Hartree/Bohr",
        ),
        ({"forces": Bohr / Hartree}, "51.4 times .* forces in Hartree/Bohr, not converted"),
        ({"energy": 1 / Hartree}, "energies in Hartree, not converted"),
        ({"energy": units.mol / units.kcal}, "23.1 times .* energies in kcal/mol"),
        ({"energy": 0.25}, "0.25 times .* energies an atom in place of those of the whole frame"),
        ({"energy": 7.0}, "7 times .* is a unit wrong"),
        ({"positions": 1 / Bohr}, "positions in Bohr"),
    ],
)
def test_units_and_signs_are_named(path, changes, said):
    found = force_misfit(_scaled(path, **changes))
    assert found and re.search(said, found), found
    assert found in check_dataset(_scaled(path, **changes)).remarks


def test_frames_far_apart_or_of_other_cells_are_not_judged(path):
    wrong = _scaled(path, forces=-1.0)
    assert force_misfit(wrong.subset(range(0, 20, 5))) is None  # too few, and too far apart
    cells = tuple(dataclasses.replace(f, cell=f.cell * (1 + 0.01 * i)) for i, f in enumerate(wrong))
    assert force_misfit(Dataset(cells)) is None
    assert force_misfit(Dataset(tuple(dataclasses.replace(f, forces=None) for f in wrong))) is None


def test_all_in_atomic_units_shows_in_the_distances(path):
    atomic = _scaled(path, energy=1 / Hartree, forces=Bohr / Hartree, positions=1 / Bohr)
    assert force_misfit(atomic) is None
    assert "not Bohr" in str(odd_distances(atomic)) and odd_distances(atomic) in check_dataset(atomic).remarks
    water = [molecule("H2O") for _ in range(3)]
    assert odd_distances(Dataset.from_atoms(water)) is None
    for atoms in water:
        atoms.positions /= Bohr
    assert "Bohr" in str(odd_distances(Dataset.from_atoms(water)))


def test_lengths_made_shorter_by_a_conversion_show_in_the_distances(path):
    assert "once too often" in str(odd_distances(_scaled(path, positions=Bohr)))
    for atoms in (bulk("NaCl", "rocksalt", a=5.64), bulk("W"), bulk("Cu2S", "fluorite", a=5.5)):
        assert odd_distances(Dataset.from_atoms([atoms] * 3)) is None
        half = atoms.copy()
        half.set_cell(Bohr * atoms.cell, scale_atoms=True)
        assert "once too often" in str(odd_distances(Dataset.from_atoms([half] * 3)))
    dense = bulk("C", a=3.567)  # diamond at 1 TPa, by its volume
    dense.set_cell(0.8 * dense.cell, scale_atoms=True)
    assert odd_distances(Dataset.from_atoms([dense] * 3)) is None


def test_single_atoms_and_noble_gases_have_no_bonds_to_look_for():
    assert odd_distances(Dataset.from_atoms([molecule("O") for _ in range(4)])) is None
    assert odd_distances(Dataset.from_atoms([bulk("Ar", a=5.3) for _ in range(4)])) is None
