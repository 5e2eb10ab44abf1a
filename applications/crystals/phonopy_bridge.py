"""The bridge to phonopy: primitive cell, displaced supercells, force constants, q-points (private)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from ase import Atoms, units
from ase.build.supercells import lattice_points_in_supercell
from ase.calculators.calculator import BaseCalculator
from ase.spacegroup.symmetrize import refine_symmetry

from dpa2calc.applications.shared.cached import Evaluated, evaluate, hessian_of, hessian_rows
from dpa2calc.applications.shared.ensemble import spread
from dpa2calc.applications.shared.structures import (
    arrays_read,
    image_distance,
    kinds_of,
    quiet_spglib,
    require,
    supercell_matrix,
    symmetry_dataset,
)
from dpa2calc.applications.shared.warned import collected_warnings
from dpa2calc.errors import ConfigError, StructureError

PLANCK_EV_PER_THZ = units._hplanck / units._e * 1e12  # 4.1357e-3 eV
PURPOSE = "phonons"
LIBRARIES = ("phonopy", "seekpath", "spglib")
Supercell: TypeAlias = Sequence[object] | np.ndarray  # three repeats, or three rows of three
JOULE_PER_MOL = units.mol / units.J  # eV per entity -> J/mol
_NO_FORCE = 1e-9  # eV/Å²; frequencies below 1e-3 THz
_MOST_POINTS = 1_000_000  # of a mesh; a band path has a tenth


def require_libraries() -> None:
    """Raise MissingDependencyError, before the work, where phonopy, seekpath or spglib is missing."""
    for name in LIBRARIES:
        require(name, PURPOSE)


def check_sampling(
    crystal: Atoms, mesh: npt.ArrayLike, band_spacing: float = 0.005, temperatures: npt.ArrayLike = (0.0,)
) -> None:
    """Before the work: refuse what cannot be sampled, would fill the memory, or is no element of phonopy's.

    Raises:
        ConfigError: mesh, spacing or temperatures. StructureError: ghost atoms.
    """
    if not crystal.numbers.all():
        raise StructureError(
            f"{crystal.get_chemical_formula()} has ghost atoms (X), which phonopy does not know; take them "
            "out, or give them an element, with a mass of your own by atoms.set_masses(...)"
        )
    widest = np.linalg.norm(crystal.cell.reciprocal().array, axis=1)  # (3,) 1/Å
    numbers = np.asarray(mesh, dtype=float)
    points = np.prod(np.maximum(1.0, numbers * widest) if numbers.ndim == 0 else numbers)
    if not (numbers.shape in ((), (3,)) and (numbers > 0).all() and points <= _MOST_POINTS):
        raise ConfigError(
            f"mesh = {mesh!r} is not allowed; allowed: a length above 0 Å or three whole numbers above 0, "
            f"for at most {_MOST_POINTS} points"
        )
    least = 200.0 * float(widest.max()) / _MOST_POINTS  # a path is about 20 vectors long
    if not least <= band_spacing < np.inf:
        raise ConfigError(f"band_spacing = {band_spacing!r} 1/Å is not allowed; allowed: {least:.2g} or more")
    times = np.asarray(temperatures, dtype=float)
    if times.ndim != 1 or not times.size or not (np.isfinite(times) & (times >= 0)).all():
        raise ConfigError(
            f"temperatures = {temperatures!r} is not allowed; allowed: a list of one or more numbers >= 0 K"
        )


@dataclass(frozen=True, kw_only=True)
class ForceConstants:
    """Force constants of one primitive cell in one supercell, as in `Phonons`, and the Phonopy object.

    `values` are in phonopy's compact form, with the acoustic sum rule enforced; `sum_rule_violation` is the
    largest sum before that, relative to the largest element; `residual_force` was subtracted.
    """

    primitive: Atoms
    supercell_matrix: np.ndarray
    values: np.ndarray
    sum_rule_violation: float
    residual_force: float
    n_displacements: int
    image_distance: float
    phonon: Any  # phonopy.Phonopy


def primitive_cell(atoms: Atoms, symprec: float, calculator: object = None) -> Atoms:
    """Primitive cell in the given orientation, its symmetry made exact within symprec (Å).

    Atoms that differ in mass, or in a charge, a magnetic moment or a parameter that the calculator reads, are
    different ones.
    """
    spglib = require("spglib", PURPOSE)
    symmetry_dataset(atoms, symprec, PURPOSE)  # a clear error before ASE's
    refined = atoms.copy()
    refined.set_constraint()
    read = arrays_read(atoms, calculator)
    with quiet_spglib():
        refine_symmetry(refined, symprec)
        labels, firsts = kinds_of(refined, [*read, "masses"])
        cell = (refined.cell.array, refined.get_scaled_positions(), labels)
        found = spglib.standardize_cell(cell, to_primitive=True, no_idealize=True, symprec=symprec)
    if found is None:
        raise StructureError(f"spglib finds no primitive cell with symprec={symprec}; do atoms overlap?")
    rows = [firsts[label - 1] for label in found[2]]
    primitive = Atoms(
        numbers=atoms.numbers[rows],
        masses=atoms.get_masses()[rows],
        cell=found[0],
        scaled_positions=found[1],
        pbc=True,
        info=dict(atoms.info),  # a calculator may read numbers from it
    )
    return _with_arrays(primitive, atoms, read, rows)


def _with_arrays(atoms: Atoms, source: Atoms, names: Sequence[str], rows: Sequence[int]) -> Atoms:
    """The atoms with arrays of these atoms of another structure."""
    for name in names:
        atoms.set_array(name, source.arrays[name][rows])
    return atoms


def phonopy_object(
    primitive: Atoms, matrix: np.ndarray, values: np.ndarray | None = None, *, symmetry: bool = True
) -> Any:
    """A phonopy.Phonopy, with compact force constants where they are known.

    Its symmetry search takes seconds for some hundred atoms; single q-points do not need it.
    """
    phonopy = require("phonopy", PURPOSE)
    from phonopy.structure.atoms import PhonopyAtoms

    cell = PhonopyAtoms(
        symbols=primitive.get_chemical_symbols(),
        cell=primitive.cell.array,
        scaled_positions=primitive.get_scaled_positions(),
        masses=primitive.get_masses(),
    )
    # phonopy's symmetry does not know what calculators read beside elements
    alike = len(kinds_of(primitive, arrays_read(primitive))[1]) == len(set(primitive.numbers))
    # phonopy writes supercell vectors as columns
    phonon = phonopy.Phonopy(
        cell, supercell_matrix=np.asarray(matrix).T, primitive_matrix="P", is_symmetry=symmetry and alike
    )
    if values is not None:
        phonon.force_constants = values
    return phonon


def force_constants(
    primitive: Atoms, matrix: np.ndarray, calculator: BaseCalculator, *,
    displacement: float | None, folder: str | os.PathLike[str] | None, progress: bool,
) -> ForceConstants:  # fmt: skip
    """Force constants by finite displacements (None: the exact Hessian of the supercell).

    Both signs are displaced where symmetry does not supply the other.
    """
    phonon, structures = _displaced(primitive, matrix, displacement)
    points = evaluate(structures, calculator, what="phonon displacements", folder=folder, progress=progress)
    if displacement is None:
        atoms = np.asarray(phonon.primitive.p2s_map)
        has_hessian = hessian_of(calculator)
        assert has_hessian is not None
        rows = hessian_rows(structures[0], has_hessian, atoms, folder=folder, progress=progress)
        raw = phonon.force_constants = rows.reshape(len(atoms), 3, -1, 3).swapaxes(1, 2).copy()
    else:
        raw = _produced(phonon, points)
    largest = float(np.abs(raw).max())
    if largest < _NO_FORCE:
        raise StructureError(
            f"phonons: no force acts on a displaced atom of {primitive.get_chemical_formula()} (largest "
            f"force constant {largest:.1g} eV/Å²): atoms are beyond the range of {type(calculator).__name__}"
        )
    violation = float(np.abs(raw.sum(axis=1)).max()) / largest
    phonon.symmetrize_force_constants(level=2, show_drift=False)
    return ForceConstants(
        primitive=primitive,
        supercell_matrix=np.asarray(matrix, dtype=int),
        values=np.array(phonon.force_constants, dtype=float),
        sum_rule_violation=violation,
        residual_force=points[0].max_force,
        n_displacements=len(points) - 1,
        image_distance=image_distance(matrix @ primitive.cell.array),
        phonon=phonon,
    )


def run_mesh(phonon: Any, mesh: float | Sequence[int]) -> None:
    """Frequencies on a mesh of q-points, on those that symmetry leaves.

    phonopy's symmetry does not know of masses, so that a crystal with isotopes of one element has all points.
    """
    cell = phonon.primitive
    isotopes = len(set(zip(cell.numbers, cell.masses))) > len(set(cell.numbers))
    phonon.run_mesh(mesh, is_mesh_symmetry=not isotopes)


def gamma_errors(
    primitive: Atoms, calculator: BaseCalculator, *, displacement: float,
    folder: str | os.PathLike[str] | None,
) -> dict[str, float]:  # fmt: skip
    """What the model's doubt makes of the optical frequencies at Γ, THz: "gamma_4" is the lowest.

    All images of an atom move together at Γ, so that displacements in the primitive cell do. {} where the
    calculator knows no doubt, or where there are no optical modes.
    """
    if len(primitive) == 1 or not callable(getattr(calculator, "get_ensemble", None)):
        return {}
    phonon, structures = _displaced(primitive, np.eye(3), displacement)
    points = evaluate(
        structures, calculator, what="phonons at Γ", folder=folder, ensemble=True, progress=False
    )

    def frequencies(of: Sequence[Evaluated]) -> dict[str, float]:
        _produced(phonon, of)
        phonon.symmetrize_force_constants(level=2, show_drift=False)
        phonon.run_qpoints([[0.0, 0.0, 0.0]])
        optical = np.sort(phonon.qpoints.frequencies[0])[3:]
        return {f"gamma_{place}": float(value) for place, value in enumerate(optical, start=4)}

    return spread(frequencies, points)


def _displaced(primitive: Atoms, matrix: np.ndarray, displacement: float | None) -> tuple[Any, list[Atoms]]:
    """A Phonopy object, and the supercell at rest and with each displacement (None: with none)."""
    phonon = phonopy_object(primitive, matrix)
    cells = [phonon.supercell]
    if displacement is not None:
        phonon.generate_displacements(distance=displacement)
        cells += phonon.supercells_with_displacements
    common: dict[str, Any] = {"pbc": True, "info": dict(primitive.info)}
    structures = [Atoms(c.symbols, cell=c.cell, scaled_positions=c.scaled_positions, **common) for c in cells]
    rows = [phonon.supercell.u2u_map[place] for place in phonon.supercell.s2u_map]
    return phonon, [_with_arrays(each, primitive, arrays_read(primitive), rows) for each in structures]


def _produced(phonon: Any, points: Sequence[Evaluated]) -> np.ndarray:
    """Force constants that a Phonopy object makes of the evaluated supercells, without the sum rule."""
    # what is left on the perfect supercell is not a response to the displacement
    phonon.forces = [point.forces - points[0].forces for point in points[1:]]
    phonon.produce_force_constants(calculate_full_force_constants=False, show_drift=False)
    return np.asarray(phonon.force_constants)


def supercell_rows(
    supercell: Supercell | None, crystal: Atoms, primitive: Atoms, min_length: float, symprec: float
) -> np.ndarray:
    """Supercell vectors (3, 3) in units of the crystal's own: the user's (3 repeats, or rows), else chosen.

    Raises:
        ConfigError: the user's are no whole numbers, or span nothing.
    """
    if supercell is None:
        chosen = supercell_matrix(primitive, min_length, symprec)
        return chosen @ primitive.cell.array @ np.linalg.inv(crystal.cell.array)
    matrix = np.asarray(supercell)
    if matrix.shape == (3,):
        matrix = np.diag(matrix)
    whole = matrix.shape == (3, 3) and np.allclose(matrix, np.rint(matrix))
    if not whole or round(np.linalg.det(matrix)) == 0:
        raise ConfigError(f"supercell must be three repeats or a 3x3 matrix of integers, got {supercell!r}")
    return matrix


def in_primitive_vectors(rows: np.ndarray, crystal: Atoms, primitive: Atoms) -> np.ndarray:
    """Whole numbers (3, 3) of a supercell's vectors, from `supercell_rows`; right-handed, for phonopy."""
    combined = np.rint(rows @ crystal.cell.array @ np.linalg.inv(primitive.cell.array)).astype(int)
    return combined if np.linalg.det(combined) > 0 else -combined


