"""Relaxing many small structures at once: each by its own optimiser, all evaluated together at every step.

A message-passing model spends most of the time of a small structure on what does not grow with its atoms.
Each structure is relaxed by `relax` itself, which stops wherever it needs forces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from inspect import signature
from itertools import islice
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from dpa2calc.applications.relaxation.relax import Settings, relax, relaxing
from dpa2calc.applications.relaxation.relax_result import RelaxResult
from dpa2calc.applications.shared.warned import collected_warnings

from .records import Record, failed
from .sources import Item

_MOST_ATOMS = 64  # of a structure; larger ones gain more from a neighbour list that is kept
_MOST_WITH_TABLES = 16  # of a structure; tables leave little that does not grow with the atoms
_AT_ONCE = 64  # structures
_OPTIONS = {"free": "relax", "symmetry": "keep_symmetry"}  # of `relax`; other fields have the option's name

Finished = Callable[[Item, RelaxResult, Sequence[str]], Record]


def relax_together(
    calculator: Any,
    options: Mapping[str, object],
    items: Iterator[Item],
    *,
    alone: Callable[[Item], Record],
    finished: Finished,
) -> Iterator[list[Record]]:
    """Records as structures are finished; another one takes the place of each that is.

    Args:
        calculator: with a method `evaluate`. options: of `relax`.
        alone: relaxes a large structure. finished: makes a record of a result and the warnings.
    """
    given = {name: option.default for name, option in signature(relax).parameters.items()} | dict(options)
    settings = Settings(**{f.name: given[_OPTIONS.get(f.name, f.name)] for f in fields(Settings)})
    tables = getattr(calculator, "parameters", {}).get("compressed", False)
    most = _MOST_WITH_TABLES if tables else _MOST_ATOMS
    running: list[_Running] = []
    while True:
        taken = 0
        for item in islice(items, _AT_ONCE - len(running)):
            taken += 1
            if is_large(item, most):
                yield [alone(item)]
            else:
                running.append(_Running(item, calculator, settings, finished))
        if not running and not taken:
            return
        if records := [one.record for one in running if one.record is not None]:
            yield records
        running = [one for one in running if one.record is None]
        _evaluate(calculator, running)
        for one in running:
            one.step()


def is_large(item: Item, most: int = _MOST_ATOMS) -> bool:
    """Whether a structure is better computed on its own."""
    return item.atoms is not None and len(item.atoms) > most


class _Running:
    """A relaxation on its way.

    Attributes:
        work: the atoms, which need to be evaluated.
        record: None until the end.
    """

    work: Atoms

    def __init__(self, item: Item, calculator: Any, settings: Settings, finished: Finished) -> None:
        assert item.atoms is not None
        self._item, self._finished = item, finished
        self.calculator = _Handed(calculator)
        item.atoms.calc = self.calculator
        self._steps = relaxing(item.atoms, settings)
        self._warnings: list[str] = []
        self.record: Record | None = None
        self.step()

    def step(self) -> None:
        """Up to the next evaluation, or to the end."""
        result: RelaxResult | None = None
        with collected_warnings() as caught:
            try:
                self.work = next(self._steps)
            except StopIteration as end:
                result = end.value
            except Exception as error:  # calculators raise whatever they like
                self.record = failed(self._item, f"{type(error).__name__}: {error}")
        self._warnings += caught
        if result is not None:
            reason = [f"relax: {result.reason}"] if result.reason else []
            self.record = self._finished(self._item, result, [*self._warnings, *reason])


class _Handed(Calculator):
    """Of one structure: the results that it is handed, and where it has none those of the real calculator."""

    def __init__(self, calculator: Any) -> None:
        super().__init__()
        self.implemented_properties = calculator.implemented_properties
        self.ignored_changes = getattr(calculator, "ignored_changes", set())
        self._calculator = calculator
        self._at: tuple[np.ndarray, np.ndarray] | None = None

    def hand(self, atoms: Atoms, results: Mapping[str, Any]) -> None:
        """Results of the atoms as they are now."""
        self._at, self.results = (atoms.positions.copy(), atoms.cell.array.copy()), dict(results)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """All or nothing; only positions and cell change in a relaxation."""
        at = self._at
        same = at is not None and np.array_equal(at[0], atoms.positions) and np.array_equal(at[1], atoms.cell)
        return [] if same else list(all_changes)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """By the real calculator: the batch failed, or an optimiser wants more than one evaluation a step."""
        assert atoms is not None
        self._calculator.calculate(atoms, properties, system_changes)
        self.hand(atoms, self._calculator.results)


def _evaluate(calculator: Any, running: Sequence[_Running]) -> None:
    """Hand every structure its results; none where one of them is bad, which then finds that out itself."""
    if len(running) < 2:  # on its own it keeps its neighbour list
        return
    try:
        found = calculator.evaluate([one.work for one in running])
    except Exception:  # of whatever kind; each computes on its own, and one raises it again
        return
    for one, results in zip(running, found):
        one.calculator.hand(one.work, results)
