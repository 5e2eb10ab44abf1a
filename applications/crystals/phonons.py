"""Phonons of a crystal: bands, density of states, thermal properties, stability."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated, evaluate, hessian_of
from dpa2calc.applications.shared.structures import (
    GPA,
    checked_copy,
    fields_of,
    need_stress,
    offers_stress,
    positive,
)
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.results import library_versions

from . import phonopy_bridge as _phonopy
from .phonon_result import Phonons


@application
def phonons(
    atoms: Atoms,
    *,
    min_length: float = 12.0,
    supercell: _phonopy.Supercell | None = None,
    method: Literal["displacements", "hessian"] = "displacements",
    displacement: float = 0.01,
    relax: Literal["fixed", "positions", "cell"] = "fixed",
    fmax: float = 1e-4,
    max_steps: int = 500,
    temperatures: Sequence[float] | np.ndarray | None = None,
    mesh: float | Sequence[int] = 60.0,
    band_spacing: float = 0.005,
    imaginary_tolerance: float = 0.05,
    symprec: float = 1e-3,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Phonons:
    """Harmonic phonons of a relaxed crystal.

    Args:
        atoms: crystal with a calculator, primitive or not, relaxed; not changed. Use a calculator in float64.
        min_length: smallest distance (Å) of opposite faces of the supercell that is chosen (repeats of the
            conventional cell). It should exceed twice the range of the forces: check `phonon_convergence`.
        supercell: your own choice instead: three repeats or a 3x3 matrix (rows) of the given cell.
        method: "displacements" uses the symmetry, and is right to second order in the displacement; "hessian"
            is exact, with a calculator that has Hessians (DPA2Calculator): three rows for each atom of the
            primitive cell, whatever the symmetry.
        displacement: length of the displacements, Å; "hessian" has none.
        relax: "fixed" refuses a crystal with forces above fmax; "positions" or "cell" relaxes first.
        fmax: largest force allowed, eV/Å.
        max_steps: give up a relaxation after so many steps.
        temperatures: K, default 0 to 1000 in steps of 10 and 298.15.
        mesh: q-point mesh of density of states and thermal properties: a length in Å (as phonopy), or
            three numbers.
        band_spacing: distance of q-points along the path, 1/Å.
        imaginary_tolerance: THz by which a mode may be below zero before it is called imaginary.
        symprec: distance tolerance (Å) within which the symmetry is made exact.
        folder: forces of finished displacements are kept here, and the work resumes from them.
        progress: show a progress bar on stderr.

    Raises:
        StructureError: no crystal, or forces above fmax with relax="fixed".
        ConfigError: numbers that are not allowed; method="hessian" and a calculator without one.
        MissingDependencyError: phonopy, seekpath or spglib is not installed.

    No splitting of longitudinal and transverse optical modes is added: a potential carries no Born charges.
    """
    crystal, calculator = checked_copy(atoms, what="phonons", masses=True)
    _phonopy.require_libraries()
    _check(calculator, method, min_length=min_length, displacement=displacement, fmax=fmax)
    if temperatures is None:
        temperatures = np.unique([*np.arange(0.0, 1001.0, 10.0), 298.15])
    _phonopy.check_sampling(crystal, mesh, band_spacing, temperatures)
    limits = Relaxation(
        fmax=fmax, free="cell" if relax == "cell" else "positions", max_steps=max_steps, symmetry=True,
        symprec=symprec,
    )  # fmt: skip
    rest, max_stress = _relaxed(crystal, calculator, relax, limits, folder)
    crystal = rest.atoms
    primitive = _phonopy.primitive_cell(crystal, symprec, calculator)
    rows = _phonopy.supercell_rows(supercell, crystal, primitive, min_length, symprec)
    matrix = _phonopy.in_primitive_vectors(rows, crystal, primitive)
    constants = _phonopy.force_constants(
        primitive, matrix, calculator, displacement=None if method == "hessian" else displacement,
        folder=folder, progress=progress,
    )  # fmt: skip
    _warn_of_doubts(constants, supercell is not None, limits)
    fields = _bands(constants, band_spacing) | _densities(constants, mesh)
    fields |= _thermal(fields, np.asarray(temperatures, dtype=float), len(primitive))
    fields |= _lowest(fields, imaginary_tolerance)
    fields |= fields_of(primitive, "numbers", "masses", "cell", "scaled_positions")
    return Phonons(
        provenance=library_versions(*_phonopy.LIBRARIES),
        model_errors=_phonopy.gamma_errors(primitive, calculator, displacement=displacement, folder=folder),
        formula=primitive.get_chemical_formula(),
        supercell_matrix=constants.supercell_matrix,
        force_constants=constants.values,
        max_force=rest.max_force,
        max_stress=max_stress,
        residual_force=constants.residual_force,
        sum_rule_violation=constants.sum_rule_violation,
        displacement=0.0 if method == "hessian" else displacement,
        n_displacements=constants.n_displacements,
        n_supercell_atoms=len(primitive) * abs(round(np.linalg.det(matrix))),
        image_distance=constants.image_distance,
        **fields,
    )


def _check(calculator: BaseCalculator, method: str, **numbers: float) -> None:
    for name, value in numbers.items():
        positive(name, value)
    if method == "hessian" and hessian_of(calculator) is None:
        raise ConfigError(
            "method='hessian' needs a calculator with exact Hessians (DPA2Calculator), and this one is "
            f"{type(calculator).__name__}; use method='displacements'"
        )


def _warn_of_doubts(constants: _phonopy.ForceConstants, chosen: bool, limits: Relaxation) -> None:
    """Warn of a supercell, chosen by the user, that is small, and of forces that symmetry has brought."""
    if chosen and constants.image_distance < 8.0:
        warnings.warn(
            f"phonons: atoms are only {constants.image_distance:.2f} Å from their periodic images in this "
            "supercell; try a larger one, or phonon_convergence",
            stacklevel=4,
        )
    if constants.residual_force > 10 * limits.fmax:
        warnings.warn(
            f"phonons: making the symmetry exact within symprec={limits.symprec:g} Å left forces of "
            f"{constants.residual_force:.2g} eV/Å; relax with the symmetry kept, or lower symprec",
            stacklevel=4,
        )


def _relaxed(
    crystal: Atoms, calculator: BaseCalculator, relax: str, limits: Relaxation,
    folder: str | os.PathLike[str] | None,
) -> tuple[Evaluated, float]:  # fmt: skip
    """The crystal at rest, and its largest stress (GPa, NaN if unknown)."""
    if relax == "cell":
        need_stress(calculator, "phonons with relax='cell'")
    (point,) = evaluate(
        [crystal], calculator, what="phonons", relaxation=None if relax == "fixed" else limits,
        stress=offers_stress(calculator), folder=folder, progress=False,
    )  # fmt: skip
    if point.max_force > limits.fmax:
        worst = int(np.linalg.norm(point.forces, axis=1).argmax())
        raise StructureError(
            f"phonons need a relaxed crystal: the force on atom {worst} ({crystal.symbols[worst]}) is "
            f"{point.max_force:.2g} eV/Å, allowed is fmax={limits.fmax:g}; use relax='positions' or "
            "relax='cell', or relax it yourself (dtype='float64' reaches such forces)"
        )
    max_stress = float(np.abs(point.stress).max() * GPA)
    if relax != "cell" and max_stress > 0.5:
        warnings.warn(
            f"phonons: the crystal is under a stress of {max_stress:.2f} GPa; these are phonons of the "
            "strained crystal. Use relax='cell' for those at zero pressure",
            stacklevel=4,
        )
    return point, max_stress


def _thermal(fields: Mapping[str, Any], temperatures: np.ndarray, n_atoms: int) -> dict[str, Any]:
    """Thermal fields of `Phonons`, per atom."""
    grid = fields["mesh_frequencies"], fields["mesh_weights"]
    free, entropy, capacity = (v / n_atoms for v in _phonopy.thermal_properties(*grid, temperatures))
    zero_point = _phonopy.thermal_properties(*grid, np.zeros(1))[0][0] / n_atoms
    return {
        "temperatures": temperatures,
        "free_energy": free,
        "entropy": entropy,
        "heat_capacity": capacity,
        "zero_point_energy": float(zero_point),
    }


def _lowest(fields: Mapping[str, Any], tolerance: float) -> dict[str, Any]:
    """Fields of `Phonons` about its stability."""
    kinds = ("band", "mesh")
    every_q = np.concatenate([fields[f"{kind}_qpoints"] for kind in kinds])
    lowest = np.concatenate([fields[f"{kind}_frequencies"].min(axis=1) for kind in kinds])
    where = int(lowest.argmin())
    weights, imaginary = fields["mesh_weights"], (fields["mesh_frequencies"] < -tolerance).mean(axis=1)
    return {
        "lowest_frequency": float(lowest[where]),
        "lowest_qpoint": every_q[where],
        "imaginary_fraction": float(np.average(imaginary, weights=weights)),
        "imaginary_tolerance": tolerance,
    }


def _bands(constants: _phonopy.ForceConstants, spacing: float) -> dict[str, Any]:
    """Fields of `Phonons` along the path of high symmetry, and the lowest at points the supercell holds."""
    phonon = constants.phonon
    qpoints, distances, ticks, starts = _phonopy.band_path(constants.primitive, spacing)
    phonon.run_qpoints(qpoints)
    bands = np.array(phonon.qpoints.frequencies)
    phonon.run_qpoints(_phonopy.commensurate_points(constants.supercell_matrix))
    return {
        "band_qpoints": qpoints,
        "band_distances": distances,
        "band_frequencies": bands,
        "band_ticks": ticks,
        "band_starts": starts,
        "lowest_commensurate": float(np.min(phonon.qpoints.frequencies)),
    }


def _densities(constants: _phonopy.ForceConstants, mesh: float | Sequence[int]) -> dict[str, Any]:
    """Fields of `Phonons` on the mesh: frequencies, densities of states (tetrahedra)."""
    phonon = constants.phonon
    _phonopy.run_mesh(phonon, mesh)
    found = phonon.mesh
    low, high = float(np.min(found.frequencies)), float(np.max(found.frequencies))
    margin = 0.05 * (high - low)
    limits = {
        "freq_min": min(low - margin, 0.0),
        "freq_max": high + margin,
        "freq_pitch": (high - low) / 300.0,
    }
    phonon.run_total_dos(**limits)
    total = np.array(phonon.total_dos.dos)
    symbols = np.array(constants.primitive.get_chemical_symbols())
    by_element = {str(symbols[0]): total.copy()}
    if len(set(symbols)) > 1:
        phonon.run_mesh(mesh, is_mesh_symmetry=False, with_eigenvectors=True)
        phonon.run_projected_dos(**limits)
        projected = np.array(phonon.projected_dos.projected_dos)  # (n_atoms, n_frequencies)
        by_element = {str(e): projected[symbols == e].sum(axis=0) for e in dict.fromkeys(symbols)}
    return {
        "mesh": np.array(found.mesh_numbers),
        "mesh_qpoints": np.array(found.qpoints),
        "mesh_weights": np.array(found.weights, dtype=float),
        "mesh_frequencies": np.array(found.frequencies),
        "dos_frequencies": np.array(phonon.total_dos.frequency_points),
        "dos": total,
        "dos_by_element": by_element,
    }
