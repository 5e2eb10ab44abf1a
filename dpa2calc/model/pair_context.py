"""What the layers and the attentions of the repformer know of the neighbours (MATHS 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from dpa2calc.kernels.training.attention import Blocks
from dpa2calc.kernels.training.pair_list import FlatPairs


@dataclass(frozen=True)
class PairContext:
    """What all layers share about the neighbours.

    weight (n, k): switch (smooth) or 0/1 mask, 0 in padding. count (n, 1): real neighbours.
    n_more: padding columns of the softmax beyond the k of the table.
    With `flat` there is one list of pairs instead of a table: (P,) instead of (n, k) here, (P, d2) and
    (P, 3) instead of (n, k, d2) and (n, k, 3) in the layers; only `mask` stays (n, k). The attentions then
    go over blocks of atoms.
    """

    neighbors: Tensor  # (n, k)
    switch: Tensor  # (n, k)
    mask: Tensor  # (n, k)
    weight: Tensor  # (n, k)
    nsel: int
    smooth: bool
    flat: FlatPairs | None = None
    pair_blocks: Blocks | None = None
    atom_blocks: Blocks | None = None
    ordered_switch: Tensor | None = None  # (n, k), atoms in the order of `flat`

    def conv_norm(self) -> Tensor | float:
        """Normaliser of the convolution: number or (n, 1)."""
        return 1.0 / self.nsel if self.smooth else 1.0 / (1e-4 + self.count())

    def sym_norm(self, sqrt: bool) -> Tensor | float:
        """Normaliser of the symmetrisation: number or (n, 1)."""
        if self.smooth:
            return 1.0 / math.sqrt(self.nsel) if sqrt else 1.0 / self.nsel
        count = self.count()
        return 1.0 / (1e-4 + (count.sqrt() if sqrt else count))

    def count(self) -> Tensor:
        """Real neighbours of each atom, (n, 1)."""
        return self.mask.sum(dim=1, keepdim=True).to(self.switch.dtype)
