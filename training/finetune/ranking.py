"""Which head of a pre-trained model is nearest to new data, by its errors without training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase.units import Bohr, Hartree, kcal, kJ, mol

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ConfigError
from dpa2calc.files.typed import shown
from dpa2calc.labels.errors import Errors, Prediction, validation_score
from dpa2calc.model.config import HeadConfig
from dpa2calc.model.potential import Potential
from dpa2calc.training.data.dataset import Dataset, require_dataset, spread_frames
from dpa2calc.training.data.sets import lacking_parameters, require_parameters
from dpa2calc.training.evaluate import compare
from dpa2calc.training.fit.loader import Budget, GraphStore
from dpa2calc.training.fit.optimizers.optimizer import placed
from dpa2calc.training.fit.predict import predict_potential

FIRST_FRAMES = 12  # that all heads are compared on
FINALISTS = 8  # heads that are compared on the whole sample
NEIGHBOR_CACHE = 2**28  # bytes
_ALIKE = 0.9  # correlation of labels and predictions from which their ratio says something
_UNLIKE = 0.3  # of the best head, below which something is wrong: sets from outside had 0.6 and more
_USUAL = (0.5, 2.0)  # ratios of forces that a functional, or an untrained region, explains
_NEAR = 0.25  # by which the logarithm of a ratio may differ from that of a unit
_UNITS = {  # eV/Å in it -> what the labels may be
    -1.0: "gradients of the energy in place of forces",
    Bohr / Hartree: "Hartree/Bohr",
    2.0 * Bohr / Hartree: "Rydberg/Bohr",
    1.0 / Hartree: "Hartree/Å",
    mol / kcal: "kcal/mol/Å",
    mol / kJ: "kJ/mol/Å",
    10.0 * mol / kJ: "kJ/mol/nm",
}


@dataclass(frozen=True)
class HeadMatch:
    """Zero-shot errors of one head on the new data, after the energy bias was fitted to it.

    force_ratio: of labels to predictions, by least squares; None where the two have little in common.
    force_correlation: of the components of labels and predictions; None without forces, or where all are 0.
    """

    head: str
    errors: Errors
    score: float
    missing_elements: tuple[str, ...] = ()
    force_ratio: float | None = None
    force_correlation: float | None = None

    def __str__(self) -> str:
        note = f" (never saw {', '.join(self.missing_elements)})" if self.missing_elements else ""
        return f"{self.head}{note}: {self.errors}"

    def doubt(self) -> str | None:
        """What the labelled forces beside the predicted ones say of their unit, sign or order, or None."""
        ratio, correlation = self.force_ratio, self.force_correlation
        if correlation is not None and abs(correlation) < _UNLIKE:
            return (
                f"its forces have little in common with those of head {self.head}, the nearest one "
                f"(correlation {correlation:.2f}); are they forces of these atoms, in their order, or is "
                "the system far from everything that the model knows?"
            )
        if ratio is None or _USUAL[0] < ratio < _USUAL[1]:
            return None
        alike = {known: unit for known, unit in _UNITS.items() if ratio * known > 0}
        near = [unit for known, unit in alike.items() if abs(math.log(ratio / known)) < _NEAR]
        what = f"are they {near[0]}" if near else "is a unit or sign wrong"
        return f"its forces are {ratio:.3g} times those of head {self.head}; {what}? They must be in eV/Å"


@own_modes()
def rank_heads(
    potential: Potential, data: Dataset, *, frames: int = 100, seed: int = 0, device: str | None = None
) -> tuple[HeadMatch, ...]:
    """Zero-shot errors of every head on a sample of the data, best first.

    The energy of each element is fitted to the differences before errors are taken; where that fit leaves no
    freedom (no more frames than independent compositions) there is no energy error. Heads that have not
    seen all elements are compared only where no head has. Heads that need parameters which the data lack
    are left out.

    With more than eight heads all are compared on twelve frames, and the best eight on the whole sample.

    Raises:
        DataError: every head needs parameters (fparam, aparam) which the data lack.
        ConfigError: no head predicts energies.
    """
    require_dataset(data, "data")
    if not isinstance(potential, Potential):
        raise ConfigError(
            f"potential = {shown(potential)} is not allowed; allowed: a Potential, as load_model opens one"
        )
    sample = data.subset(spread_frames(data, frames, seed=seed))
    potential = placed(potential, device)
    heads = [item for item in enumerate(potential.config.heads) if not item[1].label]
    if not heads:
        raise ConfigError("this model has no head of energies to start from; set start_head = 'fresh'")
    usable = [item for item in heads if not any(lacking_parameters(f, item[1].fitting) for f in sample)]
    if not usable:
        require_parameters(sample[0], heads[0][1].fitting)
    usable = [item for item in usable if not _missing(item[1], data.elements)] or usable
    if len(usable) <= FINALISTS or len(sample) <= FIRST_FRAMES:
        return _matches(potential, sample, usable, data.elements)
    few = sample.subset(spread_frames(sample, FIRST_FRAMES, seed=seed))
    first = _matches(potential, few, usable, data.elements)
    places = {head.name: (place, head) for place, head in usable}
    best = [places[match.head] for match in first[:FINALISTS]]
    finalists = _matches(potential, sample, best, data.elements)
    return (*finalists, *first[FINALISTS:])


def _matches(
    potential: Potential,
    sample: Dataset,
    heads: Sequence[tuple[int, HeadConfig]],
    elements: Sequence[str],
) -> tuple[HeadMatch, ...]:
    """Zero-shot errors of some heads, by their places, on all frames of the sample; the best first."""
    matches, fitted_exactly, fit_bias = [], _fitted_exactly(sample), len(sample.with_energies()) > 0
    store = GraphStore(sample, potential.config, budget=Budget(NEIGHBOR_CACHE))
    for position, head in heads:
        predictions = predict_potential(potential, store, head=position)
        errors = compare(sample, predictions, fit_bias=fit_bias).errors
        if fitted_exactly:  # what is left is rounding, and must not choose
            errors = dataclasses.replace(errors, energy_rmse=None, energy_mae=None)
        score = validation_score({"": errors}, {"": 1.0})
        likeness = _likeness_of_forces(sample, predictions)
        matches.append(HeadMatch(head.name, errors, score, _missing(head, elements), *likeness))
    return tuple(sorted(matches, key=lambda m: m.score))


def _missing(head: HeadConfig, elements: Sequence[str]) -> tuple[str, ...]:
    """Those of the elements that a head has not seen; none where it does not say what it has seen."""
    return tuple(e for e in elements if head.elements and e not in head.elements)


def _likeness_of_forces(
    data: Dataset, predictions: Sequence[Prediction]
) -> tuple[float | None, float | None]:
    """Ratio of labels to predictions, where they are alike, and their correlation."""
    pairs = [(f.forces, p.forces) for f, p in zip(data, predictions) if f.forces is not None]
    if not pairs:
        return None, None
    label, made = (np.concatenate([np.ravel(part) for part in parts]) for parts in zip(*pairs))
    lengths = math.sqrt(float(label @ label) * float(made @ made))
    if not lengths:
        return None, None
    correlation = float(label @ made) / lengths
    alike = abs(correlation) > _ALIKE
    return float(label @ made) / float(made @ made) if alike else None, correlation


def _fitted_exactly(data: Dataset) -> bool:
    """Whether energies of the elements can be fitted to any energies that the frames may have."""
    counts = data.with_energies().compositions(data.elements)
    return len(counts) <= np.linalg.matrix_rank(counts) if len(counts) else False
