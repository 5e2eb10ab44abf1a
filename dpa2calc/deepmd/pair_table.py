"""The tabulated pair potential of a ZBL model, as deepmd-kit stores it (MATHS 10)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dpa2calc.errors import CheckpointError
from dpa2calc.model.potential import Potential


def table_arrays(potential: Potential) -> dict[str, Tensor]:
    """tab_info (4,) = first r, spacing, intervals, types; tab_data (types, types, intervals, 4)."""
    bridging = potential.bridging
    if bridging is None:
        raise CheckpointError("the model has no pair table")
    c, coefficients = bridging.config, bridging.coefficients.detach().cpu()
    info = [c.r_min, c.spacing, float(c.n_intervals), float(coefficients.shape[0])]
    return {"tab_info": torch.tensor(info, dtype=torch.float64), "tab_data": coefficients.clone()}


def table_values(potential: Potential) -> np.ndarray:
    """The table on its grid (n_intervals + 1, 1 + pairs): column r, then the pairs of types row by row."""
    assert potential.bridging is not None
    c = potential.bridging.config
    pieces = potential.bridging.coefficients.detach().cpu().numpy()
    n_types = pieces.shape[0]
    columns = [c.r_min + c.spacing * np.arange(c.n_intervals + 1)]
    for a in range(n_types):
        for b in range(a, n_types):
            # The value at the start of each piece, and at the end of the last.
            columns.append(np.append(pieces[a, b, :, 3], pieces[a, b, -1].sum()))
    return np.stack(columns, axis=1)


def table_tree(potential: Potential) -> dict[str, Any]:
    """The `pairtab` node of a `.dp` file, without its head and energy bias."""
    assert potential.bridging is not None
    c, values, arrays = potential.bridging.config, table_values(potential), table_arrays(potential)
    return {
        "type": "pairtab",
        "rcut": c.cutoff,
        "sel": c.nsel,
        "tab": {
            "@class": "PairTab",
            "@version": 1,
            "rmin": c.r_min,
            "rmax": float(values[-1, 0]),
            "hh": c.spacing,
            "ntypes": potential.config.n_types,
            "rcut": c.cutoff,
            "nspline": c.n_intervals,
            "@variables": {
                "vdata": values,
                "tab_info": arrays["tab_info"],
                "tab_data": arrays["tab_data"].reshape(-1),
            },
        },
    }