def commensurate_points(matrix: np.ndarray) -> np.ndarray:
    """Fractional q-points (n, 3) that fit into the supercell: there frequencies are not interpolated."""
    return np.asarray(lattice_points_in_supercell(np.asarray(matrix).T), dtype=float)


def band_path(
    primitive: Atoms, spacing: float
) -> tuple[np.ndarray, np.ndarray, list[tuple[float, str]], list[int]]:
    """Recommended path of the Hinuma et al. recipe through reciprocal space, by seekpath.

    Returns:
        q-points (n, 3) fractional, distances (n,) 1/Å (without 2 pi), ticks (distance, label), and the index
        at which each connected piece starts.
    """
    seekpath = require("seekpath", "the band path")
    labels, _ = kinds_of(primitive, [*arrays_read(primitive), "masses"])
    structure = (primitive.cell.array, primitive.get_scaled_positions(), labels)
    with collected_warnings():  # deprecations inside seekpath's use of spglib
        path = seekpath.get_path_orig_cell(structure)
    reciprocal = primitive.cell.reciprocal().array  # rows, without 2 pi
    qpoints: list[np.ndarray] = []
    distances: list[np.ndarray] = []
    ticks: list[tuple[float, str]] = []
    starts: list[int] = []
    end, last = 0.0, None
    for first, second in path["path"]:
        begin, finish = (np.asarray(path["point_coords"][name]) for name in (first, second))
        length = float(np.linalg.norm((finish - begin) @ reciprocal))
        n = max(3, int(np.ceil(length / spacing)) + 1)
        fraction = np.linspace(0.0, 1.0, n)[:, None]
        if first == last:
            fraction = fraction[1:]
        else:
            starts.append(sum(map(len, qpoints)))
            before = f"{ticks.pop()[1]}|" if ticks else ""
            ticks.append((end, before + _pretty(first)))
        qpoints.append(begin + fraction * (finish - begin))
        distances.append(end + fraction[:, 0] * length)
        end, last = end + length, second
        ticks.append((end, _pretty(second)))
    return np.concatenate(qpoints), np.concatenate(distances), ticks, starts


