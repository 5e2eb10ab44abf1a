"""Structures, such with ASE's EMT, and an EMT that counts what it is asked."""

from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT


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
