"""Which heads of a model suit a structure: those that know its elements, the surest first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms

from dpa2calc.ambient import own_modes
from dpa2calc.errors import ElementError
from dpa2calc.files.results import FAR, ShownBySummary, error_of_forces, two_digits, verdict
from dpa2calc.heads import heads_that_know, said_once
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph_builder import graph_from_atoms
from dpa2calc.validation import DistanceCheck, check_finite, check_structure


@dataclass(frozen=True, kw_only=True)
class HeadFit(ShownBySummary):
    """How well one head knows a structure.

    Attributes:
        beyond: deviation of the energy of its least known atom, over the usual largest one of the element in
            the training set; None where the uncertainty of the head was never measured.
        atom: which atom that is. energy_std: of the structure, eV.
        force_error, typical_force: root mean squares on frames like those of the training, eV/Å.
    """

    head: str
    functional: str
    description: str
    beyond: float | None = None
    atom: int | None = None
    energy_std: float | None = None
    force_error: float | None = None
    typical_force: float | None = None

    @property
    def verdict(self) -> str:
        """In words."""
        return verdict(self.beyond, self.force_error, self.typical_force)

    def summary(self) -> str:
        """One line."""
        parts = [self.head, self.functional or "functional not stated"]
        if self.beyond is not None:
            parts.append(f"{two_digits(self.beyond)} times its range")
        if self.force_error is not None and self.typical_force:
            parts.append(error_of_forces(self.force_error, self.typical_force, "test"))
        return ", ".join(parts) + f": {self.verdict}"


@own_modes(grad=False)
def rank_heads(potential: Potential, atoms: Atoms) -> tuple[HeadFit, ...]:
    """The heads of energies that saw all elements of a structure, the one that knows it best first.

    Heads with the same verdict are sorted by the deviation of its energy. Heads whose uncertainty was never
    measured, or that need parameters, come last, as they are listed.

    Raises:
        StructureError: no structure, or atoms on top of each other. ElementError: no head saw all elements.
    """
    check_structure(atoms)
    energies = [head for head in potential.config.heads if not head.label]
    known = {head.name for head in heads_that_know(atoms.symbols, energies)}
    if not known:
        raise ElementError(_no_head(atoms, (head.elements for head in energies)))
    graph = graph_from_atoms(atoms, potential.config.graph_spec, positions=False, inspect=DistanceCheck())
    fits, measured = [], []
    for place, head in enumerate(potential.config.heads):
        if head.name not in known:
            continue
        fits.append(
            HeadFit(head=head.name, functional=head.functional, description=said_once(head.description))
        )
        if potential.rigidity(place) is not None and not (
            head.fitting.numb_fparam or head.fitting.numb_aparam
        ):
            measured.append((len(fits) - 1, place))
    with torch.no_grad():  # the descriptor once for all heads
        found = potential.features(graph.to(potential.device), *(place for _, place in measured))
    for (number, place), (_, features) in zip(measured, found):
        rigidity = potential.rigidity(place)
        assert rigidity is not None
        types, structure = graph.types.to(features.device), graph.structure.to(features.device)
        limits = rigidity.limits[types].double().cpu().numpy()
        deviations = rigidity.of_atoms(features, types).double().cpu().numpy()
        check_finite({"energies_std": deviations})
        ratios = deviations / np.where(limits > 0, limits, np.inf)
        fits[number] = dataclasses.replace(
            fits[number],
            beyond=float(ratios.max()),
            atom=int(ratios.argmax()),
            energy_std=float(rigidity.of_structures(features, types, structure, 1)[0]),
            force_error=rigidity.facts.force_error,
            typical_force=rigidity.facts.typical_force,
        )
    return tuple(sorted(fits, key=by_doubt))


def by_doubt(fit: HeadFit) -> tuple[float, float]:
    """What heads are sorted by: by the verdict, then by the deviation of the energy; far ones by how far.

    By `beyond` alone heads of everything would come first: their range is wide as they know nothing well.
    """
    if fit.beyond is None or fit.energy_std is None:
        return np.inf, 0.0
    if fit.beyond > FAR:
        return fit.beyond, 0.0
    return float(fit.beyond > 1.0), fit.energy_std


def _no_head(atoms: Atoms, seen: Iterable[tuple[str, ...]]) -> str:
    wanted = sorted(set(atoms.symbols))
    best = max(seen, key=lambda own: len(set(wanted) & set(own)), default=())
    missing = ", ".join(symbol for symbol in wanted if symbol not in best)
    return (
        f"no head of this model saw {' '.join(wanted)} together (the nearest lacks {missing}); fine-tune one "
        "on frames with these elements, or take another model (`dpa2calc models`)"
    )
