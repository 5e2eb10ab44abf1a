"""Sections of deepmd-kit's options: read key by key, and described by rows that serve both directions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from dpa2calc.errors import CheckpointError, ConfigError
from dpa2calc.files.typed import option_types, typed
from dpa2calc.model.config import to_dict

from .branch import Tree

NEEDED = object()  # an option without a default
_ABSENT = object()  # not written
_SAME = object()  # the default of an input.json is the class's
PRECISIONS = (None, "default", "float64", "double", "float32", "single")


@dataclass(frozen=True)
class Reading:
    """How a section is to be read.

    Attributes:
        missing: what an absent option means: "old", in a model file, the default of deepmd-kit's class, or
            what was done before the option existed; "default", in an `input.json`, the default there.
        arrays: of the model file, by name; some options can be told from them.
        n_types: number of elements in the type map.
    """

    missing: Literal["old", "default"] = "old"
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    n_types: int = 0

    def holds(self, part: str) -> bool:
        """Whether the file has arrays with `part` in their names."""
        return any(part in name for name in self.arrays)

    def n_neighbors(self, o: Options, key: str, statistics: str) -> int:
        """A number of neighbours, also as a list; "auto" and a missing one are read from the statistics.

        Args:
            statistics: name of the array (n_types, n_neighbors, 4) that is stored once for each slot.

        Raises:
            CheckpointError: it is not known.
        """
        value = o.get(key, "auto")
        if isinstance(value, (list, tuple)):
            return sum(typed(tuple[int, ...], value, f"{o.where}.{key}"))
        if not isinstance(value, str):
            return int(typed(int, value, f"{o.where}.{key}"))
        array = self.arrays.get(statistics)
        if not value.startswith("auto") or array is None or array.dim() != 3:
            raise CheckpointError(
                f"{o.where}.{key} = {value!r} is chosen by deepmd-kit from the data; write the numbers that "
                "`dp neighbor-stat` prints"
            )
        return int(array.shape[1])


class Options:
    """A section of options that remembers which of its keys have been asked for."""

    def __init__(self, values: object, where: str):
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{where} = {str(values)[:60]!r} is not a table of names and values")
        self.values, self.where, self.used = dict(values), where, set[str]()
        self.parts: dict[str, Options] = {}

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is missing or null."""
        self.used.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def read(self, hint: object, key: str, default: Any = None) -> Any:
        """The value, of the type of `hint` (see `files.typed`); the default where it is missing or null.

        Raises:
            ConfigError: it has another type.
        """
        value = self.get(key)
        return default if value is None else typed(hint, value, f"{self.where}.{key}")

    def need(self, key: str) -> Any:
        """The value of an option that has no default."""
        self.used.add(key)
        if self.values.get(key) is None:
            raise CheckpointError(f"{self.where} has no {key!r}; the file is not complete")
        return self.values[key]

    def present(self, names: Mapping[str, str]) -> Tree:
        """The options that are there, under our names; `names` has theirs and ours."""
        found = [(ours, self.get(theirs)) for theirs, ours in names.items()]
        return {ours: value for ours, value in found if value is not None}

    def kind(self, default: str, known: Mapping[str, str]) -> str:
        """Our word for the `type` of the section.

        Raises:
            ConfigError: it is another one than those of `known`.
        """
        kind = str(self.get("type", default))
        if kind.lower() not in known:
            raise ConfigError(f"{self.where}.type = {kind!r} is not supported; supported: {', '.join(known)}")
        return known[kind.lower()]

    def part(self, key: str) -> Options:
        """The section within this one, whose unknown keys count as this one's."""
        if key not in self.parts:
            self.parts[key] = Options(self.need(key), f"{self.where}.{key}")
        return self.parts[key]

    def refuse(self, key: str, allowed: Iterable[object], why: str) -> None:
        """Raise for a value that this package has no code for."""
        self.used.add(key)
        value = self.values.get(key)
        if value is not None and value not in tuple(allowed):
            raise CheckpointError(f"{self.where}.{key} = {value!r} is not supported: {why}")

    def unused(self, neutral: Iterable[str] = ()) -> list[str]:
        """Keys that nobody asked for, with their place; `neutral` ones of this section are left out."""
        known = self.used | set(neutral)
        own = [f"{self.where}.{key}" for key in self.values if key not in known and not key.startswith("_")]
        return own + [key for part in self.parts.values() for key in part.unused()]


