"""The outside column of Table 2: CHGNet, where the package is installed and its elements fit.

`pip install chgnet` brings the code and the weights (Deng et al., Nat. Mach. Intell. 5, 1031 (2023)). It was
trained on PBE and PBE+U crystals, so its own labels differ from some of these sets'; energies are compared
after a fit of one energy per element, as for the other columns.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from typing import Any

import numpy as np

from dpa2calc.training import Dataset, Frame, evaluate

# CHGNet's training set, MPtrj, has 89 elements: up to Pu without these.
NOT_IN_CHGNET = frozenset({"Po", "At", "Rn", "Fr", "Ra"})
VACUUM = 12.0  # Å around a molecule, above CHGNet's 6 Å cutoff


def available() -> bool:
    """Whether the package can be imported."""
    return importlib.util.find_spec("chgnet") is not None


def fits(data: Dataset) -> bool:
    """Whether CHGNet knows all elements."""
    from ase.data import atomic_numbers

    return all(e not in NOT_IN_CHGNET and atomic_numbers[e] <= 94 for e in data.elements)


def boxed(frame: Frame) -> Frame:
    """A molecule in a periodic box with vacuum around it, because CHGNet needs a cell; others unchanged."""
    if frame.pbc.all():
        return frame
    extent = np.ptp(frame.positions, axis=0)
    cell = np.where(frame.pbc[:, None], frame.cell, np.diag(extent + VACUUM))
    moved = frame.positions - np.where(frame.pbc, 0.0, frame.positions.min(axis=0) - VACUUM / 2)
    return dataclasses.replace(frame, cell=cell, positions=moved, pbc=np.ones(3, dtype=bool), virial=None)


def chgnet_errors(data: Dataset) -> dict[str, Any]:
    """Errors of CHGNet after a fit of one energy per element; {} where its elements do not fit."""
    if not fits(data):
        return {}
    import chgnet
    from chgnet.model.dynamics import CHGNetCalculator

    calculator = CHGNetCalculator(use_device="cpu", on_isolated_atoms="warn")
    frames = Dataset(tuple(boxed(frame) for frame in data), data.name)
    errors = evaluate(calculator, frames, fit_bias=True).errors
    return {**errors.to_dict(), "chgnet": chgnet.__version__}
