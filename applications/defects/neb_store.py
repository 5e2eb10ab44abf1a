"""The band of a path on disk, from which its relaxation resumes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.arrays import read_arrays, write_arrays
from dpa2calc.files.identity import Part, calculator_identity, differences, structure_identity


def band_identity(
    start: Atoms, stop: Atoms, calculator: BaseCalculator, n_images: int, interpolation: str, spring: float
) -> dict[str, Part]:
    """What a stored band belongs to."""
    return {
        "initial state": structure_identity(start),
        "final state": structure_identity(stop),
        "calculator": calculator_identity(calculator),
        "options": {"n_images": n_images, "interpolation": interpolation, "spring": spring},
    }


def restore_band(images: list[Atoms], store: Path, belongs: dict[str, Part], climb: bool) -> int:
    """Put a stored band into the images; returns its stage (0 relaxing, 1 climbing).

    Raises:
        ConfigError: the band belongs to another path, calculator or other options.
        DataError: the file is damaged.
    """
    if not store.exists():
        return 0
    header, data = read_arrays(store, "a band of nudged_elastic_band; delete it and run again")
    if header is not None:
        stored = header.get("identity") if isinstance(header, dict) else None
        found = differences(stored if isinstance(stored, dict) else {}, belongs)
        if found:
            raise ConfigError(
                f"{store} holds another band (different are {'; '.join(found[:6])}); give another folder for "
                "this path, or delete that file"
            )
    else:
        warnings.warn(
            f"{store} was written by an earlier version, which did not note what it belongs to; it is taken "
            "as the band between these ends",
            stacklevel=4,
        )
    try:
        positions, numbers, stage = data["positions"], data["numbers"], int(data["stage"])
        if not np.isfinite(positions).all() or stage not in (0, 1):
            raise ValueError(f"NaN, or stage {stage}")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{store} is damaged ({error}); delete it and run again") from error
    ends = np.array([images[0].positions, images[-1].positions])
    same = positions.shape == (len(images), len(images[0]), 3) and np.array_equal(numbers, images[0].numbers)
    # the last image of a free molecule turns with the band
    tolerance = 1e-6 if images[0].pbc.any() else 0.05
    if not same or not np.abs(positions[[0, -1]] - ends).max() <= tolerance:
        raise ConfigError(
            f"{store} holds another band (atoms, ends or n_images differ; ends change with fmax too); "
            "give another folder"
        )
    if stage == 1 and not climb:
        raise ConfigError(f"the band in {store} climbs already; use climb=True, or another folder")
    for image, kept in zip(images, positions):
        image.set_positions(kept, apply_constraint=False)
    return stage


def save_band(images: list[Atoms], stage: int, *, store: Path | None, belongs: dict[str, Part]) -> None:
    """Keep a band (nothing without a store)."""
    if store is None:
        return
    positions = np.array([image.positions for image in images])
    arrays = {"positions": positions, "numbers": images[0].numbers, "stage": np.int64(stage)}
    write_arrays(store, {"identity": belongs}, arrays)