def _as_it_is(value: object) -> object:
    return value


@dataclass(frozen=True)
class Row:
    """One option that is a field of our configuration; its type is the field's.

    Attributes:
        theirs: deepmd-kit's name.
        default: what a model file without it means; a function of section and reading where that depends.
        in_input: the default of an `input.json`, where it is another one.
        ours: name of the field, where it is another one.
        aliases: deepmd-kit's other names.
        change: of the value that was read, to ours, which deepmd-kit takes as well.
        find: reads the option instead, where it is given or has no default.
    """

    theirs: str
    default: object = NEEDED
    in_input: object = _SAME
    ours: str = ""
    aliases: tuple[str, ...] = ()
    change: Callable[[object], object] = _as_it_is
    find: Callable[[Options, Reading], object] | None = None

    @property
    def field(self) -> str:
        """Name of the field of our configuration."""
        return self.ours or self.theirs

    def missing(self, o: Options, reading: Reading) -> object:
        """The default that holds."""
        in_input = reading.missing == "default" and self.in_input is not _SAME
        default = self.in_input if in_input else self.default
        return default(o, reading) if callable(default) else default

    def read(self, o: Options, reading: Reading, hint: object) -> object:
        """The field's value; of several names, the first one goes first."""
        names = (self.theirs, *self.aliases)
        given = [(name, o.get(name)) for name in names if o.get(name) is not None]
        default = self.missing(o, reading)
        if self.find is not None and (given or default is NEEDED):
            return self.find(o, reading)
        found = [typed(hint, self.change(value), f"{o.where}.{name}") for name, value in given]
        return found[0] if found else o.need(self.theirs) if default is NEEDED else default


@dataclass(frozen=True)
class Fixed:
    """One option that no field of ours answers to.

    Attributes:
        written: its value in the files written here.
        allowed: the only values that there is code for, with the reason in `why`; without a reason, any
            value means nothing for the numbers of a trained model.
    """

    theirs: str
    written: object = _ABSENT
    allowed: tuple[object, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Part:
    """A section within a section: the field it becomes, and the option that says whether it is there."""

    ours: str
    theirs: str
    section: Section
    switch: str = ""


@dataclass(frozen=True)
class Section:
    """All options of one of our configurations."""

    config: type[Any]
    rows: tuple[Row, ...]
    fixed: tuple[Fixed, ...] = ()
    parts: tuple[Part, ...] = ()

    def read(self, o: Options, reading: Reading) -> Tree:
        """The fields of our configuration.

        Raises:
            CheckpointError: an option that is needed is missing, or asks for what there is no code for.
            ConfigError: an option of another type.
        """
        for fixed in self.fixed:
            if fixed.why:
                o.refuse(fixed.theirs, fixed.allowed, fixed.why)
        hints = option_types(self.config)
        fields = {row.field: row.read(o, reading, hints[row.field]) for row in self.rows}
        for part in self.parts:
            inner = o.part(part.theirs)
            if part.switch and not inner.read(bool, part.switch, False):
                inner.used.update(row.theirs for row in part.section.rows)
                continue
            fields[part.ours] = part.section.config(**part.section.read(inner, reading))
        return fields

    def write(self, config: object) -> Tree:
        """The section as deepmd-kit 3.2 writes it; without a configuration, its defaults."""
        out: Tree = {}
        for part in self.parts:
            inner = getattr(config, part.ours)
            switch = {part.switch: inner is not None} if part.switch else {}
            out[part.theirs] = out.get(part.theirs, {}) | switch | part.section.write(inner)
        for row in self.rows:
            out[row.theirs] = to_dict(row.default if config is None else getattr(config, row.field))
        return out | {row.theirs: row.written for row in self.fixed if row.written is not _ABSENT}


def same(**defaults: object) -> tuple[Row, ...]:
    """Rows of options whose names are ours, too."""
    return tuple(Row(name, default) for name, default in defaults.items())
