"""What vacancies and surfaces share: the bulk, and structures cut from it, as cut and relaxed."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.cached import Evaluated, evaluate
from dpa2calc.applications.shared.structures import need_stress


def bulk_of(
    crystal: Atoms, calculator: Any, relax: bool, motion: Relaxation, what: str, folder: Any
) -> Evaluated:
    """The perfect crystal; if asked its positions and cell are relaxed, to 1e-4 eV/Å or less."""
    settings = None
    if relax:
        need_stress(calculator, f"{what} with relax_bulk=True")
        settings = Relaxation(
            fmax=min(motion.fmax, 1e-4), free="cell", max_steps=motion.max_steps, symmetry=True
        )
    found = evaluate(
        [crystal], calculator, what=f"{what}, bulk", relaxation=settings, folder=folder, progress=False
    )
    return found[0]


def as_cut_and_relaxed(
    structures: list[Atoms], calculator: Any, motion: Relaxation | None, *, what: str, rattle: float = 0.0,
    seed: int = 0, **options: Any,
) -> tuple[list[Evaluated], list[Evaluated]]:  # fmt: skip
    """Structures before and after relaxing, with random displacements (Å, standard deviation) in between."""
    rigid = evaluate(structures, calculator, what=f"{what}, unrelaxed", **options)
    if motion is None:
        return rigid, rigid
    for index, structure in enumerate(structures if rattle else ()):
        rng = np.random.default_rng([seed, index])
        structure.positions += rng.normal(0.0, rattle, structure.positions.shape)
    return rigid, evaluate(structures, calculator, what=f"{what}, relaxing", relaxation=motion, **options)


def fields_of(atoms: Atoms, prefix: str = "") -> dict[str, np.ndarray]:
    """A structure as fields of a result: numbers, positions and cell."""
    parts = {"numbers": atoms.numbers, "positions": atoms.positions, "cell": atoms.cell.array}
    return {prefix + name: values.copy() for name, values in parts.items()}


def structure_of(result: Any, prefix: str = "") -> Atoms:
    """The structure that `fields_of` has put into a result."""
    return Atoms(**{n: getattr(result, prefix + n) for n in ("numbers", "positions", "cell")}, pbc=True)
