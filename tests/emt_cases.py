"""Structures, such with ASE's EMT, and an EMT that counts what it is asked.

To import this gives EMT the neighbours of matscipy: ASE's own list takes most of its time in a small cell.
"""

from functools import partial

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100
from ase.calculators import emt
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.neighborlist import NeighborList, PrimitiveNeighborList
from matscipy.neighbours import neighbour_list


class QuickList(PrimitiveNeighborList):
    """The same pairs, kept for the same steps."""

    def build(self, pbc, cell, coordinates):
        self.pbc, self.cell, self.coordinates = pbc.copy(), np.array(cell), coordinates.copy()
        scaled = coordinates @ np.linalg.inv(self.cell)  # matscipy leaves out what is outside of a box
        low = np.where(pbc, 0.0, scaled.min(axis=0) - 0.01)
        size = np.where(pbc, 1.0, scaled.max(axis=0) + 0.01 - low)
        box = {"cell": self.cell * size[:, None], "cell_origin": low @ self.cell, "pbc": pbc}
        reach = 2 * float(self.cutoffs.max())
        first, second, shifts = neighbour_list("ijS", positions=coordinates, cutoff=reach, **box)
        ends = np.searchsorted(first, np.arange(1, len(coordinates)))
        self.neighbors, self.displacements = np.split(second, ends), np.split(shifts, ends)
        self.nupdates += 1


emt.NeighborList = partial(NeighborList, primitive=QuickList)


class CountingEMT(EMT):
    """`calls`: its evaluations."""

    calls = 0

    def calculate(self, *args, **kwargs):
        self.calls += 1
        super().calculate(*args, **kwargs)


def with_emt(atoms: Atoms) -> Atoms:
    """The same atoms, with a new EMT."""
    atoms.calc = EMT()
    return atoms


def metals(n: int) -> list[Atoms]:
    """Rattled fcc cells of 4 atoms, up to seven metals in turn."""
    made = []
    for number in range(n):
        made.append(bulk(("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")[number % 7], cubic=True))
        made[-1].rattle(0.05, seed=number)
    return made


def rattled(atoms: Atoms, n: int, size: float) -> list[Atoms]:
    """Copies with displacements of so many Å, each of a seed of its own."""
    made = [atoms.copy() for _ in range(n)]
    for seed, copy in enumerate(made):
        copy.rattle(size, seed=seed)
    return made


def adatom_hop():
    """Cu on Cu(100) from one hollow site to the next; the lower layer is held."""
    slab = fcc100("Cu", (2, 2, 2), vacuum=7.0)
    slab.pbc = True
    slab.set_constraint(FixAtoms(mask=slab.positions[:, 2] < slab.positions[:, 2].mean()))
    initial, final = slab.copy(), slab.copy()
    add_adsorbate(initial, "Cu", 1.7, "hollow")
    add_adsorbate(final, "Cu", 1.7, "hollow", offset=(1, 0))
    initial.calc = EMT()
    return initial, final
