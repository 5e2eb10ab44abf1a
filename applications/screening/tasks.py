"""What a screening does to one structure, and to a handful at once: from Atoms to a record."""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from typing import Any, Literal, TypeAlias

from ase import Atoms

from dpa2calc.applications.crystals.elastic import elastic_constants
from dpa2calc.applications.crystals.eos import equation_of_state
from dpa2calc.applications.crystals.phonons import phonons
from dpa2calc.applications.molecules.vibrations import vibrations
from dpa2calc.applications.relaxation.relax import relax
from dpa2calc.applications.relaxation.relax_result import RelaxResult
from dpa2calc.applications.shared.application import checked_value
from dpa2calc.applications.shared.structures import check_finite, checked_copy
from dpa2calc.applications.shared.warned import collected_warnings
from dpa2calc.errors import ConfigError
from dpa2calc.files.typed import option_types, unknown_key
from dpa2calc.structures.given import as_energy

from .records import Record, done, failed
from .sources import Item
from .together import is_large, relax_together

Task: TypeAlias = Literal["evaluate", "relax", "eos", "elastic", "phonons", "vibrations"]

# Of each task the application, and which of the result's fields are kept. Units are those of the fields.
_APPLICATIONS: dict[str, tuple[Callable[..., Any], str]] = {
    "relax": (relax, "energy converged reason n_steps space_group_before space_group_after"),
    "eos": (
        equation_of_state,
        "volume volume_error bulk_modulus bulk_modulus_error bulk_modulus_derivative "
        "bulk_modulus_derivative_error residual",
    ),
    "elastic": (
        elastic_constants,
        "tensor errors constants moduli moduli_errors stable crystal_system space_group density "
        "debye_temperature reason",
    ),
    "phonons": (
        phonons,
        "stable lowest_frequency lowest_commensurate imaginary_fraction zero_point_energy temperatures "
        "free_energy entropy heat_capacity max_force max_stress",
    ),
    "vibrations": (vibrations, "frequencies n_imaginary zero_point_energy energy max_force"),
}
_OURS = ("atoms", "progress", "folder", "trajectory", "overwrite", "cell", "return")  # not for the caller
_TOGETHER = 32  # small structures of one job, where they are computed together
_PORTIONS = 16  # what is left is split into so many at least


def checked_options(task: Task, options: Mapping[str, object]) -> dict[str, Any]:
    """The options as the application takes them; what it does not take is refused before the work.

    Raises:
        ConfigError: an unknown name (the nearest right one is given), or a value that is not allowed.
    """
    if task == "evaluate":
        known: dict[str, Any] = {}
    else:
        hints = option_types(_APPLICATIONS[task][0])
        known = {name: hint for name, hint in hints.items() if name not in _OURS}
    for name, value in options.items():
        if not known:
            raise ConfigError(f"{name} = {value!r}: the task {task!r} takes no options")
        if name not in known:
            raise ConfigError(unknown_key(name, value, list(known)))
    return {name: checked_value(known[name], value, name) for name, value in options.items()}


def jobs(calculator: Any, task: Task, items: Iterator[Item]) -> Iterator[list[Item]]:
    """Portions for the processes of an executor: one large structure, or small ones to compute together.

    Portions become smaller towards the end, so that no process waits long for another.
    """
    most = _TOGETHER if _computes_together(calculator, task) else 1
    ahead = deque(islice(items, most * _PORTIONS))
    while ahead:
        size = max(1, min(most, len(ahead) // _PORTIONS))
        portion = [ahead.popleft() for _ in range(size)]
        ahead.extend(islice(items, size))
        small = [item for item in portion if not is_large(item)]
        yield from ([item] for item in portion if is_large(item))
        if small:
            yield small


def _computes_together(calculator: Any, task: Task) -> bool:
    many = callable(getattr(calculator, "evaluate", None))
    return many and (
        task == "evaluate" or (task == "relax" and "forces" in calculator.implemented_properties)
    )


def run_remotely(
    payload: bytes, task: Task, options: Mapping[str, object], items: Sequence[Item]
) -> list[Record]:
    """`run` in the process of an executor, where the calculator is unpacked once for each thread."""
    made = run(_unpacked(payload, threading.get_ident()), task, options, iter(items))
    return [record for records in made for record in records]


@lru_cache(maxsize=32)
def _unpacked(payload: bytes, thread: int) -> Any:
    return pickle.loads(payload)  # the caller's own calculator, from its process; never bytes of a file


def run(
    calculator: Any, task: Task, options: Mapping[str, object], items: Iterator[Item]
) -> Iterator[list[Record]]:
    """A record for each structure, in lists as they are made; what goes wrong with one is in its record."""
    alone = partial(_one, calculator, task, options)
    if not _computes_together(calculator, task):
        yield from ([alone(item)] for item in items)
    elif task == "relax":
        yield from relax_together(calculator, options, items, alone=alone, finished=_relaxed)
    else:
        while some := list(islice(items, _TOGETHER)):
            yield _evaluate(calculator, some, alone)


def _evaluate(calculator: Any, items: Sequence[Item], alone: Callable[[Item], Record]) -> list[Record]:
    """Together, which is many times faster for small structures."""
    try:
        found = calculator.evaluate([item.atoms for item in items])
        return [done(item, item.atoms, _kept(results), ()) for item, results in zip(items, found)]
    except Exception:  # one of them is bad: which, is found one by one
        return [alone(item) for item in items]


def _relaxed(item: Item, result: RelaxResult, caught: Sequence[str]) -> Record:
    return done(item, result.atoms(), _fields(result, "relax"), caught)


def _one(calculator: Any, task: Task, options: Mapping[str, object], item: Item) -> Record:
    assert item.atoms is not None
    atoms = item.atoms
    atoms.calc = calculator
    with collected_warnings() as caught:
        try:
            final, results = _work(task, atoms, options)
        except Exception as error:  # calculators raise whatever they like
            return failed(item, f"{type(error).__name__}: {error}")
    return done(item, final, results, caught)


def _work(task: Task, atoms: Atoms, options: Mapping[str, object]) -> tuple[Atoms, dict[str, Any]]:
    """The final structure, and what was found."""
    if task == "evaluate":
        checked_copy(atoms, what="evaluate", periodic=False)
        energy = as_energy(atoms.get_potential_energy())
        forces, stress = atoms.get_forces(), atoms.calc.results.get("stress", 0.0)
        check_finite(atoms, atoms.calc, "evaluate", energy, forces, stress)
        return atoms, _kept({**atoms.calc.results, "energy": energy})
    result = _APPLICATIONS[task][0](atoms, **options, progress=False)
    return result.atoms() if task == "relax" else atoms, _fields(result, task)


def _fields(result: Any, task: Task) -> dict[str, Any]:
    """What is kept of an application's result."""
    return {name: getattr(result, name) for name in _APPLICATIONS[task][1].split()}


def _kept(results: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a calculator's results."""
    names = ("energy", "forces", "stress", "energy_std", "forces_std")
    return {name: results[name] for name in names if name in results}
