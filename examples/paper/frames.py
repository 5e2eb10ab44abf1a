"""Frames to learn from and to test on, of plain files or of the collection, for the scripts of fine-tuning.

Scripts in this folder import it as `frames`, those in examples/ as `paper.frames`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dpa2calc.training import Dataset, load_registered

TESTED = 16  # last frames of a file, where no other file holds the test


def frames_of(name: str, folder: Path) -> tuple[Dataset, Dataset]:
    """Frames to learn from and to test.

    Args:
        name: of NAME.extxyz in the folder, whose test is NAME.test.extxyz or, where there is none, its own
            last sixteen frames; or of a set of the collection.
    """
    path = folder / f"{name}.extxyz"
    if not path.exists():
        return load_registered(name, folder), load_registered(name, folder, split="test")
    data, other = Dataset.read(path, name=name), path.with_suffix(".test.extxyz")
    if other.exists():
        return data, Dataset.read(other, name=name)
    last = len(data) - TESTED
    return data.subset(range(last)), data.subset(range(last, len(data)))


def asked_of(test: Dataset, few: Dataset, most: int, seed: int) -> Dataset:
    """Test frames with forces and without elements that the few lack, at most so many, drawn by chance."""
    known = {int(z) for frame in few for z in frame.numbers}
    kept = test.subset(
        [i for i, f in enumerate(test) if f.forces is not None and set(map(int, f.numbers)) <= known]
    )
    return kept.sample(min(len(kept), most), seed=seed)


def changed(options: Iterable[str]) -> dict[str, Any]:
    """Options of a configuration from OPTION=VALUE, as the command lines take them; values are JSON."""
    return {option: json.loads(value) for option, value in (part.split("=") for part in options)}
