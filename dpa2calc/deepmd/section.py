"""A section of deepmd-kit's options, read key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from dpa2calc.errors import CheckpointError

# What an absent option means: what was done before the option existed, or version 3.2's default.
Missing = Literal["old", "default"]


class Options:
    """A section of options that remembers which of its keys have been asked for."""

    def __init__(self, values: Mapping[str, Any], where: str):
        self.values, self.where, self.used = dict(values), where, set[str]()

    def get(self, key: str, default: Any = None) -> Any:
        """The value, or the default where the key is missing or null."""
        self.used.add(key)
        value = self.values.get(key)
        return default if value is None else value

    def need(self, key: str) -> Any:
        """The value of an option that has no default."""
        self.used.add(key)
        if self.values.get(key) is None:
            raise CheckpointError(f"{self.where} has no {key!r}; the file is not complete")
        return self.values[key]

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


def pairs(values: Iterable[Iterable[int]]) -> tuple[tuple[int, int], ...]:
    """Excluded type pairs as tuples."""
    return tuple((int(a), int(b)) for a, b in values)


def activation_name(o: Options) -> str:
    """The activation function's name, in lower case; `custom_silu` is deepmd-kit's other name of `silut`."""
    name = str(o.get("activation_function", "tanh")).lower()
    return "silut" + name.removeprefix("custom_silu") if name.startswith("custom_silu") else name
