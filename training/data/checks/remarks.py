"""What typical values of a set say about its labels: names that were not read, units and signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dpa2calc.labels.names import advice
from dpa2calc.training.data.dataset import Dataset

if TYPE_CHECKING:
    from .report import DataReport


def remarks_on(report: DataReport, good: Dataset, unread: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Remarks on labels that were not read, on units and on signs: what typical values say about them."""
    remarks = [
        f"no {kind} was read, but {advice(names)}"
        for kind, names in unread.items()
        if not report.labels[kind]
    ]
    if report.force_rms is not None and report.force_rms > 30.0:
        remarks.append(f"force rms {report.force_rms:.1f} eV/Å is very large; are they in eV/Å?")
    if report.force_rms is not None and 0 < report.force_rms < 1e-4:
        remarks.append("forces are almost zero: relaxed structures teach forces little")
    if report.residual_std is not None and report.residual_std > 1000.0:
        remarks.append(
            f"energies differ by {report.residual_std:.0f} meV/atom from a sum over elements; are they total "
            "energies in eV, from one DFT setting?"
        )
    if report.pressure is not None and max(map(abs, report.pressure)) > 2000.0:
        remarks.append("stresses above 2000 GPa; are they in eV/Å^3 (not GPa or kB)?")
    slope = _stress_sign(good)
    if slope is not None and slope < -0.5:
        remarks.append("compressed frames have a positive trace of the stress: its sign looks reversed")
    net = [np.abs(f.forces.sum(axis=0)).max() for f in good if f.forces is not None]
    if net and float(np.median(net)) > 0.01:
        remarks.append(
            f"labels carry a net force (median {float(np.median(net)):.2f} eV/Å a frame): an error floor"
        )
    return remarks


def _stress_sign(data: Dataset) -> float | None:
    """Correlation of trace(stress) and volume an atom in the commonest composition; positive if right."""
    if len(data) == 0:
        return None
    groups: dict[tuple[float, ...], list[tuple[float, float]]] = {}
    counts = data.compositions(data.elements)
    fractions = np.round(counts / counts.sum(axis=1, keepdims=True), 6)
    for frame, key in zip(data, map(tuple, fractions)):
        stress = frame.stress
        if stress is not None:
            groups.setdefault(key, []).append((frame.volume / frame.n_atoms, float(np.trace(stress))))
    largest = np.array(max(groups.values(), key=len, default=[]))
    if len(largest) < 10 or largest[:, 0].std() < 0.02 * largest[:, 0].mean():
        return None
    return float(np.corrcoef(largest.T)[0, 1])
