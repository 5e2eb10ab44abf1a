"""The loop over many structures: computed in batches, with results in the order of the structures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
from ase import Atoms

from dpa2calc.errors import DPA2CalcError
from dpa2calc.structures.graph import Graph, collate
from dpa2calc.structures.graph_builder import Inspector, graph_from_atoms
from dpa2calc.validation import check_finite

from .committee import Member
from .dense import Results, add_dispersion, compute, member_graphs
from .dispersion import Dispersion

Result = TypeVar("Result")


def batches(sizes: Iterable[int], limit: int) -> Iterator[list[int]]:
    """Places of consecutive structures with at most `limit` atoms together (one structure at least)."""
    batch: list[int] = []
    total = 0
    for place, size in enumerate(sizes):
        if batch and total + size > limit:
            yield batch
            batch, total = [], 0
        batch.append(place)
        total += size
    if batch:
        yield batch


def in_batches(
    work: Callable[[list[int]], Iterable[Result]], sizes: Sequence[int], limit: int
) -> Iterator[tuple[int, Result]]:
    """Place and result of each structure as it is done; those of similar size are computed together.

    Args:
        work: makes a result for each place of a batch.
        sizes: number of atoms of each structure. limit: of the atoms in a batch.
    """
    order = np.argsort(sizes, kind="stable").tolist()
    for batch in batches((sizes[place] for place in order), limit):
        places = [order[i] for i in batch]
        yield from zip(places, work(places))


def in_order(
    results: Iterable[tuple[int, Result]], done: Callable[[int], object] | None = None
) -> list[Result]:
    """The results of `in_batches` in the order of the structures; `done` is told that one more is there."""
    made: dict[int, Result] = {}
    for place, result in results:
        made[place] = result
        if done is not None:
            done(1)
    return [made[place] for place in range(len(made))]


def evaluate_many(
    members: Sequence[Member],
    structures: Sequence[Atoms],
    *,
    check: Callable[[Atoms], object],
    inspect: Inspector,
    batch_atoms: int,
    stresses: bool,
    dispersion: Dispersion | None,
    done: Callable[[int], object],
) -> list[Results]:
    """Results in the order of the structures; errors name the structure.

    Args:
        check: refuses a structure before anything is computed.
        inspect: looks at the distances in each structure.
        done: told how many more structures are finished.
    """
    for index, atoms in enumerate(structures):
        with naming(index, atoms):
            check(atoms)

    def work(places: list[int]) -> list[Results]:
        chosen = [structures[index] for index in places]
        columns: list[list[Graph]] = []
        for index, atoms in zip(places, chosen):
            with naming(index, atoms):
                build = partial(graph_from_atoms, atoms, positions=stresses, inspect=inspect)
                columns.append(member_graphs(members, atoms, build))
        graphs = [collate(list(column)) for column in zip(*columns)]
        results = compute(members, graphs, chosen, stresses=stresses)
        for index, atoms, result in zip(places, chosen, results):
            with naming(index, atoms):
                add_dispersion(result, atoms, dispersion)
                check_finite(result)
        return results

    return in_order(in_batches(work, [len(atoms) for atoms in structures], batch_atoms), done)


@contextmanager
def naming(index: int, atoms: object) -> Iterator[None]:
    """Puts 'structure 3 (Cu4): ' in front of the errors of this package."""
    try:
        yield
    except DPA2CalcError as error:
        formula = atoms.get_chemical_formula() if isinstance(atoms, Atoms) else "?"
        raise type(error)(f"structure {index} ({formula}): {error}") from error
