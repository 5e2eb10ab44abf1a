"""What every deepmd-kit file holds, whatever its container: per branch, options and named arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

PREFIX = "atomic_model."
SMIN_ALPHA = 0.1
"""Decay of the softmin of distances (Å) in a ZBL model of a `.pt`, whatever its options say."""
Tree = dict[str, Any]
"""Options as in JSON, or a node of a universal file, which has arrays as well."""


@dataclass(frozen=True, kw_only=True)
class Branch:
    """One model of a file: a single-task file has one, a multi-task file one per head.

    Attributes:
        name: the branch's name; "Default" for single-task files.
        params: deepmd-kit's model section of this branch (`type_map`, `descriptor`, `fitting_net`, ...).
        arrays: state-dict names below `model.<branch>.atomic_model.` and their arrays.
        min_nbor_dist: shortest distance of the training data, Å, or None.
        on_graphs: made for graphs that hold all neighbours within the cutoff, where its descriptor has them
            (the exportable backend of deepmd-kit).
        nodes: of a universal file, "descriptor" and "fitting" as they are in its tree.
    """

    name: str
    params: Tree
    arrays: dict[str, Tensor]
    min_nbor_dist: float | None = None
    on_graphs: bool = False
    nodes: Tree = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Source:
    """All branches of one file, and what the file says about itself."""

    path: str
    kind: str
    branches: tuple[Branch, ...]
    info: Tree = field(default_factory=dict)