def _pretty(label: str) -> str:
    return "Γ" if label == "GAMMA" else label.replace("_", "")


def thermal_properties(
    frequencies: np.ndarray, weights: np.ndarray, temperatures: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Harmonic free energy (eV), entropy (eV/K), heat capacity (eV/K) per cell, each (n_temperatures,).

    F = sum h f / 2 + kT ln(1 - exp(-h f / kT)), averaged over q-points with their weights (n_q,), over the
    modes of `frequencies` (n_q, n_modes) THz, imaginary ones negative, above 1e-3 THz.
    """
    share = np.broadcast_to((weights / weights.sum())[:, None], frequencies.shape)
    kept = frequencies > 1e-3
    energies, share = PLANCK_EV_PER_THZ * frequencies[kept], share[kept]
    values = np.zeros((3, len(temperatures)))
    values[0] = (share * energies).sum() / 2.0
    for (index,) in np.argwhere(temperatures > 0):
        thermal = units.kB * temperatures[index]
        x = np.minimum(energies / thermal, 700.0)
        occupied = np.exp(-x)
        free, mean = np.log1p(-occupied), x * occupied / (1.0 - occupied)
        values[0, index] += thermal * (share * free).sum()
        values[1, index] = units.kB * (share * (mean - free)).sum()
        values[2, index] = units.kB * (share * x * mean / (1.0 - occupied)).sum()
    return values[0], values[1], values[2]
