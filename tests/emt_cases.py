"""Structures, such with ASE's EMT, and an EMT that counts what it is asked."""

from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc100
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms


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
