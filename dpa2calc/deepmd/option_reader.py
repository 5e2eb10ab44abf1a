"""A section of deepmd-kit's options, read key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from dpa2calc.errors import CheckpointError
from dpa2calc.files.typed import typed


@dataclass(frozen=True)
class Reading:
    """How a section is to be read.

    Attributes:
        missing: what an absent option means: "old", in a model file, the default of deepmd-kit's class, or
            what was done before the option existed; "default", in an `input.json`, the default there.
        arrays: of the model file, by name; some options can be told from them.
    """

    missing: Literal["old", "default"] = "old"
    arrays: Mapping[str, Tensor] = field(default_factory=dict)

    def default(self, of_class: Any, of_input: Any) -> Any:
        """The default that holds; deepmd-kit's classes and its `input.json` have different ones."""
        return of_input if self.missing == "default" else of_class

    def holds(self, part: str) -> bool:
        """Whether the file has arrays with `part` in their names."""
        return any(part in name for name in self.arrays)

    def n_neighbors(self, o: Options, key: str, statistics: str) -> int:
        """A number of neighbours, also as a list; "auto" and a missing one are told from the statistics.

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

    def __init__(self, values: Any, where: str):
        if not isinstance(values, Mapping):
            raise CheckpointError(f"{where} = {str(values)[:60]!r} is no table of names and values")
        self.values, self.where, self.used = dict(values), where, set[str]()

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is missing or null."""
        self.used.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def read(self, hint: Any, key: str, default: Any = None) -> Any:
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

    def must(self, hint: Any, key: str) -> Any:
        """The value, of the type of `hint`, of an option that has no default."""
        return typed(hint, self.need(key), f"{self.where}.{key}")

    def refuse(self, key: str, allowed: Iterable[Any], why: str) -> None:
        """Raise for a value that this package has no code for."""
        self.used.add(key)
        value = self.values.get(key)
        if value is not None and value not in tuple(allowed):
            raise CheckpointError(f"{self.where}.{key} = {value!r} is not supported: {why}")

    def unused(self, neutral: Iterable[str] = ()) -> list[str]:
        """Keys that nobody asked for, with their place."""
        known = self.used | set(neutral)
        return [f"{self.where}.{key}" for key in self.values if key not in known and not key.startswith("_")]


PAIRS = tuple[tuple[int, int], ...]


def activation_name(o: Options) -> str:
    """The activation function's name, in lower case; `custom_silu` is deepmd-kit's other name of `silut`."""
    name = o.read(str, "activation_function", "tanh").lower()
    return "silut" + name.removeprefix("custom_silu") if name.startswith("custom_silu") else name
