"""What a calculator says of how far its model can be believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
from ase import Atoms

from dpa2calc.ambient import own_modes
from dpa2calc.files.results import ModelDoubt
from dpa2calc.model.rigidity import Rigidity
from dpa2calc.structures.graph_builder import graph_from_atoms
from dpa2calc.validation import DistanceCheck, RangeCheck

from .committee import Member
from .dense import Results, changes_of_members, member_graphs
from .head_ranking import HeadFit, rank_heads


class TellsDoubt:
    """The part of `DPA2Calculator` that knows its uncertainty."""

    _members: Sequence[Member]
    _check_distances: DistanceCheck
    _check_range: RangeCheck
    atoms: Atoms | None
    results: Results

    def _check(self, atoms: Atoms) -> Atoms:
        raise NotImplementedError

    @own_modes()
    def rank_heads(self, atoms: Atoms) -> tuple[HeadFit, ...]:
        """The heads that saw all elements of a structure (else ElementError), the surest first."""
        return rank_heads(self._members[0].potential, atoms)

    @own_modes()
    def get_ensemble(self, atoms: Atoms) -> dict[str, np.ndarray] | None:
        """By how much the members of an ensemble differ from the model, on one structure.

        Of a single model these are the draws of its last layer whose forces have the spread `forces_std`
        (about five times the time of the forces), of a committee its models less their mean.

        Returns:
            "energy" (members,) eV, "forces" (members, n_atoms, 3) eV/Å and, where it is defined, "stress"
            (members, 6) eV/Å³; None where the model does not know its uncertainty.

        Raises:
            StructureError, ElementError: as of energies.
        """
        if self._members[0].head.label or (len(self._members) == 1 and self._rigidity is None):
            return None
        self._check(atoms)
        build = partial(graph_from_atoms, atoms, positions=False, inspect=self._check_distances)
        return changes_of_members(self._members, member_graphs(self._members, atoms, build), atoms)

    @contextmanager
    def watching(self, atoms: Atoms | None = None) -> Iterator[Callable[[], ModelDoubt | None]]:
        """Keep an eye on the atoms that are met inside the `with`; what it gives tells of them, and the head.

        It tells the same after the `with`, whatever is evaluated then.

        Args:
            atoms: a structure whose results may be known already.
        """
        check = self._check_range
        before = check.met, check.disagreement
        check.met = check.disagreement = None
        if atoms is not None and self.atoms is not None and not self.check_state(atoms):  # type: ignore[attr-defined]
            check(self.atoms, self.results)
        ended: list[ModelDoubt | None] = []
        try:
            yield lambda: ended[0] if ended else self._doubt()
        finally:
            ended.append(self._doubt())
            known = [met for met in (before[0], check.met) if met is not None]
            check.met = known[0] + known[1] if len(known) == 2 else next(iter(known), None)
            check.disagreement = max(filter(None, (before[1], check.disagreement)), default=None)

    def _doubt(self) -> ModelDoubt | None:
        """What is known of the head and of the atoms that were met; None where nothing can be."""
        check, head = self._check_range, self._members[0].head
        if check.facts is None:
            if len(self._members) == 1 or head.label:
                return None
            return ModelDoubt(head=f"committee of {len(self._members)}", forces_std=check.disagreement)
        facts = check.facts
        of_head = ModelDoubt(
            head=head.name,
            force_error=facts.force_error,
            typical_force=facts.typical_force,
            held_out=facts.held_out,
        )
        if (met := check.met) is None:
            return of_head
        ratio, std, element = met.least
        return dataclasses.replace(
            of_head,
            energies_std=std,
            element=element,
            beyond=ratio or None,
            share_beyond=met.beyond / max(met.atoms, 1),
            structures=met.structures,
            far_structures=met.far,
        )

    @property
    def _rigidity(self) -> Rigidity | None:
        """How sure a single model is; a committee says so in its own way."""
        first = self._members[0]
        return first.potential.rigidity(first.head_index) if len(self._members) == 1 else None
