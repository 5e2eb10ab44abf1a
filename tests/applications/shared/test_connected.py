"""Crystals are told from molecules, layers and slabs in a box, by every application of crystals."""

import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.calculators.emt import EMT

from dpa2calc.applications import elastic_constants, equation_of_state, quasi_harmonic, surface_energy
from dpa2calc.applications.shared.connected import check_connected
from dpa2calc.errors import StructureError


class CountingEMT(EMT):
    calls = 0

    def calculate(self, *args, **kwargs):
        type(self).calls += 1
        super().calculate(*args, **kwargs)


@pytest.mark.parametrize(
    "crystal",
    [
        bulk("Cs", "bcc", a=6.16),  # nearest neighbours 5.33 Å apart
        bulk("Xe", "fcc", a=6.2),
        graphene(size=(1, 1, 1), vacuum=3.35 / 2),
        bulk("Cu").repeat((1, 3, 2)),
    ],
)
def test_crystals_are_connected(crystal):
    crystal.pbc = True
    check_connected(crystal, name="this", what="volume")


LAYER = Atoms("Cu", cell=[[2.4, 0, 0], [-1.2, 2.078, 0], [0, 0, 20]], positions=[[0, 0, 10]], pbc=True)


@pytest.mark.parametrize(
    "application", [elastic_constants, equation_of_state, quasi_harmonic, surface_energy]
)
@pytest.mark.parametrize("alone", [LAYER, fcc111("Cu", (1, 1, 3), vacuum=6), molecule("H2O", vacuum=5)])
def test_what_stands_alone_in_a_box_is_refused_before_the_work(application, alone):
    atoms = alone.copy()
    atoms.pbc, atoms.calc, CountingEMT.calls = True, CountingEMT(), 0
    with pytest.raises(
        StructureError, match=f"{application.__name__}: a gap of more than 6 Å .*nothing binds"
    ):
        application(atoms, progress=False)
    assert CountingEMT.calls == 0
