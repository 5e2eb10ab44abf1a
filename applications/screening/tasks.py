"""What a screening does to one structure, and to a handful at once: from Atoms to a record."""

from __future__ import annotations

import inspect
import pickle
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from ase import Atoms

from dpa2calc.applications.crystals.elastic import elastic_constants
from dpa2calc.applications.crystals.eos import equation_of_state
from dpa2calc.applications.crystals.phonons import phonons
from dpa2calc.applications.molecules.vibrations import vibrations
from dpa2calc.applications.relaxation.relax import relax
from dpa2calc.errors import ConfigError
from dpa2calc.files.typed import unknown_key

from .sources import Item

Task: TypeAlias = Literal["evaluate", "relax", "eos", "elastic", "phonons", "vibrations"]
Record: TypeAlias = dict[str, Any]

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
_OURS = ("atoms", "progress", "folder", "trajectory", "overwrite", "cell")  # not for the caller to choose
UNITS = {
    "energy": "eV", "forces": "eV/Å", "stress": "eV/Å³", "max_force": "eV/Å", "volume": "Å³",
    "bulk_modulus": "GPa", "tensor": "GPa", "constants": "GPa", "moduli": "GPa", "max_stress": "GPa",
    "density": "kg/m³", "debye_temperature": "K", "zero_point_energy": "eV (phonons: eV/atom)",
    "free_energy": "eV/atom", "entropy": "eV/K/atom", "heat_capacity": "eV/K/atom", "temperatures": "K",
    "lowest_frequency": "THz", "frequencies": "1/cm", "residual": "eV/atom", "positions": "Å", "cell": "Å",
}  # fmt: skip


def check_options(task: Task, options: Mapping[str, Any]) -> None:
    """Refuse before the work what the task does not take.

    Raises:
        ConfigError: the nearest right name is given.
    """
    if task == "evaluate":
        known: list[str] = []
    else:
        known = [n for n in inspect.signature(_APPLICATIONS[task][0]).parameters if n not in _OURS]
    for name, value in options.items():
        if not known:
            raise ConfigError(f"{name} = {value!r}: the task {task!r} takes no options")
        if name not in known:
            raise ConfigError(unknown_key(name, value, known))


def run_remotely(
    payload: bytes, task: Task, options: Mapping[str, Any], items: Sequence[Item]
) -> list[Record]:
    """`run` in the process of an executor, where the calculator is unpacked once for each thread."""
    return run(_unpacked(payload, threading.get_ident()), task, options, items)


@lru_cache(maxsize=32)
def _unpacked(payload: bytes, thread: int) -> Any:
    return pickle.loads(payload)  # the caller's own calculator, from its process; never bytes of a file


def run(calculator: Any, task: Task, options: Mapping[str, Any], items: Sequence[Item]) -> list[Record]:
    """A record for each structure; whatever goes wrong with one is in its record."""
    if task == "evaluate" and len(items) > 1 and callable(getattr(calculator, "evaluate", None)):
        try:  # together, which is many times faster for small structures
            found = calculator.evaluate([item.atoms for item in items])
            return [_done(item, item.atoms, _kept(r), ()) for item, r in zip(items, found)]
        except Exception:  # one of them is bad: which, is found one by one
            pass
    return [_one(calculator, task, options, item) for item in items]


def _one(calculator: Any, task: Task, options: Mapping[str, Any], item: Item) -> Record:
    assert item.atoms is not None
    atoms = item.atoms
    atoms.calc = calculator
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            final, results = _work(task, atoms, options)
        except Exception as error:  # calculators raise whatever they like
            return failed(item, f"{type(error).__name__}: {error}")
    return _done(item, final, results, [str(w.message) for w in caught])


def _work(task: Task, atoms: Atoms, options: Mapping[str, Any]) -> tuple[Atoms, dict[str, Any]]:
    """The final structure, and what was found."""
    if task == "evaluate":
        atoms.get_forces()
        return atoms, _kept({"energy": atoms.get_potential_energy(), **atoms.calc.results})
    function, fields = _APPLICATIONS[task]
    result = function(atoms, **options, progress=False)
    final = result.atoms() if task == "relax" else atoms
    return final, {name: getattr(result, name) for name in fields.split()}


def _kept(results: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a calculator's results."""
    names = ("energy", "forces", "stress", "energy_std", "forces_std")
    return {name: results[name] for name in names if name in results}


def failed(item: Item, reason: str) -> Record:
    """The record of a structure that cannot be done."""
    formula = "?" if item.atoms is None else item.atoms.get_chemical_formula()
    line = " ".join(reason.split())
    return {"key": item.key, "name": item.name, "formula": formula, "status": "failed", "error": line}


def _done(item: Item, final: Atoms | None, results: Mapping[str, Any], caught: Sequence[str]) -> Record:
    assert final is not None
    return {
        "key": item.key,
        "name": item.name,
        "formula": final.get_chemical_formula(),
        "status": "done",
        "warnings": list(caught),
        "numbers": final.numbers.tolist(),
        "positions": final.positions.tolist(),
        "cell": final.cell.array.tolist(),
        "pbc": final.pbc.tolist(),
        "results": plain(results),
    }


def plain(value: Any) -> Any:
    """As JSON holds it."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
