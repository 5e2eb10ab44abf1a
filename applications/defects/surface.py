"""Surface energy of a crystal face, from slabs of several thicknesses."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Literal

import numpy as np
from ase import Atoms
from ase.cell import Cell

from dpa2calc.applications.crystals.phonopy_bridge import primitive_cell
from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated
from dpa2calc.applications.shared.connected import check_connected
from dpa2calc.applications.shared.ensemble import WithModelErrors, spread
from dpa2calc.applications.shared.structures import (
    JOULE_PER_M2,
    checked_copy,
    conventional_matrix,
    fields_of,
    positive,
    structure_of,
    symmetry_dataset,
)
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.structures.attached import Attached

from .cut import as_cut_and_relaxed, bulk_of

_HIGHEST_INDEX = 50  # of a plane; lattice vectors in it are sought among (2 * this)^3


@dataclass(frozen=True, kw_only=True)
class SurfaceEnergy(WithModelErrors):
    """Energy of one face of a crystal.

    Fields: `miller` indices (of the cell given, or the conventional one); `energy` J/m² of the relaxed
    slabs and `error`: the larger of the fit's standard error and of the difference from the direct value
    with the bulk's own energy at the thickest slab; `unrelaxed_energy` J/m²; `direct` and
    `unrelaxed_direct` (n,) J/m², one slab at a time; `layers` (n,) lattice planes; `n_atoms` (n,) and
    `thickness` (n,) Å of the slabs; `area` Å² of one face; `bulk_energy` eV/atom and `fitted_bulk_energy`
    eV/atom (the slope over thickness; both agree when the slabs are thick enough); `slab_energies`,
    `unrelaxed_slab_energies` (n,) eV; `symmetric`: the two faces of the slab are equivalent (if not,
    `energy` is their mean); `slab_numbers`, `slab_positions`, `slab_cell` and `slab_attached` of the thickest
    relaxed slab.
    """

    formula: str
    miller: tuple[int, int, int]
    energy: float
    error: float
    unrelaxed_energy: float
    direct: np.ndarray
    unrelaxed_direct: np.ndarray
    layers: np.ndarray
    n_atoms: np.ndarray
    thickness: np.ndarray
    area: float
    bulk_energy: float
    fitted_bulk_energy: float
    slab_energies: np.ndarray
    unrelaxed_slab_energies: np.ndarray
    symmetric: bool
    slab_numbers: np.ndarray
    slab_positions: np.ndarray
    slab_cell: np.ndarray
    slab_attached: Attached = field(default_factory=dict, repr=False)

    def atoms(self) -> Atoms:
        """The thickest slab, relaxed."""
        return structure_of(self, "slab_")

    def summary(self) -> str:
        """Energy with error and the slabs it comes from."""
        face = "".join(map(str, self.miller))
        per_area = self.energy / JOULE_PER_M2
        lines = [
            f"Surface energy of {self.formula} ({face})",
            f"  relaxed    {self.told('energy', self.energy, self.error, 'J/m²', 4)}"
            f"  ({per_area:.5f} eV/Å², {per_area * self.area:.4f} eV per cell)",
            f"  unrelaxed  {self.unrelaxed_energy:.4f} J/m²",
            "  layers  atoms  thickness Å  relaxed J/m²  unrelaxed J/m²",
        ]
        for row in zip(self.layers, self.n_atoms, self.thickness, self.direct, self.unrelaxed_direct):
            lines.append("  {:6d}  {:5d}  {:11.2f}  {:12.4f}  {:14.4f}".format(*row))
        lines.append(
            f"  bulk {self.bulk_energy:.6f} eV/atom; slope over thickness {self.fitted_bulk_energy:.6f}"
        )
        if not self.symmetric:
            lines.append("  the two faces are not equivalent: the number is their mean")
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Surface energy against slab thickness; returns the axes."""
        axes = axes_for(ax)
        axes.plot(self.thickness, self.unrelaxed_direct, "s--", label="unrelaxed")
        axes.plot(self.thickness, self.direct, "o-", label="relaxed")
        axes.axhline(self.energy, color="grey", linestyle=":", label="fit over thickness")
        axes.set(xlabel="slab thickness (Å)", ylabel="surface energy (J/m²)")
        axes.ticklabel_format(useOffset=False)
        axes.set_title(f"{self.formula} ({''.join(map(str, self.miller))})")
        axes.legend()
        return axes


