"""What every application does first: look at the types of its options, and keep its folder to itself."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import ParamSpec, TypeVar, cast

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from dpa2calc.dynamics.words import current_word
from dpa2calc.errors import StructureError
from dpa2calc.files.identity import calculator_identity, structure_identity
from dpa2calc.files.lock import locked_files, working_in
from dpa2calc.files.results import ModelDoubt, Result, provenance
from dpa2calc.files.typed import Hint, argument, option_types
from dpa2calc.structures.given import Form, as_atoms, form_of, in_form

from .structures import check_symprec

P = ParamSpec("P")
R = TypeVar("R")
_SEVERAL = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
_RECORDED = (bool, int, float, str)


def application_writing(*files: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """`application` for a function whose options `files` name files that it writes: they are locked too."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        several = {p.name for p in signature.parameters.values() if p.kind in _SEVERAL}
        defaults = {n: p.default for n, p in signature.parameters.items() if p.default is not p.empty}

        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            # not at import: the annotations may name what comes later in a module
            hints = {n: hint for n, hint in option_types(function).items() if n not in several}
            found = {n: checked_value(hints[n], v, n) for n, v in bound.arguments.items() if n in hints}
            forms = {form_of(v) for n, v in found.items() if hints[n] is Atoms} - {"Atoms"}
            form: Form = next(iter(forms), "Atoms")
            bound.arguments.update({n: as_atoms(v) if hints[n] is Atoms else v for n, v in found.items()})
            if "symprec" in found:
                check_symprec(found["symprec"])
            given = [bound.arguments[name] for name in files if bound.arguments.get(name) is not None]
            with working_in(bound.arguments.get("folder")), locked_files(*given):
                _check_atoms(hints, bound.arguments, function.__name__)
                with _watching(bound.arguments) as told:
                    result = function(*bound.args, **bound.kwargs)
                    signed = _signed(result, {**defaults, **bound.arguments}, function.__name__, form, told())
                return cast(R, signed)

        return checked

    return decorate


def checked_value(hint: Hint, value: object, name: str) -> typing.Any:
    """The value as its annotation has it; a word of earlier versions becomes that of today."""
    if typing.get_origin(hint) is typing.Literal:
        value = current_word(value, typing.get_args(hint), name, stacklevel=5)
    return argument(hint, value, name)


def _check_atoms(hints: Mapping[str, object], arguments: Mapping[str, object], function: str) -> None:
    """Raise StructureError where something else stands in for a structure."""
    for name, value in arguments.items():
        if hints.get(name) is Atoms and not isinstance(value, Atoms):
            raise StructureError(
                f"{function} needs an ase.Atoms object as {name}, got {type(value).__name__}; pymatgen's "
                "Structure and Molecule will do too"
            )


def _asked(arguments: Mapping[str, object]) -> tuple[Atoms | None, object]:
    """The structure that an application is asked about, if it is one, and the calculator."""
    atoms = arguments.get("atoms", arguments.get("initial"))
    if isinstance(atoms, Atoms):
        return atoms, atoms.calc
    return None, arguments.get("calculator")


def _watching(arguments: Mapping[str, object]) -> AbstractContextManager[Callable[[], ModelDoubt | None]]:
    """The calculator's watch over the atoms that are met; of one that knows no doubt, nothing."""
    atoms, calculator = _asked(arguments)
    watching = getattr(calculator, "watching", None)
    return watching(atoms) if callable(watching) else nullcontext(lambda: None)


def _signed(
    found: object, arguments: Mapping[str, object], function: str, form: Form, doubt: ModelDoubt | None
) -> object:
    """Results with the model's doubt, whose provenance names function, options, structure and calculator.

    Structures in place of a result come back in the form that was given.
    """
    if isinstance(found, Atoms):
        return in_form(found, form)
    if isinstance(found, tuple) and all(isinstance(item, Atoms) for item in found):
        return tuple(in_form(item, form) for item in found)
    if isinstance(found, dict):
        return {name: _signed(item, arguments, function, form, doubt) for name, item in found.items()}
    if not isinstance(found, Result):
        return found
    atoms, calculator = _asked(arguments)
    options = {n: v for n, v in arguments.items() if _is_plain(v) and n not in ("folder", "progress")}
    record = {**provenance(calculator, function=function, **options), **found.provenance}
    if atoms is not None and isinstance(calculator, BaseCalculator):
        identity = {"structure": structure_identity(atoms), "calculator": calculator_identity(calculator)}
        record["identity"] = identity
    if form != "Atoms":
        record["given"] = form
    return dataclasses.replace(found, provenance=record, doubt=doubt)


def _is_plain(value: object) -> bool:
    items = value if isinstance(value, (tuple, list)) else [value]
    return all(isinstance(item, _RECORDED) for item in items)


def application(function: Callable[P, R]) -> Callable[P, R]:
    """Options as the annotations say (NumPy's numbers are numbers, text is not), and the folder locked.

    Raises (beside what the function raises):
        ConfigError: an option of a wrong type, or another run at work in `folder`.
        OutputError: the folder cannot be written.
    """
    return application_writing()(function)
