"""What typical values of a set say about its labels: names that were not read, units and signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dpa2calc.labels.names import advice
from dpa2calc.training.data.dataset import Dataset

from .contradictions import contradictions
from .distances import far_apart
from .force_misfit import force_misfit

if TYPE_CHECKING:
    from .report import DataReport


def remarks_on(report: DataReport, good: Dataset, unread: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Remarks on labels that were not read, on units and on signs: what typical values say about them."""
    remarks = [
        f"no {kind} was read, but {advice(names)}"
        for kind, names in unread.items()
        if not report.labels[kind]
    ]
    force, spread, slope = report.force_rms or 0.0, report.residual_std or 0.0, _stress_sign(good)
    pressure = max(map(abs, report.pressure or (0.0,)))
    net = [np.abs(f.forces.sum(axis=0)).max() for f in good if f.forces is not None]
    net_force = float(np.median(net or [0.0]))
    doubts = {
        f"force rms {force:.1f} eV/Å is very large; are they in eV/Å?": force > 30.0,
        "forces are almost zero: relaxed structures teach forces little": 0 < force < 1e-4,
        f"energies differ by {spread:.0f} meV/atom from a sum over elements; are they total energies "
        "in eV, from one DFT setting?": spread > 1000.0,
        "stresses above 2000 GPa; are they in eV/Å^3 (not GPa or kB)?": pressure > 2000.0,
        "compressed frames have a positive trace of the stress: its sign looks reversed": slope < -0.5,
        f"labels carry a net force (median {net_force:.2f} eV/Å a frame): an error floor": net_force > 0.01,
    }
    remarks += [text for text, doubtful in doubts.items() if doubtful]
    return remarks + [
        remark for remark in (contradictions(good), force_misfit(good), far_apart(good)) if remark
    ]


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
