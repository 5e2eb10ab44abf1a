"""Paths as pymatgen-analysis-diffusion takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from dpa2calc.applications.shared.structures import require
from dpa2calc.structures.given import in_form

if TYPE_CHECKING:
    from pymatgen.analysis.diffusion.analyzer import DiffusionAnalyzer

    from .unwrapped import Paths


def diffusion_analyzer(paths: Paths, temperature: float, **options: Any) -> DiffusionAnalyzer:
    """A `pymatgen.analysis.diffusion.analyzer.DiffusionAnalyzer` on these paths.

    The drift is taken off already; other atoms stand still at their mean positions. Its errors are those of a
    straight line through correlated points, which are far too small.

    Args:
        temperature: K. options: of `DiffusionAnalyzer`, such as smoothed="max".

    Raises:
        MissingDependencyError: the extra `pymatgen` is not installed.
    """
    library = require("pymatgen.analysis.diffusion.analyzer", "Paths.to_pymatgen", "pymatgen")
    symbols = [paths.species] * paths.n_atoms + list(paths.host_symbols)
    atoms = Atoms(symbols, positions=[*paths.start, *paths.host_positions], cell=paths.cell, pbc=paths.pbc)
    moved = np.zeros((len(symbols), paths.n_frames, 3))
    moved[: paths.n_atoms] = paths.displacements.swapaxes(0, 1)
    return library.DiffusionAnalyzer(
        in_form(atoms, "Structure"), moved, paths.species, temperature,
        time_step=1000.0 * paths.interval_ps, step_skip=1, **options,
    )  # fmt: skip
