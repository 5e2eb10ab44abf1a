"""Operations for training on forces: first and second derivatives by hand, pairs in a list."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from dpa2calc.kernels.attention import SHIFT
from dpa2calc.kernels.inference.compiled import has_loops
from dpa2calc.kernels.net import Layer, ScalarNet
from dpa2calc.kernels.pairs import Neighbors, PairTable
from dpa2calc.kernels.reference import (
    Mode,
    NeighborMaps,
    NeighborSums,
    PairMaps,
    PairTerms,
    Reference,
    RepformerKind,
)
from dpa2calc.kernels.threads import has_numba

from .angle_sums import angle_sums
from .attention import Atoms, attend
from .dense_tanh import tanh_dense
from .moments import embedded_moments
from .neighbor_sums import Shape, surroundings
from .pair_list import ListPairs
from .products import pair_products


class Training(Reference):
    """May be differentiated twice, which a loss on forces takes; weights may be frozen one by one.

    Everything but angle sums is for CPUs, and the repformer's part needs Numba.
    """

    mode: ClassVar[Mode] = "training"

    def why_not(self, operation: str, subject: Any) -> str | None:
        if operation == "angle_sums":
            if subject.parts is None:
                return "the types enter by a strip net"
            return "the first layer adds its input" if subject.net.layers[0].skip else None
        if operation not in ("dense", "embedded_moments", "neighbor_sums", "pair_attention"):
            return None
        if self.device.type != "cpu":
            return f"derivatives by hand are for CPUs, and the weights are on {self.device}"
        if operation == "embedded_moments":
            idt = any(layer.idt is not None for layer in subject.net.layers)
            return "a layer has a scale of its own (resnet_dt)" if idt else subject.net.why_not_by_hand()
        if operation == "dense":
            return (
                None if subject.activation == "tanh" else f"the activation is {subject.activation}, not tanh"
            )
        return self._why_no_list(subject)

    @staticmethod
    def _why_no_list(kind: RepformerKind) -> str | None:
        if not kind.smooth:
            return "the model is not smooth"
        if not (kind.convolution and kind.pair_invariants and kind.atom_invariants):
            return "a layer has no convolution, or no invariants of both moments"
        if kind.moves_directions:
            return "the directions are updated"
        if not has_numba():
            return "Numba is not installed (pip install numba)"
        return None if has_loops(torch.empty(0)) else "this PyTorch exports no matrix product"

    # --- the twins --------------------------------------------------------------------------------

    def dense(self, layer: Layer, x: Tensor, name: str) -> Tensor:
        if name != "tanh" or layer.bias is None or not x.is_cpu:
            return super().dense(layer, x, name)
        flat = tanh_dense(x.reshape(-1, x.shape[-1]), layer.matrix, layer.bias)
        return flat.view(*x.shape[:-1], layer.matrix.shape[1])

    def embedded_moments(
        self, net: ScalarNet, rows: Tensor, kinds: Tensor, factor: Tensor | None, table: Any = None
    ) -> Tensor:
        made = None
        if net.strip is None and self.why_not("embedded_moments", net) is None:
            made = embedded_moments(net, rows, kinds)
        return super().embedded_moments(net, rows, kinds, factor) if made is None else made

    def angle_sums(
        self, net: ScalarNet, directions: Tensor, types: Tensor, switch: Tensor | None, mask: Tensor
    ) -> Tensor:
        if self.why_not("angle_sums", net) is not None:
            return super().angle_sums(net, directions, types, switch, mask)
        return angle_sums(net, directions, types, mask)

    def pair_table(self, near: Neighbors, kind: RepformerKind, nsel: int) -> PairTable:
        if self.why_not("neighbor_sums", kind) is not None:
            return super().pair_table(near, kind, nsel)
        return ListPairs.of(near, nsel=nsel)

    def neighbor_sums(
        self, g1: Tensor, g2: Tensor, h2: Tensor, pairs: PairTable, maps: NeighborMaps
    ) -> NeighborSums:
        if not isinstance(pairs, ListPairs):
            return super().neighbor_sums(g1, g2, h2, pairs, maps)
        norm, scale = pairs.sym_norm(maps.root), pairs.conv_norm()
        assert isinstance(norm, float)
        shape = Shape(pairs, maps.axis, norm * norm / 3.0)
        w = pairs.weight.unsqueeze(-1)
        conv, invariants = surroundings(g1, g2, h2 * w, pairs.weight, maps.pairs_to_atoms, shape)
        if maps.atoms_to_pairs is not None:
            conv = pairs.sum(g2 * pairs.gather(g1 @ maps.atoms_to_pairs) * w)
        products = attended = None
        if maps.product is not None:
            products = pair_products(g1, pairs) @ maps.product * w
        if maps.query is not None:
            query, sw = maps.query, pairs.switch
            atoms = pairs.once(
                ("atoms", query.shape[1]), lambda: Atoms.of_atoms(pairs, query.shape[1], pairs.nsel)
            )
            mixed = attend(query.flatten(1), g1, (sw, SHIFT * sw - SHIFT, sw), atoms)
            attended = mixed.view_as(query)
        return NeighborSums(conv * scale, (invariants,), products, attended)

    def pair_attention(
        self, g2: Tensor, h2: Tensor, terms: PairTerms, pairs: PairTable, maps: PairMaps
    ) -> tuple[Tensor | None, Tensor | None]:
        if (
            not isinstance(pairs, ListPairs)
            or terms.gate is None or terms.shift is None
            or maps.value_out is None or maps.bias is None or maps.directions is not None
        ):  # fmt: skip
            return super().pair_attention(g2, h2, terms, pairs, maps)
        given = (pairs, maps.heads, pairs.nsel)
        atoms = pairs.once(("pairs", maps.heads), lambda: Atoms.of_pairs(*given))
        mixed = attend(g2 @ maps.query_key, g2, (terms.gate, terms.shift, terms.scale), atoms)
        return torch.addmm(maps.bias, mixed, maps.value_out), None
