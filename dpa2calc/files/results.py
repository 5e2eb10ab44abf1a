"""What calculations return: frozen numbers that can be summarised, plotted, saved and loaded."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.version import __version__

from .arrays import read_arrays, write_arrays
from .identity import differences
from .typed import Json, build

ResultType = TypeVar("ResultType", bound="Result")
Plain = TypeVar("Plain")
VERSION = 1
FAR = 3.0  # times the usual largest deviation of an element in the training set: beyond, do not rely on it
ROUGH = 0.3  # of the forces on its test frames: a head with more error is a start for fine-tuning
_FEW = 0.01  # of structures with an atom as far: such a share does not make the others' numbers
_MANY = 0.01  # of atoms beyond their range; in the training set it is 0.001


def error_text(error: float, form: str = ".2g") -> str:
    """An error in a format, by one digit where that gives 0; "unknown" for NaN (a mean of one frame)."""
    text = "unknown" if math.isnan(error) else format(error, form)
    return format(error, ".1g") if error > 0.0 and not text.strip("0.") else text


def two_digits(value: float) -> str:
    """Two significant digits, and no exponent below a million: "0.0025", "350"."""
    return f"{float(f'{value:.2g}'):g}"


def plus_minus(value: float, error: float) -> str:
    """A value with its error, both to the error's second digit: "1620 ± 460", "0.2513 ± 0.0022".

    "not determined" for NaN.
    """
    if math.isnan(value):
        return "not determined"
    if not (math.isfinite(error) and error > 0.0 and math.isfinite(value)):
        return f"{value:.6g} ± {error_text(error)}"
    digits = 1 - math.floor(math.log10(error))
    if digits > 7 or (digits < 0 and abs(value) > 1e6):
        return f"{value:.4g} ± {error:.2g}"
    if digits < 0:
        value, error = round(value, digits), round(error, digits)
    return f"{value:.{max(digits, 0)}f} ± {error:.{max(digits, 0)}f}"


class ShownBySummary:
    """Shown as its class and its `summary()`; a dataclass would list every array it holds.

    Example:
        >>> class Mean(ShownBySummary):
        ...     def summary(self):
        ...         return "1.5 ± 0.1 eV"
        >>> Mean()
        <Mean: 1.5 ± 0.1 eV>
    """

    def summary(self) -> str:
        """A line or one screen of text."""
        raise NotImplementedError

    def __repr__(self) -> str:
        text = self.summary()
        return f"<{type(self).__name__}{':' + chr(10) if chr(10) in text else ': '}{text}>"

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        # `dataclass` writes a __repr__ into every class that has none of its own.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]


@dataclass(frozen=True, kw_only=True)
class ModelDoubt(ShownBySummary):
    """How far the model behind a result can be believed.

    Attributes:
        head: its name. force_error, typical_force: root mean squares of components on frames like those of
            its training, eV/Å; `held_out` whether these were not trained on.
        energies_std: largest deviation of the energy of an atom that was met, eV, and its `element`.
        beyond: that deviation over the usual largest one of the element in the training set: its range.
        share_beyond: of the atoms that were met, those beyond their range, 0 to 1. structures: how many were
            evaluated (in this call; 0 where nobody counted), `far_structures` of them with an atom beyond
            three times its range.
        forces_std: of a committee, the largest disagreement on a component of a force that was met, eV/Å.
    """

    head: str
    force_error: float | None = None
    typical_force: float | None = None
    held_out: bool = True
    energies_std: float | None = None
    element: str = ""
    beyond: float | None = None
    share_beyond: float = 0.0
    structures: int = 0
    far_structures: int = 0
    forces_std: float | None = None

    def summary(self) -> str:
        """One line."""
        kind, parts = "test" if self.held_out else "training", []
        if self.force_error is not None:
            parts.append(error_of_forces(self.force_error, self.typical_force, kind))
        if self.energies_std is not None:
            parts.append(f"least known atom ({self.element}) ± {two_digits(1e3 * self.energies_std)} meV")
            if self.beyond is not None:
                parts[-1] += f", {two_digits(self.beyond)} times its range{self._how_often()}: {self.verdict}"
        if self.forces_std is not None:
            parts.append(f"its members' forces differ by up to {two_digits(1e3 * self.forces_std)} meV/Å")
        return f"{self.head}: {'; '.join(parts) or 'nothing was evaluated'}"

    @property
    def verdict(self) -> str:
        """What all structures together mean, in words: one atom in one step does not spoil a long run."""
        if not self.structures or self.far_structures > _FEW * self.structures:
            return verdict(self.beyond, self.force_error, self.typical_force)
        whole = FAR if self.share_beyond > _MANY else 1.0
        words = verdict(whole, self.force_error, self.typical_force)
        return f"{words}, but for these few structures" if self.far_structures else words

    def _how_often(self) -> str:
        if not self.share_beyond:
            return ""
        far = ""
        if self.structures > 1:
            many = f"{self.far_structures or 'none'} of {self.structures}"
            far = f", beyond {FAR:g} times in {many} structures"
        return f" ({two_digits(100.0 * self.share_beyond)} % of the atoms beyond theirs{far})"


def error_of_forces(error: float, typical: float | None, kind: str) -> str:
    """The force error of a head (eV/Å), and its share of the forces on the same frames."""
    share = f", {error / typical:.0%} of its {kind} forces" if typical else ""
    return f"{kind} force error {1e3 * error:.0f} meV/Å{share}"


def verdict(beyond: float | None, force_error: float | None = None, typical: float | None = None) -> str:
    """What a deviation means that is so many times the usual largest one of the training set, in words.

    Args:
        force_error, typical: of the head and of the forces, on frames like those of its training, eV/Å. A
            structure may be like those of a set that the head never learned well.
    """
    if beyond is None:
        return "uncertainty never measured (`dpa2calc uncertainty`)"
    if beyond > FAR:
        return "far from its training set: do not rely on it"
    place = "like its training set" if beyond <= 1.0 else "at the edge of its training set"
    rough = force_error is not None and typical and force_error > ROUGH * typical
    return f"{place}, which it knows roughly: fine-tune it first" if rough else place


def provenance(calculator: object = None, **extra: object) -> dict[str, Json]:
    """Describe where a result comes from: calculator, versions, machine, time, and what the caller adds.

    Args:
        calculator: any ASE calculator or None. One that has a `describe()` method (as
            DPA2Calculator has) is asked for its model, head and settings.
        extra: JSON-able entries such as `seed=1`.
    """
    record: dict[str, Json] = {
        **versions(),
        "machine": f"{platform.machine()} {platform.system()}",
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    if calculator is not None:
        record["calculator"] = type(calculator).__name__
        describe = getattr(calculator, "describe", None)
        if callable(describe):
            record["model"] = describe()
    record.update(extra)
    return record


def versions(*libraries: str) -> dict[str, str]:
    """Versions of this package, of Python, ASE, NumPy, and of further installed distributions."""
    own = {"dpa2calc": __version__, "python": platform.python_version()}
    return {**own, **library_versions("ase", "numpy", *libraries)}


def library_versions(*names: str) -> dict[str, str]:
    """Versions of installed distributions, for provenance."""
    return {name: _installed(name) for name in names}


_installed = functools.cache(metadata.version)  # it reads a file of text, milliseconds at each call


@dataclass(frozen=True, kw_only=True)
class Result(ShownBySummary):
    """Base of all results: of applications, evaluations, learning curves and distillations.

    Subclasses are frozen dataclasses whose fields are numbers, strings, numpy arrays, or (nested) lists,
    tuples, dicts and dataclasses of these. Units are ASE's (eV, Å, eV/Å³) unless the
    field's documentation says otherwise. `summary()` has the main numbers with units and uncertainties, on
    one screen; a shell or a notebook shows it. Of an application it ends with a line on the model, `doubt`,
    where the calculator knows it.
    """

    provenance: dict[str, Json] = field(default_factory=dict, repr=False)
    doubt: ModelDoubt | None = field(default=None, repr=False)

    def __init_subclass__(cls, **arguments: object) -> None:
        super().__init_subclass__(**arguments)
        if "summary" in cls.__dict__:
            cls.summary = _with_doubt(cls.summary)  # type: ignore[method-assign, assignment]

    def plot(self, ax: Any = None, /) -> Any:
        """Draw the result; returns the matplotlib axes."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to one `.npz` file (arrays) holding a JSON text (the rest); no pickle.

        The file is written beside its final name and renamed, so an interrupted write
        leaves an older file untouched. A result of another structure there is replaced with a warning.

        Raises:
            OutputError: the file cannot be written.
        """
        _warn_of_another(path, self.provenance)
        arrays: dict[str, np.ndarray] = {}
        values = {f.name: _pack(getattr(self, f.name), f.name, arrays) for f in dataclasses.fields(self)}
        write_arrays(path, {"class": type(self).__name__, "version": VERSION, "values": values}, arrays)
        return Path(path)

    @classmethod
    def load(cls: type[ResultType], path: str | os.PathLike[str]) -> ResultType:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, damaged, of another version, or holds another kind of result.
        """
        header, arrays = read_arrays(path, f"a result file written by {cls.__name__}.save")
        form = header if isinstance(header, dict) else {}
        found, values = form.get("class"), form.get("values")
        if not isinstance(found, str) or not isinstance(values, dict):
            raise DataError(
                f"{path} is not a result file written by {cls.__name__}.save: no class, no values"
            )
        if found != cls.__name__:
            raise DataError(f"{path} holds a {found}, not a {cls.__name__}; use {found}.load")
        if form.get("version") != VERSION:
            raise DataError(
                f"{path} has version {form.get('version')!r} of the result file, this dpa2calc reads version "
                f"{VERSION}; update dpa2calc, or compute the result again"
            )
        try:
            return from_plain(cls, {name: _unpack(value, arrays) for name, value in values.items()})
        except (ConfigError, ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(
                f"{path} does not have the fields of a {cls.__name__}, or is damaged ({error}); compute the "
                "result again"
            ) from error


def _with_doubt(summary: Callable[[ResultType], str]) -> Callable[[ResultType], str]:
    """A `summary` that ends with the line on the model; once, where it is built on that of its base."""

    @functools.wraps(summary)
    def told(self: ResultType) -> str:
        text, line = summary(self), "" if self.doubt is None else f"  model {self.doubt.summary()}"
        return text if line in text else f"{text}\n{line}"

    return told


def _warn_of_another(path: str | os.PathLike[str], mine: dict[str, Json]) -> None:
    """Warn where a result of another structure is about to be replaced."""
    if not os.path.isfile(path) or "identity" not in mine:
        return
    try:
        header, arrays = read_arrays(path, "a result")
        theirs = _unpack(header["values"]["provenance"], arrays)["identity"]["structure"]
        changed = differences({"structure": theirs}, {"structure": mine["identity"]["structure"]})
    except (DataError, KeyError, TypeError, ValueError):  # something else, or without an identity
        return
    if changed:
        warnings.warn(
            f"{path} held the result of another structure ({'; '.join(changed[:3])}), which is replaced; "
            "give each structure a name of its own",
            stacklevel=3,
        )


def from_plain(cls: type[Plain], values: object) -> Plain:
    """A result, or a part of one, from what `to_dict` made of it; NaN and infinity are results too.

    Raises:
        ConfigError: unknown, missing or wrong fields.
    """
    return cast(Plain, build(cls, values, number=float))


def _pack(value: object, name: str, arrays: dict[str, np.ndarray]) -> object:
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return {"__array__": name}
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {"__dict__": [[key, _pack(item, f"{name}.{key}", arrays)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, f"{name}.{i}", arrays) for i, item in enumerate(value)]
        return {"__tuple__": items} if isinstance(value, tuple) else items
    return value


def _unpack(value: Json, arrays: dict[str, np.ndarray]) -> Json:
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if isinstance(value, dict):
        if "__array__" in value:  # the name of one of the arrays; anything else is a KeyError
            return arrays[value["__array__"]]
        if "__tuple__" in value:
            return tuple(_unpack(item, arrays) for item in value["__tuple__"])
        return {
            (tuple(key) if isinstance(key, list) else key): _unpack(item, arrays)
            for key, item in value["__dict__"]
        }
    return value
