"""Structures with ASE's EMT, and an EMT that counts what it is asked."""

from ase import Atoms
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
