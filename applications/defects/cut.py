"""What vacancies and surfaces share: the bulk, and structures cut from it, as cut and relaxed."""

from __future__ import annotations

import os
from functools import partial

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from dpa2calc.applications.relaxation.relaxer import Relaxation
from dpa2calc.applications.shared.cached import Evaluated, evaluate
from dpa2calc.applications.shared.structures import need_stress

Folder = str | os.PathLike[str] | None


def bulk_of(
    crystal: Atoms, calculator: BaseCalculator, relax: bool, motion: Relaxation, what: str, folder: Folder
) -> Evaluated:
    """The perfect crystal; if asked its positions and cell are relaxed, to 1e-4 eV/Å or less."""
    settings = None
    if relax:
        need_stress(calculator, f"{what} with relax_bulk=True")
        fmax = min(motion.fmax, 1e-4)
        settings = Relaxation(fmax=fmax, free="cell", max_steps=motion.max_steps, symmetry=True)
    (found,) = evaluate(
        [crystal], calculator, what=f"{what}, bulk", relaxation=settings, folder=folder, ensemble=True,
        progress=False,
    )  # fmt: skip
    return found


def as_cut_and_relaxed(
    structures: list[Atoms], calculator: BaseCalculator, motion: Relaxation | None, *, what: str,
    folder: Folder, progress: bool, rattle: float = 0.0, seed: int = 0,
) -> tuple[list[Evaluated], list[Evaluated]]:  # fmt: skip
    """Structures before and after relaxing, with random displacements (Å, standard deviation) in between.

    The latter hold the ensemble of the model.
    """
    run = partial(evaluate, calculator=calculator, folder=folder, progress=progress)
    rigid = run(structures, what=f"{what}, unrelaxed", ensemble=motion is None)
    if motion is None:
        return rigid, rigid
    for index, structure in enumerate(structures if rattle else ()):
        rng = np.random.default_rng([seed, index])
        structure.positions += rng.normal(0.0, rattle, structure.positions.shape)
    return rigid, run(structures, what=f"{what}, relaxing", relaxation=motion, ensemble=True)
