"""What `phonons` returns: bands, density of states, thermal properties, stability, convergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from dpa2calc.applications.shared.ensemble import WithModelErrors
from dpa2calc.applications.shared.structures import WithStructure, require
from dpa2calc.files.figures import Axes, axes_for
from dpa2calc.structures.given import in_form

from . import phonopy_bridge as _phonopy

if TYPE_CHECKING:
    from phonopy import Phonopy
    from pymatgen.core import Structure
    from pymatgen.phonon.bandstructure import PhononBandStructureSymmLine
    from pymatgen.phonon.dos import PhononDos


class PymatgenPhonons(NamedTuple):
    """Phonons as pymatgen's objects: the primitive cell, bands along the path, density of states."""

    structure: Structure
    bands: PhononBandStructureSymmLine
    dos: PhononDos


@dataclass(frozen=True, kw_only=True)
class Phonons(WithModelErrors, WithStructure):
    """Harmonic phonons of one crystal. Frequencies in THz, imaginary ones as negative numbers.

    Fields: `numbers`, `masses` (u), `cell` (3, 3) Å, `scaled_positions` of the primitive cell and what is
    `attached` to it;
    `supercell_matrix` (3, 3) rows in primitive vectors; `force_constants` (n, n_supercell, 3, 3) eV/Å²;
    bands along the standard path: `band_qpoints` (n_q, 3) fractional, `band_distances` (n_q,) 1/Å,
    `band_frequencies` (n_q, 3n), `band_ticks` (distance, label), `band_starts` where connected pieces begin;
    on the mesh: `mesh` (3,), `mesh_qpoints`, `mesh_weights`, `mesh_frequencies`; `dos_frequencies`, `dos`
    (states/THz per primitive cell, integral 3n), `dos_by_element`; `temperatures` K, `free_energy` eV/atom
    (vibrational, zero point included), `entropy` and `heat_capacity` (constant volume) eV/K/atom,
    `zero_point_energy` eV/atom; `lowest_frequency` THz over mesh and bands at `lowest_qpoint`;
    `lowest_commensurate` THz over the q-points that fit the supercell, where nothing is interpolated;
    `imaginary_fraction` of modes on the mesh below -`imaginary_tolerance`. How well it is converged:
    `max_force` eV/Å and `max_stress` GPa of the crystal given (NaN if unknown), `residual_force` eV/Å,
    `sum_rule_violation` relative, `displacement` Å and `n_displacements` (both 0 of an exact Hessian),
    `n_supercell_atoms`, `image_distance` Å between periodic images of an atom. `model_errors` of the optical
    modes at Γ, THz, "gamma_4" being the lowest.
    """

    formula: str
    numbers: np.ndarray
    masses: np.ndarray
    cell: np.ndarray
    scaled_positions: np.ndarray
    supercell_matrix: np.ndarray
    force_constants: np.ndarray
    band_qpoints: np.ndarray
    band_distances: np.ndarray
    band_frequencies: np.ndarray
    band_ticks: list[tuple[float, str]]
    band_starts: list[int]
    mesh: np.ndarray
    mesh_qpoints: np.ndarray
    mesh_weights: np.ndarray
    mesh_frequencies: np.ndarray
    dos_frequencies: np.ndarray
    dos: np.ndarray
    dos_by_element: dict[str, np.ndarray]
    temperatures: np.ndarray
    free_energy: np.ndarray
    entropy: np.ndarray
    heat_capacity: np.ndarray
    zero_point_energy: float
    lowest_frequency: float
    lowest_qpoint: np.ndarray
    lowest_commensurate: float
    imaginary_fraction: float
    imaginary_tolerance: float
    max_force: float
    max_stress: float
    residual_force: float
    sum_rule_violation: float
    displacement: float
    n_displacements: int
    n_supercell_atoms: int
    image_distance: float

    @property
    def stable(self) -> bool:
        """No mode below -imaginary_tolerance on the mesh or the path."""
        return self.lowest_frequency > -self.imaginary_tolerance

    def to_phonopy(self) -> Phonopy:
        """A `phonopy.Phonopy` with these force constants, for the rest phonopy can do (Born charges, ...)."""
        return _phonopy.phonopy_object(self.atoms(), self.supercell_matrix, self.force_constants)

    def to_pymatgen(self) -> PymatgenPhonons:
        """Bands and density of states as pymatgen's objects, THz; needs the extra `pymatgen`."""
        what = "Phonons.to_pymatgen"
        lattice = require("pymatgen.core", what, "pymatgen").Lattice(self.cell)
        bands = require("pymatgen.phonon.bandstructure", what, "pymatgen").PhononBandStructureSymmLine
        dos = require("pymatgen.phonon.dos", what, "pymatgen").PhononDos
        structure = in_form(self.atoms(), "Structure")
        labels: dict[str, np.ndarray] = {}
        for distance, name in self.band_ticks:  # "U|K": the path ends at one point and resumes at the next
            at = int(np.abs(self.band_distances - distance).argmin())
            parts = name.replace("Γ", r"\Gamma").split("|")
            labels |= {part: self.band_qpoints[at + k] for k, part in enumerate(parts)}
        return PymatgenPhonons(
            structure,
            bands(
                self.band_qpoints, self.band_frequencies.T, lattice.reciprocal_lattice,
                labels_dict=labels, structure=structure,
            ),
            dos(self.dos_frequencies, self.dos),
        )  # fmt: skip

    def frequencies(self, qpoints: npt.ArrayLike) -> np.ndarray:
        """Frequencies (n_q, 3n) in THz at q-points (n_q, 3) in fractions of the primitive reciprocal cell."""
        phonon = _phonopy.phonopy_object(
            self.atoms(), self.supercell_matrix, self.force_constants, symmetry=False
        )
        phonon.run_qpoints(np.reshape(np.asarray(qpoints, dtype=float), (-1, 3)))
        return np.array(phonon.qpoints.frequencies)

    def sound_velocities(self, direction: Sequence[float] | np.ndarray) -> np.ndarray:
        """Slopes (3,) in m/s of the acoustic branches at Γ along a Cartesian direction, slowest first."""
        n = np.asarray(direction, dtype=float) / np.linalg.norm(direction)
        q = 0.01  # rad/Å: a wave of 600 Å, still far above rounding
        fraction = (q / (2 * np.pi)) * self.cell @ n  # fractional q: dot products with the lattice vectors
        lowest = np.sort(self.frequencies([fraction])[0])[:3]
        return 2 * np.pi * lowest / q * 100.0  # Å/ps -> m/s

    def summary(self) -> str:
        """Main numbers with units, stability and the report on convergence."""
        room = int(np.abs(self.temperatures - 298.15).argmin())
        capacity, entropy = (v[room] * _phonopy.JOULE_PER_MOL for v in (self.heat_capacity, self.entropy))
        q = ", ".join(f"{x:.3f}" for x in self.lowest_qpoint)
        return "\n".join([
            f"Phonons of {self.formula} ({len(self.numbers)} atoms in the primitive cell)",
            f"  highest frequency   {self.mesh_frequencies.max():.4f} THz"
            f" ({self.mesh_frequencies.max() * 33.35641:.2f} 1/cm)",
            f"  lowest frequency    {self.lowest_frequency:.4f} THz at q = ({q})",
            *self._at_gamma(),
            f"  zero-point energy   {1e3 * self.zero_point_energy:.3f} meV/atom",
            f"  at {self.temperatures[room]:g} K: C_V {capacity:.3f} J/K/mol, S {entropy:.3f} J/K/mol, "
            f"F {1e3 * self.free_energy[room]:.3f} meV (all per atom)",
            "  " + self._verdict(),
            f"  supercell of {self.n_supercell_atoms} atoms, images {self.image_distance:.2f} Å apart, "
            + (
                f"{self.n_displacements} displacements of {self.displacement:g} Å"
                if self.n_displacements
                else "force constants from its exact Hessian"
            ),
            f"  largest force {self.max_force:.1e} eV/Å, stress {self.max_stress:.3f} GPa, "
            f"acoustic sum rule broken by {self.sum_rule_violation:.1e} before it was enforced",
        ])  # fmt: skip

    def _at_gamma(self) -> list[str]:
        """The highest mode at Γ with the model's error, where that is known."""
        if not self.model_errors:
            return []
        name, value = f"gamma_{3 * len(self.numbers)}", float(self.frequencies([[0.0, 0.0, 0.0]]).max())
        return [f"  highest at Γ        {self.told(name, value, None, 'THz', 4)}"]

    def _verdict(self) -> str:
        if self.stable:
            return "dynamically stable: no imaginary modes"
        share = 100 * self.imaginary_fraction
        text = f"IMAGINARY MODES: {share:.2f} % of the mesh (left out of thermal properties); "
        if self.lowest_commensurate < -self.imaginary_tolerance:
            return text + "also at q-points that fit the supercell, so the crystal is unstable"
        return text + "none at q-points that fit the supercell: try a larger supercell before believing them"

    def plot(self, ax: Axes | None = None, *, dos: bool = True) -> Axes:
        """Bands along the path and, to their right, the density of states; returns the axes of the bands.

        With dos=False several results can be drawn into the same axes.
        """
        axes = axes_for(ax, (8, 4.5))
        edges = [*self.band_starts, len(self.band_distances)]
        (line,) = axes.plot([], [], linewidth=1)
        for start, stop in zip(edges[:-1], edges[1:]):
            piece = slice(start, stop)
            x, y = self.band_distances[piece], self.band_frequencies[piece]
            axes.plot(x, y, color=line.get_color(), linewidth=1)
        for position, _ in self.band_ticks:
            axes.axvline(position, color="grey", linewidth=0.5)
        axes.axhline(0.0, color="black", linewidth=0.5)
        axes.set_xticks(*zip(*self.band_ticks))
        axes.set(xlim=(0.0, self.band_distances[-1]), ylabel="frequency (THz)")
        axes.set_title(f"Phonons of {self.formula}")
        if dos:
            self._plot_dos(axes)
        return axes

    def _plot_dos(self, bands: Axes) -> None:
        from mpl_toolkits.axes_grid1 import make_axes_locatable

        axes = make_axes_locatable(bands).append_axes("right", size="30%", pad=0.25, sharey=bands)
        axes.plot(self.dos, self.dos_frequencies, color="black", label="total")
        if len(self.dos_by_element) > 1:
            for element, values in self.dos_by_element.items():
                axes.plot(values, self.dos_frequencies, linewidth=1, label=element)
            axes.legend(fontsize=8)
        axes.tick_params(labelleft=False)
        axes.set(xlabel="states/THz/cell", xlim=(0.0, None))
