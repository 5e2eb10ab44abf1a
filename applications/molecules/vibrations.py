"""Vibrations of a molecule (or of chosen atoms): frequencies, modes, zero-point energy, thermochemistry."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import BaseCalculator
from ase.constraints import FixAtoms, FixCom
from ase.thermochemistry import HarmonicThermo, IdealGasThermo

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated, evaluate, hessian_of, hessian_rows
from dpa2calc.applications.shared.structures import WithStructure, checked_copy, fields_of, positive
from dpa2calc.errors import ConfigError, StructureError
from dpa2calc.files.figures import Axes, axes_for

# sqrt(eV/Å²/u) as an angular frequency, times hbar: energy in eV of a mode with unit eigenvalue
_HBAR_OMEGA = units._hbar * 1e10 / np.sqrt(units._e * units._amu)
_BENT = 0.02  # Å from the axis; an atom of a linear molecule is nearer
_HELD = 30.0  # 1/cm; noise of the forces makes translations of a free molecule slower
_INVERSE_CM = 1.0 / units.invcm  # eV -> 1/cm


@dataclass(frozen=True, kw_only=True)
class Vibrations(WithStructure):
    """Harmonic vibrations. Imaginary frequencies are negative numbers.

    Fields: `frequencies` (n_modes,) 1/cm ascending, of vibrations only (3n-6, 3n-5 or 3n-3 of a molecule,
    all 3m of m chosen atoms); `modes` (n_modes, n, 3) displacements, mass-weighted vectors of unit length
    divided by sqrt(mass) and normalised; `hessian` (3m, 3m) eV/Å² symmetrised; `indices` of the m atoms
    moved; `zero_point_energy` eV of the real modes; `energy` eV; `rigid_frequencies` (1/cm) of
    translations and rotations before they were projected out: how well the Hessian is converged, best near
    zero; `asymmetry` relative difference of the raw Hessian from its transpose; `max_force` eV/Å;
    `displacement` Å, 0 if the Hessian is exact; `linear`; `numbers`, `positions` Å, `cell`, `pbc` of the
    structure at rest and what is `attached` to it.
    """

    formula: str
    frequencies: np.ndarray
    modes: np.ndarray
    hessian: np.ndarray
    indices: np.ndarray
    zero_point_energy: float
    energy: float
    rigid_frequencies: np.ndarray
    asymmetry: float
    max_force: float
    displacement: float
    linear: bool
    numbers: np.ndarray
    masses: np.ndarray
    positions: np.ndarray
    cell: np.ndarray
    pbc: np.ndarray

    @property
    def n_imaginary(self) -> int:
        """Vibrations more than 1/cm below zero: 0 of them in a minimum, 1 at a saddle point."""
        return int((self.frequencies < -1.0).sum())

    def mode_frames(self, index: int, *, amplitude: float = 0.3, n_frames: int = 24) -> list[Atoms]:
        """One period of a mode as a list of Atoms; amplitude is the largest displacement of an atom, Å."""
        mode = self.modes[index] / np.linalg.norm(self.modes[index], axis=1).max()
        frames = []
        for phase in np.linspace(0.0, 2.0 * np.pi, n_frames, endpoint=False):
            frame = self.atoms()
            frame.positions += amplitude * np.sin(phase) * mode
            frames.append(frame)
        return frames

    @np.errstate(over="ignore")  # of exp(energy / kT) of a mode that is frozen
    def free_energy(
        self, temperature: float, *, pressure: float = 101325.0, symmetry_number: int = 1, spin: float = 0.0
    ) -> float:
        """Gibbs energy (eV) of an ideal gas molecule, or Helmholtz energy of chosen atoms on a support.

        Rigid rotor and harmonic oscillator (ASE's IdealGasThermo, HarmonicThermo); includes `energy`.

        Args:
            temperature: K.
            pressure: Pa, for the molecule.
            symmetry_number: rotations that leave the molecule unchanged (2 for H2O and N2, 12 for CH4).
            spin: total electronic spin (0 closed shell, 1 for O2).

        Raises:
            StructureError: a mode that is imaginary or zero.
            ConfigError: temperature or pressure not above zero, a symmetry number that is none, or a spin
                that is no multiple of 1/2.
        """
        positive("temperature", temperature)
        positive("pressure", pressure)
        if symmetry_number != int(symmetry_number) or symmetry_number < 1:
            raise ConfigError(f"symmetry_number = {symmetry_number!r} is not allowed; allowed: 1, 2, 3, ...")
        if not (spin >= 0 and 2 * spin == int(2 * spin)):
            raise ConfigError(f"spin = {spin!r} is not allowed; allowed: 0, 0.5, 1, 1.5, ...")
        soft = self.frequencies[self.frequencies <= 0.0]
        if len(soft):
            raise StructureError(
                f"{self.formula} has {len(soft)} imaginary modes (lowest {soft[0]:.2g} 1/cm), so it has no "
                "free energy; relax it further"
            )
        quanta = list(self.frequencies / _INVERSE_CM)
        if len(self.rigid_frequencies) == 0:
            thermo = HarmonicThermo(quanta, potentialenergy=self.energy)
            return float(thermo.get_helmholtz_energy(temperature, verbose=False))
        geometry: Literal["monatomic", "linear", "nonlinear"] = "linear" if self.linear else "nonlinear"
        if len(self.numbers) == 1:
            geometry = "monatomic"
        gas = IdealGasThermo(
            quanta, geometry, potentialenergy=self.energy, atoms=self.atoms(),
            symmetrynumber=symmetry_number, spin=spin,
        )  # fmt: skip
        return float(gas.get_gibbs_energy(temperature, pressure, verbose=False))

    def summary(self) -> str:
        """All frequencies with the checks of the calculation."""
        lines = [f"Vibrations of {self.formula}: {len(self.frequencies)} modes"]
        for i, value in enumerate(self.frequencies):
            mark = "  imaginary" if value < 0 else ""
            lines.append(f"  {i:4d}  {value:10.2f} 1/cm  {1e3 * value / _INVERSE_CM:9.3f} meV{mark}")
        lines.append(f"  zero-point energy {self.zero_point_energy:.5f} eV")
        if len(self.rigid_frequencies):
            rigid = ", ".join(f"{value:.1f}" for value in self.rigid_frequencies)
            lines.append(f"  translations and rotations before projection: {rigid} 1/cm (ideally 0)")
        lines.append(
            f"  largest force at rest {self.max_force:.1e} eV/Å; Hessian asymmetric by {self.asymmetry:.1e}; "
            + (f"displacement {self.displacement:g} Å" if self.displacement else "exact, no displacements")
        )
        return "\n".join(lines)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Frequencies as sticks; returns the axes."""
        axes = axes_for(ax)
        axes.vlines(self.frequencies, 0.0, 1.0)
        axes.set(xlabel="frequency (1/cm), imaginary below zero", yticks=[], ylim=(0.0, 1.2))
        axes.set_title(f"Vibrations of {self.formula}")
        return axes


@application
def vibrations(
    atoms: Atoms,
    *,
    indices: Sequence[object] | np.ndarray | None = None,
    relax: Literal["fixed", "positions"] = "fixed",
    displacement: float | None = None,
    fmax: float = 1e-3,
    max_steps: int = 500,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Vibrations:
    """Harmonic frequencies from the exact Hessian of the calculator, or central differences of its forces.

    Translations and rotations of a free molecule are projected out of the mass-weighted Hessian exactly.

    Args:
        atoms: molecule (no periodic direction) with a calculator; not changed. With `indices` or FixAtoms any
            structure, for example an adsorbate on a slab: some atoms move and nothing is projected out.
        indices: atoms that move; default all, or where FixAtoms holds some, the others, as in ASE's
            Vibrations. Of other constraints a warning says that they are not used.
        relax: "fixed" refuses a structure with forces above fmax; "positions" relaxes them first (a minimum,
            so not for a saddle point; atoms outside `indices` stay where they are).
        displacement: Å, both signs of each of the 3m coordinates. None: the exact Hessian, where a calculator
            has one (DPA2Calculator), else 0.01.
        fmax: largest force allowed on the atoms that move, eV/Å.
        max_steps: give up a relaxation after so many steps.
        folder: forces of finished displacements, or the finished Hessian, are kept here, and the work
            resumes from them.
        progress: show a progress bar on stderr.

    Raises:
        StructureError: forces above fmax, a periodic structure of which all atoms move, or of which none.
        ConfigError: bad indices or numbers.
    """
    structure, calculator = checked_copy(atoms, what="vibrations", periodic=False, masses=True)
    some = free_atoms(structure) if indices is None else _checked_indices(indices, len(structure))
    _warn_of_constraints(structure, some)
    structure.set_constraint()
    if displacement is not None:
        positive("displacement", displacement)
    positive("fmax", fmax)
    if some is None and structure.pbc.any():
        raise StructureError(
            f"vibrations treats molecules, got pbc={structure.pbc.tolist()}; use phonons() for a crystal, "
            "set atoms.pbc = False for a molecule in a box, or give the indices of the atoms that move"
        )
    moved = np.arange(len(structure)) if some is None else some
    rest = _at_rest(structure, calculator, moved, relax, fmax, max_steps, folder)
    has_hessian = hessian_of(calculator)
    if displacement is None and has_hessian is not None:
        rows = hessian_rows(rest.atoms, has_hessian, moved, folder=folder, progress=progress)
        raw = rows.reshape(len(rows), -1, 3)[:, moved].reshape(len(rows), -1)
        return _analysed(rest, raw, moved, some is None, 0.0)
    step = 0.01 if displacement is None else displacement
    structures = []
    for atom, axis, sign in itertools.product(moved, range(3), (-1, 1)):
        displaced = rest.atoms.copy()
        displaced.positions[atom, axis] += sign * step
        structures.append(displaced)
    points = evaluate(structures, calculator, what="vibrations", folder=folder, progress=progress)
    forces = np.array([point.forces[moved].ravel() for point in points]).reshape(3 * len(moved), 2, -1)
    raw = (forces[:, 0] - forces[:, 1]) / (2.0 * step)  # (3m, 3m): -dF/dx
    return _analysed(rest, raw, moved, some is None, step)


def _held(atoms: Atoms) -> np.ndarray:
    """Numbers of the atoms that FixAtoms holds."""
    every = np.arange(len(atoms))  # -1 is the last
    held = [every[item.get_indices()] for item in atoms.constraints if isinstance(item, FixAtoms)]
    return np.unique(np.concatenate(held)) if held else np.empty(0, dtype=int)


def free_atoms(atoms: Atoms) -> np.ndarray | None:
    """Numbers (m,) of the atoms that FixAtoms does not hold; None where it holds none.

    Raises:
        StructureError: it holds all.
    """
    held = _held(atoms)
    if len(held) == len(atoms):
        raise StructureError(
            f"FixAtoms holds all {len(atoms)} atoms, so nothing vibrates; free some of them, or name those "
            "that move: indices=[...]"
        )
    return np.setdiff1d(np.arange(len(atoms)), held) if len(held) else None


def _warn_of_constraints(atoms: Atoms, moved: np.ndarray | None) -> None:
    """Warn of constraints that say another thing than is done."""
    # FixCom holds what is projected out of a molecule, and next to nothing of some atoms
    others = {type(item).__name__ for item in atoms.constraints if not isinstance(item, (FixAtoms, FixCom))}
    if others:
        what = ", ".join(sorted(others))
        warnings.warn(f"vibrations: {what} on the atoms is not used; they vibrate freely", stacklevel=4)
    both = [] if moved is None else np.intersect1d(moved, _held(atoms)).tolist()
    if both:
        warnings.warn(
            f"vibrations: FixAtoms holds atoms {both[:10]}{' ...' if len(both) > 10 else ''}, which vibrate "
            "all the same, as indices names them",
            stacklevel=4,
        )


def _checked_indices(indices: Sequence[object] | np.ndarray, n_atoms: int) -> np.ndarray:
    moved = np.asarray(indices)
    if moved.ndim != 1 or len(moved) == 0 or not np.issubdtype(moved.dtype, np.integer):
        raise ConfigError(f"indices must be a list of atom numbers, got {indices!r}")
    if moved.min() < 0 or moved.max() >= n_atoms or len(set(moved.tolist())) != len(moved):
        raise ConfigError(f"indices must be different numbers from 0 to {n_atoms - 1}, got {moved.tolist()}")
    return moved


def _at_rest(
    structure: Atoms, calculator: BaseCalculator, moved: np.ndarray, relax: str, fmax: float, max_steps: int,
    folder: str | os.PathLike[str] | None,
) -> Evaluated:  # fmt: skip
    others = np.setdiff1d(np.arange(len(structure)), moved)
    settings = Relaxation(fmax=fmax, max_steps=max_steps) if relax == "positions" else None
    if settings and len(others):
        structure.set_constraint(FixAtoms(others))
    (rest,) = evaluate(
        [structure], calculator, what="vibrations", relaxation=settings, folder=folder, progress=False
    )
    rest.atoms.set_constraint()
    largest = float(np.linalg.norm(rest.forces[moved], axis=1).max())
    if largest > fmax:
        raise StructureError(
            f"vibrations need a relaxed structure: the largest force is {largest:.2g} eV/Å, allowed is "
            f"fmax={fmax:g}; use relax='positions' or relax it yourself"
        )
    return rest


def _analysed(
    rest: Evaluated, raw: np.ndarray, moved: np.ndarray, molecule: bool, displacement: float
) -> Vibrations:
    atoms = rest.atoms
    masses = atoms.get_masses()[moved]
    hessian = (raw + raw.T) / 2.0
    root = np.repeat(np.sqrt(masses), 3)
    weighted = hessian / np.outer(root, root)
    rigid, linear = np.empty((0, len(root))), False
    if molecule:
        rigid, linear = rigid_motions(atoms.positions, masses)
        _warn_of_field(hessian, masses)
    # orthonormal basis of what is left after translations and rotations
    basis = np.linalg.svd(rigid, full_matrices=True)[2][len(rigid) :] if len(rigid) else np.eye(len(root))
    values, vectors = np.linalg.eigh(basis @ weighted @ basis.T)
    modes = (vectors.T @ basis / root).reshape(-1, len(moved), 3)
    full = np.zeros((len(modes), len(atoms), 3))
    full[:, moved] = modes
    full /= np.linalg.norm(full, axis=(1, 2), keepdims=True)
    frequencies = _to_inverse_cm(values)
    scale = np.abs(hessian).max()
    return Vibrations(
        formula=atoms.get_chemical_formula(),
        frequencies=frequencies,
        modes=full,
        hessian=hessian,
        indices=moved,
        zero_point_energy=float(frequencies[frequencies > 0].sum() / 2.0 / _INVERSE_CM),
        energy=rest.energy,
        rigid_frequencies=_to_inverse_cm(np.linalg.eigvalsh(rigid @ weighted @ rigid.T)),
        asymmetry=float(np.abs(raw - raw.T).max() / scale) if scale > 0 else 0.0,
        max_force=float(np.linalg.norm(rest.forces[moved], axis=1).max()),
        displacement=displacement,
        linear=linear,
        **fields_of(atoms, "numbers", "masses", "positions", "cell", "pbc"),
    )


def _warn_of_field(hessian: np.ndarray, masses: np.ndarray) -> None:
    """Warn where the molecule cannot move freely, so that what is projected out are vibrations."""
    whole = hessian.reshape(len(masses), 3, len(masses), 3).sum(axis=(0, 2))  # (3, 3) eV/Å²
    highest = float(_to_inverse_cm(np.linalg.eigvalsh(whole / masses.sum())).max())
    if highest > _HELD:
        warnings.warn(
            f"vibrations: something outside holds the molecule in its place (all atoms together vibrate at "
            f"{highest:.0f} 1/cm), and its translations and rotations were projected out all the same; name "
            f"all its atoms, indices=range({len(masses)}) or --atoms, to have these modes too",
            stacklevel=5,
        )


def _to_inverse_cm(eigenvalues: np.ndarray) -> np.ndarray:
    return np.sign(eigenvalues) * np.sqrt(np.abs(eigenvalues)) * _HBAR_OMEGA * _INVERSE_CM


def rigid_motions(positions: np.ndarray, masses: np.ndarray) -> tuple[np.ndarray, bool]:
    """Orthonormal mass-weighted translations and rotations (3, 5 or 6 rows of length 3n); is it linear?"""
    n = len(masses)
    root = np.sqrt(masses)[:, None]
    centred = positions - np.average(positions, axis=0, weights=masses)
    vectors = [np.tile(axis, (n, 1)) * root for axis in np.eye(3)]
    vectors += [np.cross(axis, centred) * root for axis in np.eye(3)]
    matrix = np.array(vectors).reshape(6, 3 * n)
    rows = np.linalg.svd(matrix, full_matrices=False)[2]
    # a linear molecule has no rotation about its axis, which a relaxation leaves a little bent
    axis = np.linalg.svd(centred)[2][0]
    off = np.linalg.norm(centred - np.outer(centred @ axis, axis), axis=1).max()
    linear = n > 1 and bool(off < _BENT)
    return rows[: 3 if n == 1 else 5 if linear else 6], linear