@application
def surface_energy(
    atoms: Atoms,
    miller: tuple[int, int, int] = (1, 1, 1),
    *,
    thicknesses: Sequence[float] = (10.0, 15.0, 20.0),
    vacuum: float = 15.0,
    shift: float = 0.0,
    relax: Literal["fixed", "positions"] = "positions",
    relax_bulk: bool = True,
    fmax: float = 0.01,
    max_steps: int = 1000,
    symprec: float = 1e-3,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> SurfaceEnergy:
    """Surface energy gamma from E_slab(N) = N e_bulk + 2 A gamma over slabs of several thicknesses.

    Fitting e_bulk together with gamma removes the error that grows with thickness when a separately
    computed bulk energy differs slightly (Fiorentini and Methfessel, J. Phys.: Condens. Matter 8,
    6525, 1996).
    Slabs keep the crystal's composition; a compound's two faces may differ, which the result says.

    Args:
        atoms: bulk crystal (any cell) with a calculator; not changed.
        miller: face, in indices of the given cell; of the conventional cell if a primitive cell of a centred
            lattice is given.
        thicknesses: two or more slab thicknesses, Å, rounded up to whole lattice planes.
        vacuum: empty space between periodic slabs, Å; more than the range of the potential.
        shift: moves the cut out of the widest gap between atoms, as a fraction of the plane spacing.
        relax: the "positions" in the slabs relax, or stay "fixed".
        relax_bulk: relax positions and cell of the bulk first (needs stress).
        fmax: convergence of the slab relaxations, eV/Å.
        max_steps: give up a relaxation after so many steps.
        symprec: distance tolerance of symmetry, Å.
        folder: finished slabs are kept here, and the work resumes from them.
        progress: show a progress bar on stderr.

    Raises:
        ConfigError: bad indices or thicknesses.
        StructureError: no crystal, or a relaxation that does not converge.
    """
    crystal, calculator = checked_copy(atoms, what="surface_energy")
    if not any(miller):
        raise ConfigError(f"miller must be three whole numbers that are not all zero, got {miller}")
    if len(set(thicknesses)) < 2 or min(thicknesses) <= 0:
        raise ConfigError(f"thicknesses must be two or more different lengths in Å, got {list(thicknesses)}")
    positive("vacuum", vacuum)
    positive("fmax", fmax)
    name, motion = "surface_energy", Relaxation(fmax=fmax, max_steps=max_steps)
    check_connected(crystal, name=name, what="surface energy")
    bulk = bulk_of(crystal, calculator, relax_bulk, motion, name, folder)
    check_connected(bulk.atoms, name=name, what="surface energy")
    reference = reference_cell(bulk.atoms, symprec)
    primitive = primitive_cell(bulk.atoms, symprec, calculator)
    unit = slab_unit(primitive, miller, reference=reference, shift=shift)
    layers = _layers(unit, thicknesses)
    slabs = [slab_from_unit(unit, n, vacuum) for n in layers]
    motions = None if relax == "fixed" else motion
    cuts = as_cut_and_relaxed(slabs, calculator, motions, what=name, folder=folder, progress=progress)
    return _result(bulk, layers, *cuts, miller, symprec)


def reference_cell(crystal: Atoms, symprec: float) -> np.ndarray:
    """Cell (3, 3) that Miller indices refer to: the given one, or the conventional one if primitive."""
    matrix = conventional_matrix(crystal, symprec)
    return (matrix if abs(round(np.linalg.det(matrix))) > 1 else np.eye(3)) @ crystal.cell.array


def slab_unit(
    primitive: Atoms, miller: tuple[int, int, int], *, reference: np.ndarray, shift: float = 0.0
) -> Atoms:
    """One lattice plane's worth of crystal: two cell vectors in the plane (shortest), the third leading out.

    Indices refer to the `reference` cell (3, 3); the cut lies in the widest gap, moved by `shift` spacings.
    """
    # a plane's indices transform as the cell vectors do: h_reference = M h_primitive
    matrix = np.rint(reference @ np.linalg.inv(primitive.cell.array))
    small = np.linalg.inv(matrix) @ np.asarray(miller) * abs(round(np.linalg.det(matrix)))
    whole = np.rint(small).astype(int)
    whole //= gcd(*map(int, whole))
    if np.abs(whole).max() > _HIGHEST_INDEX:
        raise ConfigError(
            f"miller = {tuple(miller)} is the plane {tuple(whole.tolist())} of the primitive cell; its "
            f"indices may be {_HIGHEST_INDEX} at most"
        )
    basis = _plane_basis(primitive.cell.array, whole)
    unit = primitive.copy()
    unit.set_cell(Cell(basis @ primitive.cell.array).standard_form()[0], scale_atoms=False)
    # the same crystal in the new basis: fractional coordinates change, the crystal only turns
    unit.set_scaled_positions(primitive.get_scaled_positions() @ np.linalg.inv(basis))
    height = unit.get_scaled_positions(wrap=True)[:, 2]
    unit.positions -= (_widest_gap(height) + shift) * unit.cell.array[2]
    unit.wrap(eps=1e-6)
    return unit


def _plane_basis(cell: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Integer basis (3, 3): two shortest lattice vectors in the plane, the least slanted one to the next."""
    normal = np.linalg.inv(cell) @ indices
    normal /= np.linalg.norm(normal)
    reach = int(np.abs(indices).max()) + 2
    grid = np.arange(-reach, reach + 1)
    vectors = np.array(np.meshgrid(grid, grid, grid)).reshape(3, -1).T
    plane = vectors[vectors @ indices == 0]
    plane = plane[np.argsort(np.linalg.norm(plane @ cell, axis=1), kind="stable")][1:]  # without zero
    first = plane[0]
    second = plane[np.abs(np.cross(plane, first)).sum(axis=1) > 0][0]
    outside = vectors[vectors @ indices == 1]
    slant = np.linalg.norm(outside @ cell - np.outer(outside @ cell @ normal, normal), axis=1)
    basis = np.array([first, second, outside[slant.argmin()]])
    if np.linalg.det(basis) < 0:
        basis[1] *= -1
    return basis


def _widest_gap(height: np.ndarray) -> float:
    """Middle of the widest gap between atomic planes, in fractions of the spacing."""
    planes = np.sort(height % 1.0)
    gaps = np.diff(np.append(planes, planes[0] + 1.0))
    widest = int(np.flatnonzero(gaps > gaps.max() - 1e-6)[0])
    return float(planes[widest] + gaps[widest] / 2.0)


def slab_from_unit(unit: Atoms, layers: int, vacuum: float) -> Atoms:
    """A slab of so many lattice planes with vacuum (Å) in all between its periodic images."""
    slab = unit.repeat((1, 1, layers))
    normal = np.cross(slab.cell.array[0], slab.cell.array[1])
    slab.set_cell([*slab.cell.array[:2], normal])
    slab.center(vacuum / 2.0, axis=2)
    slab.wrap()
    return slab


def _layers(unit: Atoms, thicknesses: Sequence[float]) -> list[int]:
    spacing = unit.get_volume() / unit.cell.areas()[2]
    layers = sorted({max(1, 1 + int(np.ceil(thickness / spacing - 1e-6))) for thickness in thicknesses})
    if len(layers) < 2:
        raise ConfigError(
            f"thicknesses {list(thicknesses)} Å are all {layers[0]} planes of {spacing:.2f} Å; spread them"
        )
    return layers


def _result(
    bulk: Evaluated, layers: list[int], rigid: list[Evaluated], relaxed: list[Evaluated],
    miller: tuple[int, int, int], symprec: float,
) -> SurfaceEnergy:  # fmt: skip
    thickest = relaxed[-1].atoms
    area = float(thickest.cell.areas()[2])
    normal = thickest.cell.array[2] / thickest.cell.lengths()[2]
    n_atoms = np.array([len(point.atoms) for point in rigid])
    per_atom = bulk.energy / len(bulk.atoms)
    energies, unrelaxed = _energies(relaxed), _energies(rigid)
    slope, excess, excess_error = _line(n_atoms, energies)
    factor = JOULE_PER_M2 / (2.0 * area)
    direct = (energies - n_atoms * per_atom) * factor
    fitted = excess * factor
    data = symmetry_dataset(rigid[-1].atoms, symprec, "comparing the two faces of a slab")
    symmetric = bool((data.rotations[:, 2, 2] == -1).any())  # an operation turns the slab upside down
    if not symmetric:
        warnings.warn(
            f"surface_energy: the two faces of the {miller} slab differ, the result is their mean; choose "
            "another shift for a symmetric cut if there is one",
            stacklevel=4,
        )
    return SurfaceEnergy(
        formula=bulk.atoms.get_chemical_formula(empirical=True),
        miller=miller,
        energy=fitted,
        error=float(max(excess_error * factor, abs(direct[-1] - fitted))),
        unrelaxed_energy=_line(n_atoms, unrelaxed)[1] * factor,
        direct=direct,
        unrelaxed_direct=(unrelaxed - n_atoms * per_atom) * factor,
        layers=np.array(layers),
        n_atoms=n_atoms,
        thickness=np.array([np.ptp(point.atoms.positions @ normal) for point in relaxed]),
        area=area,
        bulk_energy=float(per_atom),
        fitted_bulk_energy=slope,
        slab_energies=energies,
        unrelaxed_slab_energies=unrelaxed,
        symmetric=symmetric,
        **fields_of(thickest, "numbers", "positions", "cell", prefix="slab_"),
        model_errors=spread(lambda of: {"energy": _line(n_atoms, _energies(of))[1] * factor}, relaxed),
    )


def _energies(points: Sequence[Evaluated]) -> np.ndarray:
    return np.array([point.energy for point in points])


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Slope, intercept and the intercept's standard error (0 for two points)."""
    design = np.vstack([x, np.ones(len(x))]).T
    solution = np.linalg.lstsq(design, y, rcond=None)[0]
    if len(x) == 2:
        return float(solution[0]), float(solution[1]), 0.0
    variance = ((design @ solution - y) ** 2).sum() / (len(x) - 2)
    error = np.sqrt(variance * np.linalg.inv(design.T @ design)[1, 1])
    return float(solution[0]), float(solution[1]), float(error)
