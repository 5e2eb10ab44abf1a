"""What every deepmd-kit file holds, whatever its container: per branch, options and named arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

PREFIX = "atomic_model."
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
    """

    name: str
    params: Tree
    arrays: dict[str, Tensor]
    min_nbor_dist: float | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """All branches of one file, and what the file says about itself."""

    path: str
    kind: str
    branches: tuple[Branch, ...]
    info: Tree = field(default_factory=dict)
