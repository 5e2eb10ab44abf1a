"""Errors of what needs no model, beside those of a model: zero forces, and energies from the composition."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dpa2calc.labels.errors import Errors
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.element_energies import least_squares

ROUGH = 0.5  # of the forces; a model with more error than this is no use for dynamics


@dataclass(frozen=True)
class Baselines:
    """Root mean square errors without a model, None where there are no labels.

    force: of zero forces, meV/Å. energy: of energies from the elements' alone, fitted to the training frames,
    meV/atom.
    """

    force: float | None
    energy: float | None

    @classmethod
    def of(cls, train: Dataset, data: Dataset) -> Baselines:
        """For the frames of `data`."""
        forces = [frame.forces.ravel() for frame in data if frame.forces is not None]
        force = 1e3 * float(np.sqrt(np.mean(np.concatenate(forces) ** 2))) if forces else None
        return cls(force, _by_composition(train, data))

    def failed(self, errors: Errors) -> bool:
        """Whether a model with these errors is worse than zero forces (without forces: than composition)."""
        pairs = ((errors.force_rmse, self.force), (errors.energy_rmse, self.energy))
        known = ((made, trivial) for made, trivial in pairs if made is not None and trivial is not None)
        return next((made >= trivial for made, trivial in known), False)

    def verdict(self, errors: Errors, zero_shot: Errors | None = None) -> str:
        """One line: the errors of the baselines, of the model before its training, and what follows."""
        parts = []
        if self.force is not None:
            parts.append(f"zero forces {self.force:.1f} meV/Å")
        if self.energy is not None:
            parts.append(f"energies from composition {self.energy:.1f} meV/atom")
        if zero_shot is not None and zero_shot.force_rmse is not None:
            parts.append(f"before fine-tuning {zero_shot.force_rmse:.1f} meV/Å")
        beside = f"beside {', '.join(parts)}: " if parts else ""
        if self.failed(errors):
            return f"{beside}worse than no model at all; train longer, on more frames, or from a better head"
        if errors.force_rmse is None or not self.force:
            return f"{beside}better than no model"
        share = errors.force_rmse / self.force
        if zero_shot is not None and zero_shot.force_rmse and errors.force_rmse > zero_shot.force_rmse:
            return f"{beside}worse than before fine-tuning ({share:.0%} of the forces); train longer"
        if share > ROUGH:
            return f"{beside}too rough for dynamics ({share:.0%} of the forces); train longer, on more frames"
        return f"{beside}force error {share:.0%} of the forces"


def _by_composition(train: Dataset, data: Dataset) -> float | None:
    known, tests = train.with_energies(), data.with_energies()
    if not len(known) or not len(tests):
        return None
    elements = tuple(sorted({*known.elements, *tests.elements}))
    counts = known.compositions(elements)
    energies = least_squares(counts, np.array([frame.energy for frame in known], dtype=np.float64))
    sizes = tests.compositions(elements)
    errors = np.array([frame.energy for frame in tests], dtype=np.float64) - sizes @ energies
    return 1e3 * float(np.sqrt(np.mean((errors / sizes.sum(axis=1)) ** 2)))
