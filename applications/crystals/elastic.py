"""Elastic constants of a crystal from the stress of small strains: full tensor, stability, averages."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from ase import Atoms, units

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.application import application
from dpa2calc.applications.shared.cached import Evaluated, evaluate
from dpa2calc.applications.shared.connected import check_connected
from dpa2calc.applications.shared.ensemble import WithModelErrors, spread
from dpa2calc.applications.shared.structures import (
    GPA,
    WithStructure,
    checked_copy,
    fields_of,
    need_stress,
    positive,
    require,
    symmetry_dataset,
)
from dpa2calc.errors import ConfigError
from dpa2calc.files.figures import Axes, axes_for

from . import elastic_tensor

if TYPE_CHECKING:
    from pymatgen.analysis.elasticity import ElasticTensor

_AVERAGED = {"bulk": "K", "shear": "G"}
_MAX_STRESS = 0.1  # GPa left in the reference before its constants are doubtful (order of C times 1e-3)


@dataclass(frozen=True, kw_only=True)
class ElasticConstants(WithModelErrors, WithStructure):
    """Elastic tensor of one crystal at zero temperature.

    Fields: `tensor` (6, 6) GPa in the frame of the given atoms (Voigt order xx yy zz yz xz xy), symmetrised;
    `errors` (6, 6) GPa, the larger of the fit's error (its standard error, and the change when only the
    smallest strains are used, in quadrature) and of what symmetrisation changed; `raw` (6, 6) GPa before
    symmetrisation; `standard_tensor` (6, 6) GPa in the standard orientation of the conventional cell, where
    `constants` ("C11" -> (value, error)) are the independent ones, NaN where not determined; `eigenvalues`
    (6,) GPa and `stable` (all above zero); `moduli`: Voigt, Reuss and Hill averages in GPa (names in
    `elastic_tensor.averages`) and `moduli_errors`; `density` kg/m³; `debye_temperature` K;
    `reference_stress` (6,) GPa left in the unstrained crystal; `cell` (3, 3) Å, `scaled_positions`,
    `numbers` of that crystal and what is `attached` to it; `strains` used; `relaxed_ions`; `reason`: what is
    not determined and why, "" where all is. These errors are those of the calculation with this calculator;
    `model_errors` of `constants` and `moduli` say how far the model may be from its reference.
    """

    formula: str
    crystal_system: str
    space_group: str
    tensor: np.ndarray
    errors: np.ndarray
    raw: np.ndarray
    standard_tensor: np.ndarray
    constants: dict[str, tuple[float, float]]
    eigenvalues: np.ndarray
    stable: bool
    moduli: dict[str, float]
    moduli_errors: dict[str, float]
    density: float
    debye_temperature: float
    reference_stress: np.ndarray
    cell: np.ndarray
    scaled_positions: np.ndarray
    numbers: np.ndarray
    strains: np.ndarray
    relaxed_ions: bool
    reason: str = ""

    def sound_velocities(self, direction: Sequence[float] | np.ndarray) -> np.ndarray:
        """Speeds (3,) in m/s, slowest first, of elastic waves along a Cartesian direction (given frame)."""
        return elastic_tensor.sound_velocities(self.tensor, self.density, direction)[0]

    def young_modulus(self, direction: Sequence[float] | np.ndarray) -> float:
        """Young's modulus (GPa) for a pull along a Cartesian direction: 1 / S_nnnn."""
        n = np.asarray(direction, dtype=float) / np.linalg.norm(direction)
        pull = np.array([n[i] * n[j] for i, j in elastic_tensor.VOIGT])  # stress of a unit pull
        strain = np.linalg.solve(self.tensor, pull)  # engineering strain, so strain along n is strain . pull
        return float(1.0 / np.dot(strain, pull))

    def to_pymatgen(self) -> ElasticTensor:
        """A `pymatgen.analysis.elasticity.ElasticTensor` in GPa; needs the extra `pymatgen`."""
        library = require("pymatgen.analysis.elasticity", "ElasticConstants.to_pymatgen", "pymatgen")
        return library.ElasticTensor.from_voigt(self.tensor)

    def summary(self) -> str:
        """Main numbers with units and errors."""
        m, e = self.moduli, self.moduli_errors
        verdict = "stable" if self.stable else "UNSTABLE: not all eigenvalues are positive"
        lowest, doubt = self.eigenvalues[0], np.linalg.norm(self.errors, 2)
        if abs(lowest) < doubt:
            verdict = f"stability not determined: the lowest eigenvalue is zero within ± {doubt:.2g} GPa"
        ions = "relaxed" if self.relaxed_ions else "clamped"
        lines = [
            f"Elastic constants of {self.formula} ({self.crystal_system}, {self.space_group}, ions {ions})",
            *(f"  {name} {self._number(name, *found):>18s}" for name, found in self.constants.items()),
            f"  {verdict} (lowest eigenvalue {lowest:.2f} GPa)",
            *(
                f"  {name + ' modulus':13s} {letter}  "
                f"{self._number(f'{name}_hill', m[f'{name}_hill'], e[f'{name}_hill'])}"
                f"  (Voigt {m[f'{name}_voigt']:.2f}, Reuss {_shown(m[f'{name}_reuss'], 2)})"
                for name, letter in _AVERAGED.items()
            ),
            f"  Young's modulus  {_shown(m['young_hill'], 2, ' GPa')}, "
            f"Poisson's ratio {_shown(m['poisson_hill'], 4)}, "
            f"universal anisotropy {_shown(m['anisotropy'], 3)}",
            f"  density {self.density:.1f} kg/m³, "
            f"Debye temperature {_shown(self.debye_temperature, 1, ' K')}",
            f"  stress left in the reference: {np.abs(self.reference_stress).max():.4f} GPa",
            *(
                []
                if self.model_errors
                else ["  errors are those of the fit; the error of the model comes on top"]
            ),
            *([f"  not determined: {self.reason}"] if self.reason else []),
        ]
        return "\n".join(lines)

    def _number(self, name: str, value: float, error: float) -> str:
        return _shown(value, 2) if np.isnan(value) else self.told(name, value, error, "GPa", 2)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The tensor in the standard orientation as a coloured 6 x 6 table in GPa; returns the axes."""
        axes = axes_for(ax)
        limit = np.abs(self.standard_tensor).max()
        axes.imshow(self.standard_tensor, cmap="RdBu_r", vmin=-1.5 * limit, vmax=1.5 * limit)
        for (i, j), value in np.ndenumerate(self.standard_tensor):
            axes.text(j, i, f"{round(value, 1) + 0.0:.1f}", ha="center", va="center", fontsize=8)
        for set_ticks in (axes.set_xticks, axes.set_yticks):
            set_ticks(range(6), ["xx", "yy", "zz", "yz", "xz", "xy"])
        axes.set_title(f"{self.formula}: elastic constants (GPa)")
        return axes


def _shown(value: float, digits: int, unit: str = "") -> str:
    return "not determined" if np.isnan(value) else f"{value:.{digits}f}{unit}"


@application
def elastic_constants(
    atoms: Atoms,
    *,
    strains: Sequence[float] = (0.005, 0.01),
    relax: Literal["fixed", "cell"] = "cell",
    relax_ions: bool = True,
    fmax: float = 1e-4,
    max_steps: int = 500,
    symprec: float = 1e-3,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> ElasticConstants:
    """Full elastic tensor: slopes of the stress at zero strain, six strains of both signs each.

    Each Voigt strain is applied with every magnitude of `strains` and both signs as the symmetric
    deformation 1 + e, and a cubic polynomial is fitted to each stress component; its slope is C_ij. Its
    error holds the scatter about the polynomial and the change of the slope when only the smallest strains
    are used. The matrix is then made symmetric and averaged over the crystal's point group. A constant whose
    error exceeds half of it and a twentieth of the largest one is not determined, nor is an average whose
    error exceeds half of it: both are NaN, and `reason` says so.

    Args:
        atoms: crystal with a calculator that offers stress; not changed. Any cell, any orientation.
        strains: two or more magnitudes.
        relax: "cell" relaxes positions and cell first (symmetry kept); "fixed" takes the atoms as they are,
            with a warning where stress is left.
        relax_ions: relax positions in each strained cell (False: clamped-ion constants).
        fmax: convergence of the relaxations, eV/Å.
        max_steps: give up a relaxation after so many steps.
        symprec: distance tolerance of the symmetry search, Å.
        folder: finished strains are kept here, and the work resumes from them.
        progress: show a progress bar on stderr.

    Raises:
        StructureError: no crystal (a slab or a molecule in a box is none), or a relaxation that does not
            converge.
        ConfigError: calculator without stress, bad strains.
        MissingDependencyError: spglib is not installed.
    """
    crystal, calculator = checked_copy(atoms, what="elastic_constants", masses=True)
    need_stress(calculator, "elastic_constants")
    magnitudes = np.sort(np.asarray(strains, dtype=float))
    if len(np.unique(magnitudes)) < 2 or magnitudes.min() <= 0 or magnitudes.max() > 0.1:
        raise ConfigError(
            f"strains must be two or more different magnitudes in (0, 0.1], got {list(strains)}"
        )
    positive("fmax", fmax)
    check_connected(crystal, name="elastic_constants", what="elastic constants")
    require("spglib", "elastic_constants")  # before the work, not after
    first = Relaxation(fmax=fmax, free="cell", max_steps=max_steps, symmetry=True, symprec=symprec)
    ions = Relaxation(fmax=fmax, max_steps=max_steps) if relax_ions else None
    run = partial(
        evaluate, calculator=calculator, folder=folder, stress=True, ensemble=True, progress=progress
    )
    (reference,) = run([crystal], what="relaxing the cell", relaxation=first if relax == "cell" else None)
    check_connected(reference.atoms, name="elastic_constants", what="elastic constants")
    left = np.abs(reference.stress).max() * GPA
    if left > _MAX_STRESS or reference.max_force > 10 * fmax:
        warnings.warn(
            f"elastic_constants: the crystal is not relaxed (stress up to {left:.2f} GPa, force up to "
            f"{reference.max_force:.2g} eV/Å); these are not its zero-pressure constants. Use relax='cell'",
            stacklevel=3,
        )
    grid, structures = _strained(reference.atoms, magnitudes)
    points = run(structures, what="elastic strains", relaxation=ions)
    raw, errors = _slopes(grid, [reference, *points])
    data = symmetry_dataset(reference.atoms, symprec, "elastic_constants", calculator)
    symmetry = elastic_tensor.CrystalSymmetry.of(reference.atoms, data)
    model_errors = spread(lambda of: symmetry.numbers(_slopes(grid, of)[0]), [reference, *points])
    fields = _assemble(raw, errors, reference.atoms, symmetry, magnitudes)
    return ElasticConstants(
        **fields,
        space_group=str(data.international),
        reference_stress=reference.stress * GPA,
        strains=magnitudes,
        relaxed_ions=relax_ions,
        model_errors=model_errors,
    )


def _strained(atoms: Atoms, magnitudes: np.ndarray) -> tuple[np.ndarray, list[Atoms]]:
    """Strains (2 m,) and the 6 * 2m strained crystals, Voigt component slowest."""
    grid = np.concatenate([-magnitudes[::-1], magnitudes])
    structures = []
    for i, j in elastic_tensor.VOIGT:
        for value in grid:
            strain = np.zeros((3, 3))
            strain[i, j] += value / 2.0  # twice on the diagonal, half an engineering shear off it
            strain[j, i] += value / 2.0
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            structures.append(strained)
    return grid, structures


def _slopes(grid: np.ndarray, points: Sequence[Evaluated]) -> tuple[np.ndarray, np.ndarray]:
    """C_ij (6, 6) and standard errors in GPa from the crystal at rest, then as `_strained` has them."""
    every = np.array([point.stress for point in points]) * GPA
    reference, stresses = every[0], every[1:].reshape(6, len(grid), 6)
    x = np.concatenate([grid, [0.0]]) / np.abs(grid).max()
    design = np.vander(x, 4, increasing=True)  # (n + 1, 4): cubic polynomial
    values = np.concatenate([stresses, np.broadcast_to(reference, (6, 1, 6))], axis=1)  # (6, n + 1, 6)
    flat = values.transpose(1, 0, 2).reshape(len(x), 36)
    solution = np.linalg.lstsq(design, flat, rcond=None)[0]  # (4, 36)
    freedom = max(1, len(x) - 4)
    noise = np.sqrt(((design @ solution - flat) ** 2).sum(axis=0) / freedom)  # (36,)
    leverage = np.sqrt(np.linalg.inv(design.T @ design)[1, 1])
    small = np.abs(grid).min()
    ends = [stresses[:, np.flatnonzero(grid == sign * small)[0]].ravel() for sign in (-1.0, 1.0)]
    scale = np.abs(grid).max()
    slope = solution[1] / scale
    errors = np.hypot(noise * leverage / scale, (ends[1] - ends[0]) / (2.0 * small) - slope)
    return slope.reshape(6, 6).T, errors.reshape(6, 6).T


def _assemble(
    raw: np.ndarray, fit_errors: np.ndarray, atoms: Atoms, symmetry: elastic_tensor.CrystalSymmetry,
    magnitudes: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """The fields that follow from the tensor."""
    mean, mean_errors = (raw + raw.T) / 2.0, (fit_errors + fit_errors.T) / 2.0
    tensor = symmetry.symmetrised(raw)
    errors = np.maximum.reduce([mean_errors, np.abs(raw - tensor), np.abs(raw.T - tensor)])
    rotation = symmetry.to_standard
    standard = elastic_tensor.rotate(tensor, rotation)
    density = float(atoms.get_masses().sum() * units._amu / (atoms.get_volume() * 1e-30))
    moduli = elastic_tensor.averages(tensor)
    eigenvalues = elastic_tensor.stability_eigenvalues(tensor)
    # one component has too few points for its noise, so the root mean square of all is the least error
    changed = np.abs(elastic_tensor.rotate(mean, rotation) - standard)
    turned = elastic_tensor.propagated(lambda c: elastic_tensor.rotate(c, rotation), tensor, mean_errors)
    standard_errors = np.maximum.reduce([changed, turned, np.full((6, 6), np.sqrt((fit_errors**2).mean()))])
    constants = {
        name: (value, float(standard_errors[int(name[1]) - 1, int(name[2]) - 1]))
        for name, value in symmetry.constants(tensor).items()
    }
    of_averages = elastic_tensor.propagated(
        lambda c: np.array([*elastic_tensor.averages(c).values()]), tensor, errors
    )
    moduli_errors = dict(zip(moduli, of_averages.tolist()))
    reason = _refuse(constants, moduli, moduli_errors, float(np.abs(standard).max()), magnitudes)
    return {
        "formula": atoms.get_chemical_formula(),
        "crystal_system": symmetry.system,
        "tensor": tensor,
        "errors": errors,
        "raw": raw,
        "standard_tensor": standard,
        "constants": constants,
        "eigenvalues": eigenvalues,
        "stable": bool(eigenvalues.min() > 0),
        "moduli": moduli,
        "moduli_errors": moduli_errors,
        "density": density,
        "debye_temperature": elastic_tensor.debye_temperature(
            moduli["bulk_hill"], moduli["shear_hill"], density, len(atoms) / atoms.get_volume()
        ),
        **fields_of(atoms, "cell", "scaled_positions", "numbers"),
        "reason": reason,
    }


def _refuse(
    constants: dict[str, tuple[float, float]], moduli: dict[str, float], moduli_errors: dict[str, float],
    largest: float, magnitudes: np.ndarray,
) -> str:  # fmt: skip
    """Set to NaN, in place, what its error leaves open; returns what and why, "" for nothing."""
    refused = []
    for name, (value, error) in constants.items():
        if error > 0.5 * abs(value) and error > 0.05 * largest:
            refused.append(f"{name} ({value:.3g} ± {error:.2g} GPa)")
            constants[name] = (float("nan"), error)
    for kind, label in _AVERAGED.items():
        value, error = moduli[f"{kind}_hill"], moduli_errors[f"{kind}_hill"]
        if error > 0.5 * abs(value):
            refused.append(f"{label} ({value:.3g} ± {error:.2g} GPa)")
            # the moduli of this kind, and what is made of both kinds
            others = tuple(set(_AVERAGED) - {kind})
            moduli.update({name: float("nan") for name in moduli if not name.startswith(others)})
    if not refused:
        return ""
    return (
        f"{', '.join(refused)}: the stresses at strains of {', '.join(f'{m:g}' for m in magnitudes)} scatter "
        "about their slope, or the slope changes with the strain. Use dtype='float64', a lower fmax, or "
        "other strains"
    )
