"""The datasets of the paper (arXiv:2312.15492): Table 1, and the DFT settings of its section S1.

They are published on AIS Square (https://www.aissquare.com); this package does not carry them.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib import resources
from typing import Literal


@dataclass(frozen=True)
class PaperSet:
    """One row of Table 1.

    Attributes:
        elements: symbols, or only their number where the table gives no more.
        n_train, n_test: frames. weight: sampling weight in the paper's multi-task training.
        role: used for pre-training, or left for downstream tasks.
        code, settings: DFT code and settings as far as section S1 states them.
        reference: of the data.
    """

    name: str
    role: Literal["pretrain", "downstream"]
    elements: tuple[str, ...] | int
    n_train: int
    n_test: int
    weight: float
    code: str = ""
    settings: str = ""
    reference: str = ""


@functools.cache
def _rows() -> tuple[PaperSet, ...]:
    text = resources.files(__package__).joinpath("paper_sets.json").read_text(encoding="utf-8")
    rows = json.loads(text)
    for row in rows:
        if isinstance(row["elements"], str):
            row["elements"] = tuple(row["elements"].split())
    return tuple(PaperSet(**row) for row in rows)


def paper_sets(role: Literal["pretrain", "downstream", "all"] = "all") -> dict[str, PaperSet]:
    """Rows of Table 1 by name."""
    return {row.name: row for row in _rows() if role in ("all", row.role)}
