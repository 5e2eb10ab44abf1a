"""How far ions sit off the centre of their cages: the local and the mean polar displacement.

For a perovskite ABO3, "Ti" in its 6 O and "Pb" in its 12 O. The cages are found once, in a reference
structure, and followed by index, so that atoms may vibrate, drift, leave the cell and be wrapped.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from ase import Atoms

from dpa2calc.applications.shared.application import application
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.structures.distances import pair_vectors
from dpa2calc.structures.lattice import cell_volume


@dataclass(frozen=True)
class Cages:
    """Which atoms surround which.

    Args:
        centres: (n_centres,) indices.
        members: (n_centres, n_members) indices of each centre's cage.
        scaled: (n_centres, n_members, 3) vectors from centre to member in the reference, in units of the
            cell vectors.
        numbers: (n_atoms,) of the reference, to recognise frames that do not belong to it.
    """

    centres: np.ndarray
    members: np.ndarray
    scaled: np.ndarray
    numbers: np.ndarray

    def displacements(self, frame: Atoms) -> np.ndarray:
        """Vector of each centre from the mean of its cage, (n_centres, 3) Å.

        Of all images of a member, the one nearest to its place in the reference counts; so atoms may be
        wrapped, and one unit cell is enough.

        Raises:
            StructureError: the frame has other atoms than the reference.
        """
        if not np.array_equal(frame.numbers, self.numbers):
            raise StructureError("the frame has other atoms than the reference in which the cages were found")
        cell = frame.cell.array
        vectors = frame.positions[self.members] - frame.positions[self.centres][:, None]
        scaled = vectors @ np.linalg.inv(cell)  # (n_centres, n_members, 3)
        scaled -= np.round(scaled - self.scaled)
        return -(scaled @ cell).mean(axis=1)


@application
def find_cages(reference: Atoms, centre: str, cage: str, n_members: int) -> Cages:
    """The nearest `n_members` atoms of one element around each atom of another.

    Args:
        reference: a structure in which the cages are plain to see, best the ideal one.
        centre: element inside, or several joined by "+" such as "Ti+Nb+Mg".
        cage: element around.
        n_members: 6 for the B site of a perovskite, 12 for its A site.

    Raises:
        ConfigError: an element is absent, or too few cage atoms.
        StructureError: the shell does not close: the next atom is as near as the last member.
    """
    symbols = np.array(reference.get_chemical_symbols())
    wanted = centre.split("+")
    for element in (*wanted, cage):
        if element not in symbols:
            present = ", ".join(sorted(set(symbols)))
            raise ConfigError(f"no {element} in the structure, which has {present}; name elements it has")
    if cell_volume(reference) is None:
        raise StructureError(
            f"cages need a cell with a volume; its lengths are {reference.cell.lengths().tolist()} Å: put a "
            "cluster into a box: atoms.center(vacuum=5)"
        )
    centres = np.flatnonzero(np.isin(symbols, wanted))
    radius = 1.2 * (reference.get_volume() / len(reference) * (n_members + 6)) ** (1 / 3)
    place = (reference.positions, reference.cell.array, reference.pbc)
    first, second, vectors = pair_vectors(*place, radius, full=True)
    keep = np.isin(first, centres) & (symbols[second] == cage)
    first, second, vectors = first[keep], second[keep], vectors[keep]
    distance = np.linalg.norm(vectors, axis=1)
    members, scaled = [], []
    inverse = np.linalg.inv(reference.cell.array)
    for index in centres:
        mine = np.flatnonzero(first == index)
        mine = mine[np.argsort(distance[mine], kind="stable")]
        _check_shell(reference, int(index), cage, distance[mine], n_members)
        mine = mine[:n_members]
        members.append(second[mine])
        scaled.append(vectors[mine] @ inverse)  # (n_members, 3)
    return Cages(centres, np.array(members), np.array(scaled), reference.numbers.copy())


def _check_shell(reference: Atoms, index: int, cage: str, distances: np.ndarray, n_members: int) -> None:
    name = f"atom {index} ({reference.symbols[index]})"
    if len(distances) < n_members:
        raise ConfigError(
            f"{name} has only {len(distances)} {cage} nearby, but a cage of {n_members} was asked for; "
            "lower the number or give an ideal reference structure"
        )
    last = distances[n_members - 1]
    if len(distances) > n_members and distances[n_members] < 1.05 * last:
        raise StructureError(
            f"the cage of {n_members} {cage} around {name} does not close: the last member is {last:.3f} Å "
            f"away, the next {cage} {distances[n_members]:.3f} Å; give an ideal reference structure"
        )


# (26, 3): <100>, <110>, <111>
_DIRECTIONS = np.array([v for v in itertools.product((-1, 0, 1), repeat=3) if any(v)], dtype=float)


def direction_name(vector: np.ndarray, cell: np.ndarray, threshold: float = 0.0) -> str:
    """The nearest of [100], [110], [111] and their kin in the axes of the cell, such as "[0 0 -1]".

    A vector shorter than the threshold, in Å, gives "none".
    """
    if np.linalg.norm(vector) <= threshold:
        return "none"
    axes = cell / np.linalg.norm(cell, axis=1)[:, None]
    candidates = _DIRECTIONS @ axes  # (26, 3)
    candidates /= np.linalg.norm(candidates, axis=1)[:, None]
    best = _DIRECTIONS[int(np.argmax(candidates @ vector))].astype(int)
    return "[" + " ".join(str(value) for value in best) + "]"
