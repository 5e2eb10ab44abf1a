"""What typical values of a set say about its labels: names that were not read, units and signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dpa2calc.labels.names import advice
from dpa2calc.training.data.dataset import Dataset

from .contradictions import contradictions
from .distances import odd_distances
from .force_misfit import force_misfit

if TYPE_CHECKING:
    from .report import DataReport

_NOISE = 0.01  # eV/Å of a net force
_UNRELATED = 0.05  # of the squared net force of unrelated forces; noisy dynamics of CP2K has 0.005


def remarks_on(report: DataReport, good: Dataset, unread: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Remarks on labels that were not read, on units and on signs: what typical values say about them."""
    remarks = [
        f"no {kind} was read, but {advice(names)}"
        for kind, names in unread.items()
        if not report.labels[kind]
    ]
    force, spread, slope = report.force_rms or 0.0, report.residual_std or 0.0, _stress_sign(good)
    pressure = max(map(abs, report.pressure or (0.0,)))
    net_force, unrelated = _net_force(good)
    net = f"labels carry a net force (median {net_force:.2f} eV/Å a frame)"
    doubts = {
        f"force rms {force:.1f} eV/Å is very large; are they in eV/Å?": force > 30.0,
        "forces are almost zero: relaxed structures teach forces little": 0 < force < 1e-4,
        f"energies differ by {spread:.0f} meV/atom from a sum over elements; are they total energies "
        "in eV, from one DFT setting?": spread > 1000.0,
        "stresses above 2000 GPa; are they in eV/Å^3 (not GPa or kB)?": pressure > 2000.0,
        "compressed frames have a positive trace of the stress: its sign looks reversed": slope < -0.5,
        f"{net}: an error floor": net_force > _NOISE and not unrelated,
        f"{net}, as large as of forces that have nothing to do with each other; are they those of these "
        "atoms, and of all of them?": unrelated,
    }
    remarks += [text for text, doubtful in doubts.items() if doubtful]
    return remarks + [
        remark for remark in (contradictions(good), force_misfit(good), odd_distances(good)) if remark
    ]


def _net_force(data: Dataset) -> tuple[float, bool]:
    """Median of the largest component of the net force, eV/Å, and whether forces add up as unrelated ones do.

    Forces without a field sum to zero; the squared sum of n unrelated ones is the sum of their squares.
    """
    forces = [f.forces for f in data if f.forces is not None and f.n_atoms > 1]
    net = np.array([f.sum(axis=0) for f in forces]).reshape(-1, 3)
    squares = sum(float((f**2).sum()) for f in forces)
    median = float(np.median(np.abs(net).max(axis=1))) if len(net) else 0.0
    return median, median > _NOISE and float((net**2).sum()) > _UNRELATED * squares


def _stress_sign(data: Dataset) -> float:
    """Correlation of trace(stress) and volume an atom in the commonest composition; positive if right."""
    if len(data) == 0:
        return 0.0
    groups: dict[tuple[float, ...], list[tuple[float, float]]] = {}
    counts = data.compositions(data.elements)
    fractions = np.round(counts / counts.sum(axis=1, keepdims=True), 6)
    for frame, key in zip(data, map(tuple, fractions)):
        stress = frame.stress
        if stress is not None:
            groups.setdefault(key, []).append((frame.volume / frame.n_atoms, float(np.trace(stress))))
    largest = np.array(max(groups.values(), key=len, default=[]))
    if len(largest) < 10 or largest[:, 0].std() < 0.02 * largest[:, 0].mean():
        return 0.0
    return float(np.corrcoef(largest.T)[0, 1])
