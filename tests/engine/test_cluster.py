"""A structure divided by hand: parts with their ghosts add up to the whole."""

import dataclasses
import itertools

import numpy as np
import pytest
from architectures import ARCHITECTURES, make_potential
from ase import Atoms
from lammps_structures import jittered

from dpa2calc import DPA2Calculator
from dpa2calc.engine.cluster import Cluster, width_of_ghosts
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.validation import DistanceCheck

BULK = jittered((3, 2, 2), seed=1, tilt=0.9)
WIRE = jittered((24, 1, 2), seed=2, pbc=(True, False, False))


def parts(atoms: Atoms, width: float, n_parts: int):
    """Own atoms of each part along x with all images within `width` of its box: (owners, positions, n)."""
    inverse = np.linalg.inv(atoms.cell.array)
    share = atoms.get_scaled_positions()[:, 0] * n_parts // 1
    reach = width * np.linalg.norm(inverse, axis=0)
    spans = [range(-int(r) - 1, int(r) + 2) if p else (0,) for r, p in zip(reach, atoms.pbc)]
    shifts = np.array(list(itertools.product(*spans)))
    places = atoms.positions + shifts[:, None] @ atoms.cell.array  # (n_shifts, n, 3)
    for part in range(n_parts):
        own = np.flatnonzero(share == part)
        distances = np.linalg.norm(places[:, :, None] - atoms.positions[own], axis=-1).min(axis=-1)
        ghost = (distances < width) & ~((shifts == 0).all(axis=1)[:, None] & (share == part))
        image, owner = np.nonzero(ghost)
        owners = np.concatenate([own, owner])
        yield owners, np.concatenate([atoms.positions[own], places[image, owner]]), len(own)


def summed(atoms: Atoms, calculator: DPA2Calculator, width: float, n_parts: int):
    member = calculator._members[0]
    cluster = Cluster(member, skin=0.5, check=DistanceCheck())
    first = member.config.type_map.index(atoms[0].symbol)
    energies, forces, virial = np.zeros(len(atoms)), np.zeros((len(atoms), 3)), np.zeros((3, 3))
    for owners, positions, n in parts(atoms, width, n_parts):
        output = cluster(Atoms(atoms.numbers[owners], positions), n, first)
        energies[owners[:n]] = output.atomic_energies.detach().numpy()
        np.add.at(forces, owners, output.forces.numpy())
        virial += output.virial[0].numpy()
    return energies, forces, virial


@pytest.mark.parametrize("n_parts", [1, 2, 3])
@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("dpa1-l0", True),
        ("deeppot-se", True),
        *((n, False) for n in ARCHITECTURES if n not in ("deeppot-se", "dpa2-nearest")),
    ],
)
def test_parts_add_up(name, compress, n_parts):
    calculator = DPA2Calculator(make_potential(name), dtype="float64", compress=compress)
    atoms = (WIRE if name.startswith("dpa2") else BULK).copy()
    width = width_of_ghosts(calculator._members[0])
    energies, forces, virial = summed(atoms, calculator, width, n_parts)
    atoms.calc = calculator
    np.testing.assert_allclose(energies, atoms.get_potential_energies(), atol=1e-10)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)
    xx, yy, zz, yz, xz, xy = -atoms.get_stress() * atoms.get_volume()
    np.testing.assert_allclose(virial, [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]], atol=1e-9)


def test_a_message_passing_model_needs_the_width_that_it_says():
    calculator = DPA2Calculator(make_potential("dpa2-paper"), dtype="float64")
    assert width_of_ghosts(calculator._members[0]) == pytest.approx(4.2 + 3 * 3.0)
    energies = summed(WIRE, calculator, 4.2 + 3.0, 2)[0]  # atoms 2.3 Å apart: messages go 4 x 2.3 Å at most
    assert abs(energies - calculator.evaluate([WIRE])[0]["energies"]).max() > 1e-8


def test_what_depends_on_the_rest_of_the_structure_is_refused():
    calculator = DPA2Calculator(make_potential("deeppot-se"), dtype="float64", compress=False)
    with pytest.raises(ConfigError, match=r"a Potential: its statistics have a mean"):
        summed(BULK, calculator, 4.2, 2)
    short = make_potential("dpa1-l0")
    descriptor = dataclasses.replace(short.config.descriptor, nsel=5)
    config = dataclasses.replace(short.config, descriptor=descriptor, neighbor_rule="nearest")
    potential = type(short)(config)
    for compress in (True, False):
        calculator = DPA2Calculator(potential, dtype="float64", compress=compress)
        with pytest.raises(StructureError, match=r"reads \(5 within 4.2 Å, the nearest\)"):
            summed(BULK, calculator, 4.2, 2)
