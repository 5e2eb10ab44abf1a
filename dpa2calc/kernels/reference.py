"""The operations that models are made of, as formulas: a few lines of PyTorch each.

They run on every device, in every precision, and can be differentiated any number of times. The other
backends, `Inference` and `Training`, have faster twins of them with derivatives by hand; every twin is
tested against its formula here. Numbers of formulas are those of docs/maths.md and of the DPA-2 paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import SHIFT, padded_softmax
from .net import Layer, Net, ScalarNet, activation, dense, finish, linear
from .pairs import Neighbors, PairTable

Mode = Literal["reference", "inference", "training", "hessian"]
Product = TypeVar("Product")


class RepformerKind(NamedTuple):
    """What the layers of a repformer do, for the choice of layout and kernels.

    width: of an atom's g1. heads: of the pair attention, 0 without.
    """

    smooth: bool
    convolution: bool
    pair_invariants: bool
    atom_invariants: bool
    moves_directions: bool
    width: int = 1
    heads: int = 0


class NeighborMaps(NamedTuple):
    """What a repformer layer takes from the neighbours of an atom; None or False for nothing.

    Attributes:
        pairs_to_atoms: (d2, d1), W of the convolution sum_j w_j (g2_j W) * g1_j.
        atoms_to_pairs: (d1, d2), W of the convolution sum_j w_j g2_j * (g1_j W).
        pair_invariants, atom_invariants: the symmetrised moments of g2_j, of g1_j.
        axis: columns of the moments that are axes. root: they have the square root of the normaliser.
        product: (d1, d2), W of the products (g1_i * g1_j) W.
        query: (n, heads, d1), what the local attention asks every neighbour.
    """

    pairs_to_atoms: Tensor | None
    atoms_to_pairs: Tensor | None
    pair_invariants: bool
    atom_invariants: bool
    axis: int
    root: bool
    product: Tensor | None
    query: Tensor | None


class NeighborSums(NamedTuple):
    """What came of it: convolution (n, d1) or (n, d2), normalised; invariants (n, axis * d) of pairs, then
    atoms; products (pairs, d2), weighted; attended (n, heads, d1)."""

    convolution: Tensor | None
    invariants: tuple[Tensor, ...]
    products: Tensor | None
    attended: Tensor | None


class PairTerms(NamedTuple):
    """Functions of two neighbours j, k of one atom that enter the pair attention, as `overlaps` has them.

    score = (q . k) * gate + shift; after the softmax the weights are multiplied by `scale`. Without `shift`
    the attention is not smooth, and padding is left out.
    """

    gate: Tensor | None
    shift: Tensor | None
    scale: Tensor


class PairMaps(NamedTuple):
    """Weights of the pair attention.

    query_key (d2, heads * d2): W_q W_k^T / sqrt(nd); value_out (heads * d2, d2): W_v W_o, and bias (d2,), or
    None without an update of g2; directions (heads,): of the update of h2, or None.
    """

    query_key: Tensor
    value_out: Tensor | None
    bias: Tensor | None
    directions: Tensor | None
    heads: int


class Reference:
    """The formulas; also what the other backends use where they have no twin of an operation."""

    mode: ClassVar[Mode] = "reference"

    def __init__(self, parameters: Iterable[nn.Parameter] = ()) -> None:
        first = next(iter(parameters), None)
        self.device = torch.device("cpu") if first is None else first.device

    def why_not(self, operation: str, subject: Any) -> str | None:
        """The reason why an operation has no twin for a net or a kind of layer, or None if it has."""
        return None

    def folded(self, product: Callable[..., Product], *given: Any) -> Product:
        """A product of weights alone; where weights are constants it is made once."""
        return product(*given)

    def release(self) -> None:
        """Called when another backend takes over."""

    # --- nets -------------------------------------------------------------------------------------

    def dense(self, layer: Layer, x: Tensor, name: str) -> Tensor:
        """phi(x W + b), (..., n_in) -> (..., n_out)."""
        return dense(layer, x, name)

    def residual_net(self, net: Net, x: Tensor) -> Tensor:
        """All layers of a net, (..., n_in) -> (..., n_out)."""
        for layer in net.layers:
            x = finish(layer, self.dense(layer, x, net.activation), x)
        return x if net.end is None else linear(net.end, x)

    def residual_step(self, layer: Layer, x: Tensor, scale: Tensor, name: str) -> Tensor:
        """x + scale * phi(x W + b), (..., d) -> (..., d)."""
        return torch.addcmul(x, self.dense(layer, x, name), scale)

    def embedding(self, net: ScalarNet, s: Tensor, kinds: Tensor, factor: Tensor | None) -> Tensor:
        """G(s, kind): (...) and (...) -> (..., m)."""
        s, (first, *later) = s.unsqueeze(-1), net.net.layers
        x = activation(net.net.activation)(torch.addcmul(F.embedding(kinds, net.table), s, net.slope))
        x = finish(first, x, torch.cat([s, net.inputs[kinds]], dim=-1) if first.skip else s)
        x = self.residual_net(Net(tuple(later), net.net.activation), x)
        if net.strip is None:
            return x
        strip = net.strip[kinds]
        return x * (1.0 + (strip if factor is None else strip * factor.unsqueeze(-1)))

    # --- sums over neighbours ---------------------------------------------------------------------

    def embedded_moments(
        self, net: ScalarNet, rows: Tensor, kinds: Tensor, factor: Tensor | None, table: Any = None
    ) -> Tensor:
        """D_i = sum_j R_ij (x) G(R_ij,0; types), (n, 4, m).

        rows R (n, k, 4), kinds (n, k), factor (n, k) or None; `table`: G tabulated, or None.
        """
        return torch.bmm(rows.transpose(1, 2), self.embedding(net, rows[..., 0], kinds, factor))

    def moments_by_net(
        self, nets: Sequence[ScalarNet], rows: Tensor, lines: Tensor, kept: Tensor, table: Any = None
    ) -> Tensor:
        """sum_j R_ij (x) G(R_ij,0), (n, 4, m), with a net of its own for every pair.

        lines (n, k): which net; kept (n, k): which neighbours count; `table`: all nets tabulated, or None.
        """
        total = rows.new_zeros(len(rows), 4, nets[0].width)
        for line in lines[kept].unique().tolist():
            of_net = kept & (lines == line)
            atoms = of_net.any(dim=1).nonzero().squeeze(1)
            mine = of_net[atoms]
            # Slots of this net first, in their order, cut to the largest number.
            widest = int(mine.sum(dim=1).max())
            slots = mine.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :widest]
            picked = rows.index_select(0, atoms).gather(1, slots.unsqueeze(-1).expand(-1, -1, 4))
            section = picked * mine.gather(1, slots).unsqueeze(-1)
            moments = self.embedded_moments(nets[line], section, torch.zeros_like(slots), None)
            total = total.index_add(0, atoms, moments)
        return total

    def angle_sums(
        self, net: ScalarNet, directions: Tensor, types: Tensor, switch: Tensor | None, mask: Tensor
    ) -> Tensor:
        """sum_jk c_jk G(c_jk; t_j, t_k) with c_jk = a_j . a_k, (n, m).

        directions a (n, k, 3), 0 where there is no neighbour; types, switch, mask (n, k).
        """
        n_types = math.isqrt(len(net.table))
        angles = torch.bmm(directions, directions.transpose(1, 2))  # (n, k, k)
        kinds = types.unsqueeze(2) * n_types + types.unsqueeze(1)
        both = None if switch is None else switch.unsqueeze(2) * switch.unsqueeze(1)
        g = self.embedding(net, angles, kinds, both)  # (n, k, k, m)
        return torch.bmm(angles.flatten(1).unsqueeze(1), g.flatten(1, 2)).squeeze(1)

    def pair_table(self, near: Neighbors, kind: RepformerKind, nsel: int) -> PairTable:
        """The neighbours in the layout of this backend."""
        return PairTable.whole(near, nsel=nsel, smooth=kind.smooth)

    def neighbor_sums(
        self, g1: Tensor, g2: Tensor, h2: Tensor, pairs: PairTable, maps: NeighborMaps
    ) -> NeighborSums:
        """Convolution, symmetrisation, products and local attention of a repformer layer.

        g1 (n, d1), g2 (pairs, d2), h2 (pairs, 3).
        """
        around, w = pairs.gather(g1), pairs.weight.unsqueeze(-1)
        convolution = products = attended = None
        if maps.pairs_to_atoms is not None:
            # sum_j (g2_j W) * g1_j without an array (pairs, d1)
            convolution = (pairs.moments(w * g2, around) * maps.pairs_to_atoms).sum(dim=1)
        elif maps.atoms_to_pairs is not None:
            convolution = pairs.sum(w * g2 * pairs.gather(g1 @ maps.atoms_to_pairs))
        if convolution is not None:
            convolution = convolution * pairs.conv_norm()
        chosen = ((g2, maps.pair_invariants), (around, maps.atom_invariants))
        moments = [pairs.moments(w * h2, x) for x, wanted in chosen if wanted]
        norm = pairs.sym_norm(maps.root)
        if maps.product is not None:
            # (g1_i * g1_j) W = g1_j (diag(g1_i) W)
            blocks = zip(pairs.atom_blocks(g1), pairs.blocks(around))
            products = pairs.join([torch.bmm(x, own.unsqueeze(-1) * maps.product) for own, x in blocks]) * w
        if maps.query is not None:
            attended = self.local_attention(maps.query, around, pairs)
        invariants = tuple(symmetrize(m, norm, maps.axis) for m in moments)
        return NeighborSums(convolution, invariants, products, attended)

    # --- attention --------------------------------------------------------------------------------

    def local_attention(self, query: Tensor, around: Tensor, pairs: PairTable) -> Tensor:
        """sum_j A_j g1_j, (n, heads, d1), from queries (n, heads, d1) and g1_j (pairs, d1)."""
        out = []
        blocks = (pairs.atom_blocks(query), pairs.blocks(around), pairs.blocks(pairs.switch))
        for q, x, w, real in zip(*blocks, pairs.real_blocks()):
            scores, w, n_more = torch.bmm(q, x.transpose(1, 2)), w.unsqueeze(1), pairs.nsel - x.shape[1]
            if pairs.smooth:
                weights = padded_softmax((scores + SHIFT) * w - SHIFT, n_more) * w
            else:
                weights = _masked_softmax(scores, real.unsqueeze(1)) * real.unsqueeze(1)
            out.append(torch.bmm(weights, x))
        return pairs.join_atoms(out)

    def pair_attention(
        self, g2: Tensor, h2: Tensor, terms: PairTerms, pairs: PairTable, maps: PairMaps
    ) -> tuple[Tensor | None, Tensor | None]:
        """sum_k A_jk g2_k W of every pair (pairs, d2), and sum_k A_jk h2_k (pairs, 3)."""
        mixed, moved = [], []
        gates, shifts = (repeat(None) if t is None else pairs.square_blocks(t) for t in terms[:2])
        rows = (pairs.blocks(g2), pairs.blocks(h2), pairs.real_blocks())
        for g, h, real, gate, shift, scale in zip(*rows, gates, shifts, pairs.square_blocks(terms.scale)):
            b, c, d = g.shape
            query = (g.reshape(b * c, d) @ maps.query_key).view(b, c * maps.heads, d)
            # Heads stay inside the row index: one product for all of them, no permuted copies.
            scores = torch.bmm(query, g.transpose(1, 2)).view(b, c, maps.heads, c)
            scores = scores if gate is None else scores * gate.unsqueeze(2)
            if shift is not None:
                weights = padded_softmax(scores + shift.unsqueeze(2), pairs.nsel - c)
            else:
                weights = _masked_softmax(scores, real[:, None, None, :])
            weights = weights * scale.unsqueeze(2)  # (b, c, heads, c)
            if maps.value_out is not None and maps.bias is not None:
                values = torch.bmm(weights.view(b, c * maps.heads, c), g).view(b * c, maps.heads * d)
                mixed.append(torch.addmm(maps.bias, values, maps.value_out).view(b, c, d))
            if maps.directions is not None:
                moved.append(torch.bmm(torch.einsum("bjhk,h->bjk", weights, maps.directions), h))
        return (
            None if maps.value_out is None else pairs.join(mixed),
            None if maps.directions is None else pairs.join(moved),
        )


def _masked_softmax(scores: Tensor, real: Tensor) -> Tensor:
    """Softmax over the columns that are real; a finite number where there are none."""
    return torch.softmax(scores.masked_fill(~real, -1e30), dim=-1)


def symmetrize(moments: Tensor, norm: Tensor | float, n_axis: int) -> Tensor:
    """Invariants of (n, 3, d) moments: H[:, :A]^T H / 3, flattened (A, d) with the axis slowest."""
    norm = norm * (1.0 / math.sqrt(3.0))
    scaled = moments * (norm.unsqueeze(-1) if isinstance(norm, Tensor) else norm)
    return torch.bmm(scaled[:, :, :n_axis].transpose(1, 2), scaled).flatten(1)
