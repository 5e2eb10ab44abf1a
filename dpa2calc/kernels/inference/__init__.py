"""Operations for weights that are constants: in blocks that fit the cache, differentiable once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dpa2calc.kernels.net import Layer, Net, ScalarNet
from dpa2calc.kernels.pairs import Neighbors, PairTable
from dpa2calc.kernels.reference import (
    Mode,
    NeighborMaps,
    NeighborSums,
    PairMaps,
    PairTerms,
    Product,
    Reference,
    RepformerKind,
    symmetrize,
)

from .embedding import AngleSums, EmbeddedMoments
from .neighbor_sums import NeighborMix
from .pair_attention import PairMix
from .pair_blocks import BlockPairs
from .residual import TanhStep


class Inference(Reference):
    """Weights are constants from the moment that this backend is chosen until another one is.

    Their `requires_grad` is off until then, and products of weights are made once and kept here. Weights
    written in place in between are not noticed.
    """

    mode: ClassVar[Mode] = "inference"

    def __init__(self, parameters: Iterable[nn.Parameter] = ()) -> None:
        parameters = list(parameters)
        super().__init__(parameters)
        self._held = [p for p in parameters if p.requires_grad]
        self._products: dict[Callable[..., Any], Any] = {}
        for p in self._held:
            p.requires_grad_(False)

    def release(self) -> None:
        for p in self._held:
            p.requires_grad_(True)
        self._held, self._products = [], {}

    def folded(self, product: Callable[..., Product], *given: Any) -> Product:
        if product not in self._products:
            with torch.no_grad():
                self._products[product] = _constant(product(*given))
        return self._products[product]

    def why_not(self, operation: str, subject: Any) -> str | None:
        if operation in ("embedded_moments", "angle_sums"):
            net: ScalarNet = subject
            if operation == "angle_sums" and net.parts is None:
                return "the types enter by a strip net"
            return net.net.why_not_by_hand()
        if operation == "residual_step":
            return subject.why_not_by_hand()
        if operation in ("neighbor_sums", "pair_attention"):
            if not subject.smooth:
                return "the model is not smooth"
            if operation == "pair_attention" and subject.moves_directions:
                return "the directions are updated"
        return None

    # --- the twins --------------------------------------------------------------------------------

    def residual_step(self, layer: Layer, x: Tensor, scale: Tensor, name: str) -> Tensor:
        if layer.bias is None or self.why_not("residual_step", Net((layer,), name)) is not None:
            return super().residual_step(layer, x, scale, name)
        return TanhStep.apply(x.flatten(0, -2), layer.matrix, layer.bias, scale).view(x.shape)

    def embedded_moments(
        self, net: ScalarNet, rows: Tensor, kinds: Tensor, factor: Tensor | None, table: Any = None
    ) -> Tensor:
        if table is not None:
            return table.moments(rows, kinds, net.strip, factor)
        if self.why_not("embedded_moments", net) is not None:
            return super().embedded_moments(net, rows, kinds, factor)
        return EmbeddedMoments.apply(rows, kinds, factor if net.strip is not None else None, net)

    def moments_by_net(
        self, nets: Sequence[ScalarNet], rows: Tensor, lines: Tensor, kept: Tensor, table: Any = None
    ) -> Tensor:
        if table is not None:
            return table.moments(rows * kept.unsqueeze(-1), lines)
        return super().moments_by_net(nets, rows, lines, kept)

    def angle_sums(
        self, net: ScalarNet, directions: Tensor, types: Tensor, switch: Tensor | None, mask: Tensor
    ) -> Tensor:
        if net.parts is None or self.why_not("angle_sums", net) is not None:
            return super().angle_sums(net, directions, types, switch, mask)
        first, second = (part[types] for part in net.parts)  # (n, k, m1)
        return AngleSums.apply(directions, first, second, net)

    def pair_table(self, near: Neighbors, kind: RepformerKind, nsel: int) -> PairTable:
        if not kind.smooth or not len(near.atoms):
            return super().pair_table(near, kind, nsel)
        return BlockPairs.of(near, kind=kind, nsel=nsel)

    def neighbor_sums(
        self, g1: Tensor, g2: Tensor, h2: Tensor, pairs: PairTable, maps: NeighborMaps
    ) -> NeighborSums:
        around = maps.pairs_to_atoms, maps.atom_invariants or None, maps.product, maps.query
        if not isinstance(pairs, BlockPairs) or all(part is None for part in around):
            return super().neighbor_sums(g1, g2, h2, pairs, maps)
        w, conv = pairs.weight.unsqueeze(-1), maps.pairs_to_atoms
        directions, norm = h2 * w, pairs.sym_norm(maps.root)
        given = g2 if conv is not None else None, directions if maps.atom_invariants else None, maps.query
        convolved, moments1, moments2, products, attended = NeighborMix.apply(
            g1, pairs.weight, *given, maps, pairs
        )
        invariants = []
        if maps.pair_invariants:
            if conv is None or not maps.atom_invariants:
                moments2 = pairs.moments(directions, g2)
            invariants.append(symmetrize(moments2, norm, maps.axis))
        if maps.atom_invariants:
            invariants.append(symmetrize(moments1, norm, maps.axis))
        if maps.atoms_to_pairs is not None:
            convolved = pairs.sum(g2 * pairs.gather(g1 @ maps.atoms_to_pairs) * w)
        convolution = None
        if conv is not None or maps.atoms_to_pairs is not None:
            convolution = convolved * pairs.conv_norm()
        return NeighborSums(
            convolution,
            tuple(invariants),
            products * w if maps.product is not None else None,
            attended if maps.query is not None else None,
        )

    def pair_attention(
        self, g2: Tensor, h2: Tensor, terms: PairTerms, pairs: PairTable, maps: PairMaps
    ) -> tuple[Tensor | None, Tensor | None]:
        plain = maps.value_out is None or maps.directions is not None or terms.gate is None
        if plain or terms.shift is None or not isinstance(pairs, BlockPairs):
            return super().pair_attention(g2, h2, terms, pairs, maps)
        return PairMix.apply(g2, *terms, maps, pairs), None


def _constant(value: Any) -> Any:
    """Tensors, also in named tuples, detached and contiguous."""
    if isinstance(value, Tensor):
        return value.detach().contiguous()
    if not isinstance(value, tuple):
        return value
    parts = map(_constant, value)
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
