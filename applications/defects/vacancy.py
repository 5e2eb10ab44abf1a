"""Vacancy formation energy, with its convergence over the size of the supercell, and vacancy hops."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms
from ase.build import make_supercell
from ase.geometry import get_distances

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated
from dpa2calc.applications.shared.connected import dimension
from dpa2calc.applications.shared.ensemble import WithModelErrors, spread
from dpa2calc.applications.shared.structures import (
    WithStructure,
    checked_copy,
    fields_of,
    image_distance,
    positive,
    repeats_for_length,
    supercell_matrix,
    symmetry_dataset,
)
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.figures import Axes, axes_for

from .cut import as_cut_and_relaxed, bulk_of


@dataclass(frozen=True, kw_only=True)
class VacancyFormation(WithModelErrors, WithStructure):
    """Formation energy of one kind of vacancy.

    Fields: `element` removed from `site` (atom number in the given crystal); `energy` eV at infinite size
    (extrapolated as 1/N when there are two or more supercells) and `error` eV: its difference from the
    largest supercell (NaN for one supercell); `energies` and `unrelaxed_energies` (n,) eV for supercells of
    `n_atoms` (n,) atoms before one was removed and `image_distances` (n,) Å; `chemical_potential` eV of the
    atom removed; `numbers`, `positions`, `cell` and what is `attached` of the largest relaxed supercell.
    """

    formula: str
    element: str
    site: int
    energy: float
    error: float
    energies: np.ndarray
    unrelaxed_energies: np.ndarray
    n_atoms: np.ndarray
    image_distances: np.ndarray
    chemical_potential: float
    numbers: np.ndarray
    positions: np.ndarray
    cell: np.ndarray

    def summary(self) -> str:
        """Formation energy with error and its convergence."""
        lines = [
            f"Vacancy of {self.element} (site {self.site}) in {self.formula}",
            f"  formation energy  {self.told('energy', self.energy, self.error, 'eV', 4)}",
            "   atoms  images Å  relaxed eV  unrelaxed eV",
        ]
        for row in zip(self.n_atoms, self.image_distances, self.energies, self.unrelaxed_energies):
            lines.append("  {:6d}  {:8.2f}  {:10.4f}  {:12.4f}".format(*row))
        lines.append(f"  chemical potential of the atom removed: {self.chemical_potential:.6f} eV")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Formation energy against 1/N with the extrapolation; returns the axes."""
        axes = axes_for(ax)
        axes.plot(1.0 / self.n_atoms, self.energies, "o", label="relaxed")
        axes.plot(1.0 / self.n_atoms, self.unrelaxed_energies, "s", label="unrelaxed")
        if len(self.n_atoms) > 1:
            slope, limit = np.polyfit(1.0 / self.n_atoms, self.energies, 1)
            x = np.array([0.0, 1.0 / self.n_atoms.min()])
            axes.plot(x, limit + slope * x, "--", color="grey", label="to infinite size")
        axes.set(xlabel="1 / number of atoms", ylabel="formation energy (eV)")
        axes.set_title(f"{self.element} vacancy in {self.formula}: {self.energy:.3f} eV")
        axes.legend()
        return axes


