"""Errors of other potentials on the mlearn test frames, where a source could be checked."""

from __future__ import annotations

# quantity ("force_rmse", "energy_mae", ... in meV/Å or meV/atom) -> element -> method -> value
MLEARN: dict[str, dict[str, dict[str, float]]] = {}
MLEARN_SOURCE = (
    "Published errors of GAP, MTP, NNP, SNAP and qSNAP (Zuo et al., J. Phys. Chem. A 124, 731 (2020)) are "
    "left out: they are in a figure of the article, and no copy of the numbers could be checked."
)
