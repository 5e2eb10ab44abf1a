"""The datasets this package is trained on: source, licence and citation of each, and how to load them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from dpa2calc.errors import DataError
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.readers import PathLike
from dpa2calc.training.data.sets import TrainingSet


@dataclass(frozen=True, kw_only=True)
class RegisteredSet:
    """One dataset of the collection: `FOLDER/NAME/train.extxyz.xz` and `test.extxyz.xz`.

    Attributes:
        head: sets labelled with identical DFT settings share a head.
        weight: for multi-task training, after the paper's manner: by relevance, diversity and volume.
        source: repository, commit and path. licence: as stated there; "" = none stated.
        redistributable: whether the repository of this package may carry frames of it.
        remark: what to know before trusting the labels.
    """

    name: str
    domain: str
    head: str
    n_train: int
    n_test: int
    functional: str
    code: str
    stress: bool
    weight: float
    source: str
    licence: str
    citation: str
    redistributable: bool = False
    remark: str = ""


@functools.cache
def _entries() -> tuple[RegisteredSet, ...]:
    text = resources.files(__package__).joinpath("datasets.json").read_text(encoding="utf-8")
    return tuple(RegisteredSet(**row) for row in json.loads(text))


def registered_sets() -> dict[str, RegisteredSet]:
    """All sets of the collection by name."""
    return {s.name: s for s in _entries()}


def load_registered(name: str, folder: PathLike, *, split: Literal["train", "test"] = "train") -> Dataset:
    """The frames of one set.

    Args:
        folder: holds `NAME/train.extxyz.xz` and `NAME/test.extxyz.xz`.

    Raises:
        DataError: no such set, or the file is not there; the message names its source.
    """
    sets = registered_sets()
    if name not in sets:
        raise DataError(f"no registered dataset {name!r}; there are {', '.join(sets)}")
    path = Path(folder) / name / f"{split}.extxyz.xz"
    if not path.exists():
        raise DataError(
            f"there is no {path}; build it from {sets[name].source} as docs/datasets.md describes"
        )
    return Dataset.read(path, name=name)


def training_collection(
    folder: PathLike,
    *,
    names: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    validation_fraction: float = 0.05,
    max_validation: int = 64,
    seed: int = 0,
) -> tuple[dict[str, TrainingSet], dict[str, Dataset]]:
    """Training sets with heads, weights and held-out validation frames, and the test sets, by name.

    Args:
        names: which sets; all when left out. exclude: sets to leave out.
        validation_fraction: of the training frames, at most `max_validation` of them.

    Example:
        >>> sets, test = training_collection("data", exclude=("H2O-DPLR", "Alloy-LiAl"))
    """
    gone = set(exclude)
    chosen = [n for n in (names if names is not None else registered_sets()) if n not in gone]
    sets, test = {}, {}
    for name in chosen:
        data = load_registered(name, folder)
        entry = registered_sets()[name]
        n_validation = min(max(int(validation_fraction * len(data)), 1), max_validation)
        train, validation = data.split(1.0 - n_validation / len(data), seed=seed)
        sets[name] = TrainingSet(train, validation, head=entry.head, weight=entry.weight)
        test[name] = load_registered(name, folder, split="test")
    return sets, test
