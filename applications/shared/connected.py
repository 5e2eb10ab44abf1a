"""Is a periodic structure a crystal, or something that stands alone in a box?"""

from __future__ import annotations

from ase import Atoms
from ase.geometry.dimensionality.rank_determination import RDA

from dpa2calc.errors import StructureError
from dpa2calc.structures.search import check_geometry, find_pairs

_GAP = 6.0  # Å; wider than the distance of nearest neighbours in any crystal (caesium: 5.3)


def unbound(what: str) -> str:
    """The end of a message about atoms that the cell does not hold together."""
    return (
        "nothing binds these atoms through the cell. A molecule, a gas, a layer or a slab in a box has no "
        f"{what} of this kind; give a crystal, or for a molecule set atoms.pbc = False and use relax()"
    )


def dimension(crystal: Atoms) -> int:
    """In how many directions atoms are connected with their images, over gaps of 6 Å or less.

    3 for a crystal, 2 for a layer or slab in a box, 1 for a wire, 0 for a molecule.
    """
    place = check_geometry(crystal.positions, crystal.cell.array, crystal.pbc)
    first, second, shifts = find_pairs(place, _GAP)  # ASE's takes gigabytes in a large box
    graph = RDA(len(crystal))
    for i, j, shift in zip(first, second, shifts):
        graph.insert_bond(int(i), int(j), tuple(map(int, shift)))
    return max(n for n, parts in enumerate(graph.check()) if parts)


def check_connected(crystal: Atoms, *, name: str, what: str) -> None:
    """Raise where a gap of more than 6 Å parts the atoms from their images in some direction.

    Args:
        name: of the calculation. what: the quantity that such atoms do not have.

    Raises:
        StructureError: no part of the atoms is connected in three dimensions.
    """
    if dimension(crystal) < 3:
        raise StructureError(
            f"{name}: a gap of more than {_GAP:g} Å parts the atoms of {crystal.get_chemical_formula()} from "
            f"their periodic images: {unbound(what)}"
        )
