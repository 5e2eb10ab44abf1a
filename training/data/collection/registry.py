"""The datasets this package is trained on: source, licence and citation of each, and how to load them."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from dpa2calc.errors import DataError
from dpa2calc.training.data.corrections import Corrections, moved
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
        corrections: options of a set in a training file that mend what the checks found: stress_order,
            stress_factor, stress_offset, energy_shift_by_group, drop_frames, drop_test_frames,
            test_to_train, drop.
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
    corrections: Mapping[str, Any] = field(default_factory=dict)


@functools.cache
def _entries() -> tuple[RegisteredSet, ...]:
    text = resources.files(__package__).joinpath("datasets.json").read_text(encoding="utf-8")
    return tuple(RegisteredSet(**row) for row in json.loads(text))


def registered_sets() -> dict[str, RegisteredSet]:
    """All sets of the collection by name."""
    return {s.name: s for s in _entries()}


def load_registered(name: str, folder: PathLike, *, split: Literal["train", "test"] = "train") -> Dataset:
    """The frames of one set, with its `corrections`.

    Args:
        folder: holds `NAME/train.extxyz.xz` and `NAME/test.extxyz.xz`.

    Raises:
        DataError: no such set, or the file is not there; the message names its source.
    """
    sets = registered_sets()
    if name not in sets:
        raise DataError(f"no registered dataset {name!r}; there are {', '.join(sets)}")
    entry = sets[name]
    places = {key: tuple(entry.corrections.get(key, ())) for key in _PLACES}
    if split == "train" and not places["test_to_train"]:
        return _without(_read(entry, folder, split), places["drop_frames"])
    train = _read(entry, folder, "train") if split == "train" else Dataset((), name=name)
    train, test = moved(
        _without(train, places["drop_frames"] if split == "train" else ()),
        _read(entry, folder, "test"),
        to_train=places["test_to_train"],
        drop_test=places["drop_test_frames"],
    )
    return train if split == "train" else test


_PLACES = ("drop_frames", "drop_test_frames", "test_to_train")


def _read(entry: RegisteredSet, folder: PathLike, split: str) -> Dataset:
    """One file of a set, with corrected labels."""
    path = Path(folder) / entry.name / f"{split}.extxyz.xz"
    if not path.exists():
        raise DataError(f"there is no {path}; build it from {entry.source} as docs/datasets.md describes")
    names = {f.name for f in dataclasses.fields(Corrections)}
    corrections = Corrections(**{key: value for key, value in entry.corrections.items() if key in names})
    return corrections.apply(Dataset.read(path, name=entry.name), partial=True)


def _without(data: Dataset, places: Sequence[int]) -> Dataset:
    return data.subset(i for i in range(len(data)) if i not in set(places)) if places else data


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
