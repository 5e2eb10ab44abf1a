"""Models that are looked at without torch, and loaded when they are needed."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dpa2calc.errors import DownloadError, DPA2CalcError
from dpa2calc.files.limits import parse_json
from dpa2calc.heads import resolve_head
from dpa2calc.model.config import HeadConfig, from_dict


def heads_in_header(model: str) -> tuple[HeadConfig, ...] | None:
    """The heads that a model of this package's own format names, read without torch and without its weights.

    None where that cannot be told (other formats, models to be fetched, damaged headers): loading says why.

    Raises:
        CheckpointError: there is no such file and no such name.
    """
    from safetensors import SafetensorError, safe_open

    from dpa2calc.store.registry import resolve_model

    try:
        path = resolve_model(model, offline=True)
    except DownloadError:
        return None
    try:
        with safe_open(path, framework="np") as file:
            header = parse_json((file.metadata() or {})["dpa2calc"], model)
        return tuple(from_dict(HeadConfig, head) for head in header["config"]["heads"])
    except (DPA2CalcError, SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None


def check_names(model: str, head: str | None = None) -> None:
    """Find out before torch is loaded that there is no such model, or no such head in it.

    Raises:
        CheckpointError, HeadError: what there is, is listed.
    """
    heads = heads_in_header(model)
    if heads is not None and head is not None:
        resolve_head(head, heads, model=model)


class DeferredCalculator(abc.ABC):  # noqa: B024 (the layout of ASE's calculators, to become one)
    """Turns into a `DPA2Calculator` when it is first used.

    Applications check their options, the structure and the libraries that they need before they ask the
    calculator anything, so what is wrong there is found before torch and the model are loaded.
    """

    # what applications ask before they start; the real list takes its place
    implemented_properties = ("energy", "free_energy", "energies", "forces", "stress", "stresses")

    def __init__(self, *arguments: object, **options: object) -> None:
        self._arguments, self._options = arguments, options

    def load(self) -> None:
        """Become the real calculator."""
        from dpa2calc.calculator import DPA2Calculator

        arguments, options = self.__dict__.pop("_arguments"), self.__dict__.pop("_options")
        self.__class__ = DPA2Calculator  # type: ignore[assignment]
        self.__init__(*arguments, **options)  # type: ignore[misc]

    @contextmanager
    def watching(self, atoms: object = None) -> Iterator[Callable[[], object]]:
        """As of the real calculator; not loaded for it, and None where it never was."""
        # after `load` it is the real one's
        yield lambda: None if type(self) is DeferredCalculator else self._doubt()  # type: ignore[operator]

    def __getattr__(self, name: str) -> object:
        # ASE asks every calculator for `set_atoms` when it is attached; Python asks for special methods
        if name == "set_atoms" or name.startswith("__"):
            raise AttributeError(name)
        self.load()
        return getattr(self, name)