@application
def vacancy_formation_energy(
    atoms: Atoms,
    *,
    site: int = 0,
    min_lengths: Sequence[float] = (8.0, 11.0, 14.0),
    chemical_potential: Mapping[str, float] | None = None,
    relax: Literal["fixed", "positions"] = "positions",
    relax_bulk: bool = True,
    rattle: float = 0.02,
    seed: int = 0,
    fmax: float = 1e-3,
    max_steps: int = 1000,
    symprec: float = 1e-3,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> VacancyFormation:
    """E_f = E(N - 1) + mu - E(N) at the crystal's own volume, in several supercells.

    In an elemental crystal mu is the energy per atom. The elastic interaction of periodic images falls as
    1/N, so the energies are extrapolated in 1/N. See `inequivalent_sites` for the sites a crystal has.

    Args:
        atoms: perfect crystal (any cell) with a calculator; not changed.
        site: number of the atom in `atoms` that is taken out.
        min_lengths: smallest distances (Å) of opposite faces of the supercells.
        chemical_potential: eV by element; needed for a compound, where it is a choice (rich or poor
            conditions), and for a slab.
        relax: the "positions" around the vacancy relax, or stay "fixed".
        relax_bulk: relax positions and cell of the perfect crystal first (needs stress).
        rattle: random displacements (Å, standard deviation) before relaxing, so that a symmetric saddle point
            is not taken for the minimum; 0 for none.
        seed: of those displacements.
        fmax: convergence of the relaxation, eV/Å.
        max_steps: give up a relaxation after so many steps.
        symprec: distance tolerance of symmetry, Å.
        folder: finished supercells are kept here, and the work resumes from them.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: no such site, or a compound without chemical_potential of the element.
        StructureError: no crystal, a slab without chemical_potential, or a relaxation that does not converge.
    """
    crystal, calculator = checked_copy(atoms, what="vacancy_formation_energy")
    element = _checked_site(crystal, site, chemical_potential)
    if not min_lengths or min(min_lengths) <= 0 or rattle < 0:
        raise ConfigError(
            f"min_lengths must be lengths in Å and rattle >= 0, got {list(min_lengths)} and {rattle}"
        )
    positive("fmax", fmax)
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be a whole number from 0 on")
    for length in min_lengths:  # before the work, not after
        repeats_for_length(crystal.cell.array, length)
    if chemical_potential is None:
        _check_own_potential(crystal, element, symprec, calculator)
    name, motion = "vacancy_formation_energy", Relaxation(fmax=fmax, max_steps=max_steps)
    bulk = bulk_of(crystal, calculator, relax_bulk, motion, name, folder)
    per_atom = bulk.energy / len(crystal)
    potential = per_atom if chemical_potential is None else float(chemical_potential[element])
    perfect = _supercells(bulk.atoms, min_lengths, symprec)
    defects = [without_atom(cell, bulk.atoms.positions[site]) for cell in perfect]
    rigid, relaxed = as_cut_and_relaxed(
        defects, calculator, None if relax == "fixed" else motion, rattle=rattle, seed=seed, what=name,
        folder=folder, progress=progress,
    )  # fmt: skip
    n_atoms = np.array([len(cell) for cell in perfect])
    own = None if chemical_potential is None else potential
    energies, unrelaxed = (_formation([bulk, *points], n_atoms, own) for points in (relaxed, rigid))
    limit = _limit(n_atoms, energies)
    return VacancyFormation(
        formula=bulk.atoms.get_chemical_formula(empirical=True),
        element=element,
        site=site,
        energy=limit,
        error=abs(limit - float(energies[-1])) if len(n_atoms) > 1 else float("nan"),
        energies=energies,
        unrelaxed_energies=unrelaxed,
        n_atoms=n_atoms,
        image_distances=np.array([image_distance(cell.cell.array) for cell in perfect]),
        chemical_potential=potential,
        **fields_of(relaxed[-1].atoms, "numbers", "positions", "cell"),
        model_errors=spread(
            lambda of: {"energy": _limit(n_atoms, _formation(of, n_atoms, own))}, [bulk, *relaxed]
        ),
    )


def _formation(points: Sequence[Evaluated], n_atoms: np.ndarray, potential: float | None) -> np.ndarray:
    """Formation energies (n,) eV from the bulk and the defects, the bulk's own chemical potential if None."""
    bulk, defects = points[0], points[1:]
    # the perfect supercell's energy is the bulk's, atom by atom
    per_atom = bulk.energy / len(bulk.atoms)
    own = per_atom if potential is None else potential
    return np.array([point.energy for point in defects]) + own - n_atoms * per_atom


def _limit(n_atoms: np.ndarray, energies: np.ndarray) -> float:
    """At infinite size, where there are two sizes or more."""
    return float(np.polyfit(1.0 / n_atoms, energies, 1)[1] if len(n_atoms) > 1 else energies[-1])


def inequivalent_sites(atoms: Atoms, *, symprec: float = 1e-3) -> list[int]:
    """One atom number for each kind of site that symmetry does not map on another."""
    data = symmetry_dataset(atoms, symprec, "inequivalent_sites", atoms.calc)
    return sorted({int(i) for i in data.equivalent_atoms})


@application
def vacancy_hop(
    atoms: Atoms, *, min_length: float = 10.0, neighbour: int = 0, symprec: float = 1e-3
) -> tuple[Atoms, Atoms]:
    """The two ends of a vacancy hop in a supercell, for `nudged_elastic_band`: atom 0's site is empty, or a
    nearest neighbour of the same element has moved into it.

    Args:
        atoms: perfect relaxed crystal; its calculator (if any) is put on the first end.
        min_length: smallest distance of opposite faces of the supercell, Å.
        neighbour: which of the nearest sites of the same element, by distance (0 the nearest).
        symprec: distance tolerance of symmetry, Å.
    """
    crystal = atoms.copy()
    crystal.set_constraint()
    (perfect,) = _supercells(crystal, [min_length], symprec)
    hole = crystal.positions[0]
    initial = without_atom(perfect, hole)
    same = np.flatnonzero(initial.numbers == crystal.numbers[0])
    distances = _distances(hole, initial)[same]
    if not 0 <= neighbour < len(same):
        raise ConfigError(f"neighbour must be 0 to {len(same) - 1}, got {neighbour}")
    mover = int(same[np.argsort(distances, kind="stable")[neighbour]])
    final = initial.copy()
    final.positions[mover] = hole
    initial.calc = atoms.calc
    return initial, final


def without_atom(supercell: Atoms, position: np.ndarray) -> Atoms:
    """The supercell with the atom at a position (Å, any periodic image) taken out."""
    defect = supercell.copy()
    del defect[int(_distances(position, supercell).argmin())]
    return defect


def _distances(position: np.ndarray, atoms: Atoms) -> np.ndarray:
    return get_distances(position[None], atoms.positions, cell=atoms.cell, pbc=True)[1][0]


def _checked_site(crystal: Atoms, site: int, potentials: Mapping[str, float] | None) -> str:
    if not 0 <= site < len(crystal):
        raise ConfigError(f"site must be an atom number from 0 to {len(crystal) - 1}, got {site}")
    element = str(crystal.symbols[site])
    if potentials is None and len(set(crystal.numbers)) > 1:
        raise ConfigError(
            f"{crystal.get_chemical_formula()} is a compound: the energy of a {element} vacancy depends on "
            f"where the atom goes; give chemical_potential={{'{element}': eV of one atom in its reservoir}}"
        )
    if potentials is not None and element not in potentials:
        raise ConfigError(f"chemical_potential has no entry for {element}, only for {sorted(potentials)}")
    return element


def _check_own_potential(crystal: Atoms, element: str, symprec: float, calculator: object) -> None:
    """Raise where the mean energy of an atom is not that of an atom in its bulk: in a slab or a molecule."""
    if (n := dimension(crystal)) == 3:
        return
    data = symmetry_dataset(crystal, symprec, "vacancy_formation_energy", calculator)
    if n == 2 and len(set(data.equivalent_atoms.tolist())) == 1:  # a layer such as graphene is its own bulk
        return
    raise StructureError(
        "vacancy_formation_energy: a gap of more than 6 Å parts the atoms of "
        f"{crystal.get_chemical_formula()} from their periodic images, as those of a slab, a wire or a "
        "molecule in a box, where the mean energy of an atom is not that of the bulk; give "
        f"chemical_potential={{'{element}': eV of one atom in the bulk}}"
    )


def _supercells(crystal: Atoms, min_lengths: Sequence[float], symprec: float) -> list[Atoms]:
    """Perfect supercells, smallest first, each size once."""
    matrices: dict[int, np.ndarray] = {}
    for length in sorted(min_lengths):
        matrix = supercell_matrix(crystal, length, symprec)
        matrices.setdefault(abs(round(np.linalg.det(matrix))), matrix)
    cells = [make_supercell(crystal, matrix) for matrix in matrices.values()]
    for cell in cells:
        cell.info = dict(crystal.info)  # a calculator may read numbers from it
    return cells
