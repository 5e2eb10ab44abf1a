"""Every fast operation against its formula in `kernels.reference`: values and derivatives, in both layouts.

A case makes its inputs (names in capitals are weights) and calls one operation of a backend. All backends get
the same numbers; values of pairs are compared in the order of the list.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from dpa2calc.kernels import NeighborMaps, Neighbors, PairMaps, PairTerms, RepformerKind, make_backend
from dpa2calc.kernels.attention import SHIFT, padded_softmax, padded_weights
from dpa2calc.kernels.inference.compiled import exponential_terms
from dpa2calc.kernels.inference.pair_blocks import BlockPairs
from dpa2calc.kernels.native import Native
from dpa2calc.kernels.net import Layer, Net, ScalarNet, Tanh
from dpa2calc.kernels.pairs import PairTable
from dpa2calc.kernels.reference import Reference
from dpa2calc.kernels.training.pair_list import ListPairs

# Atoms with three, none, two, four, one and two neighbours, some of them twice, in a table with holes.
MASK = torch.tensor(
    [[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]], dtype=torch.bool
)
ATOMS = torch.tensor([[1, 0, 2, 5], [0] * 4, [3, 0, 0, 0], [0, 1, 2, 0], [3, 0, 0, 0], [0, 4, 4, 0]])
TYPES = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 0], [2, 1, 0, 0], [1, 0, 2, 2], [0, 2, 0, 1], [1, 1, 0, 2]])
SMOOTH = RepformerKind(True, True, True, True, False)


@dataclasses.dataclass
class Inputs:
    """Random numbers by name, the same in every call with the same names and shapes."""

    dtype: torch.dtype
    made: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def __call__(self, name: str, *shape: int) -> Tensor:
        generator = torch.Generator().manual_seed(sum(map(ord, name)) + len(shape))
        values = torch.randn(*shape, generator=generator, dtype=torch.float64).to(self.dtype)
        self.made[name] = values.requires_grad_()
        return self.made[name]


def layers(x: Inputs, widths: list[int], *, idt: bool = False) -> tuple[Layer, ...]:
    out = []
    for k, (a, b) in enumerate(zip(widths, widths[1:])):
        skip = {a: 1, 2 * a: 2}.get(b, 0) if k else 0
        scale = x(f"IDT{k}", b) if idt and skip else None
        out.append(Layer(x(f"W{k}", a, b), x(f"B{k}", b), scale, skip))
    return tuple(out)


def scalar_net(x: Inputs, widths: list[int], *, strip: bool = False, idt: bool = False) -> ScalarNet:
    """A net of one scalar and the types of two atoms out of three."""
    net = Net(layers(x, [1, *widths], idt=idt), "tanh")
    parts = x("FIRST", 3, widths[0]), x("SECOND", 3, widths[0])
    table = (parts[0].unsqueeze(1) + parts[1]).flatten(0, 1)
    strips = x("STRIP", 9, widths[-1]) if strip else None
    inputs = torch.zeros(9, 0, dtype=x.dtype)
    return ScalarNet(net, net.layers[0].matrix[0], table, inputs, None if strip else parts, strips)


def dense(b: Reference, x: Inputs) -> list[Tensor]:
    return [b.dense(Layer(x("W", 3, 4), x("B", 4)), x("x", 2, 5, 3), "tanh")]


def residual_net(b: Reference, x: Inputs) -> list[Tensor]:
    end = Layer(x("WE", 6, 1), x("BE", 1))
    return [b.residual_net(Net(layers(x, [2, 3, 6, 6], idt=True), "tanh", end), x("x", 5, 2))]


def residual_step(b: Reference, x: Inputs) -> list[Tensor]:
    return [b.residual_step(Layer(x("W", 3, 3), x("B", 3)), x("x", 4, 5, 3), x("SCALE", 3), "tanh")]


def moments(b: Reference, x: Inputs, widths: list[int], **options: bool) -> list[Tensor]:
    net = scalar_net(x, widths, **options)
    kinds = 3 * TYPES + TYPES.flip(0)
    return [
        b.embedded_moments(net, x("rows", 6, 4, 4), kinds, x("w", 6, 4) if net.strip is not None else None)
    ]


def embedding(b: Reference, x: Inputs) -> list[Tensor]:
    return [b.embedding(scalar_net(x, [3, 6, 12]), x("s", 6, 4), 3 * TYPES, None)]


def moments_with_holes(b: Reference, x: Inputs) -> list[Tensor]:
    rows = x("rows", 6, 4, 4) * MASK.unsqueeze(-1)
    return [b.embedded_moments(scalar_net(x, [3, 6, 6]), rows, 3 * TYPES, None)]


def moments_by_net(b: Reference, x: Inputs) -> list[Tensor]:
    net = scalar_net(x, [2, 4])
    nets = [net._replace(table=net.table[k : k + 1]) for k in range(3)]
    return [b.moments_by_net(nets, x("rows", 6, 4, 4), TYPES, MASK)]


def angle_sums(b: Reference, x: Inputs, **options: bool) -> list[Tensor]:
    net = scalar_net(x, [2, 4, 8], **options)
    directions = x("directions", 6, 4, 3) * MASK.unsqueeze(-1)
    return [b.angle_sums(net, directions, TYPES, None, MASK)]


def angle_sums_of_many(b: Reference, x: Inputs) -> list[Tensor]:
    """More pairs of neighbours than the compiled loops take at once."""
    types = torch.arange(80).view(2, 40) % 3
    mask = types.new_ones(2, 40, dtype=torch.bool)
    directions = 0.3 * x("directions", 2, 40, 3)
    return [b.angle_sums(scalar_net(x, [2, 4, 4]), directions, types, None, mask)]


def table(b: Reference, x: Inputs, nsel: int) -> PairTable:
    return b.pair_table(Neighbors(ATOMS, MASK, x("switch", 6, 4).sigmoid() * MASK), SMOOTH, nsel)


def of_pairs(values: Tensor, pairs: PairTable) -> Tensor:
    """In the order of the table, without padding."""
    places = torch.arange(MASK.numel()) if pairs.chosen is None else pairs.chosen
    return values.new_zeros(MASK.numel(), values.shape[1]).index_copy(0, places, values)[MASK.flatten()]


def neighbor_sums(b: Reference, x: Inputs, *, inner: bool = False, alone: bool = False) -> list[Tensor]:
    pairs = table(b, x, nsel=5)
    g1, g2, h2 = x("g1", 6, 5), pairs.take(x("g2", 6, 4, 4)), pairs.take(x("h2", 6, 4, 3))
    maps = NeighborMaps(
        pairs_to_atoms=None if inner else x("CONV", 4, 5),
        atoms_to_pairs=x("CONV", 5, 4) if inner else None,
        pair_invariants=True,
        atom_invariants=True,
        axis=2,
        root=True,
        product=None if alone else x("PRODUCT", 5, 4),
        query=None if alone else x("query", 6, 2, 5),
    )
    conv, invariants, products, attended = b.neighbor_sums(g1, g2, h2, pairs, maps)
    assert conv is not None
    rest = [] if products is None or attended is None else [of_pairs(products, pairs), attended]
    return [conv, torch.cat(invariants, dim=1), *rest]


def pair_attention(b: Reference, x: Inputs, *, nsel: int, gate: bool = True) -> list[Tensor]:
    pairs = table(b, x, nsel)
    g2, h2 = pairs.take(x("g2", 6, 4, 3)), pairs.take(x("h2", 6, 4, 3))
    overlap, both = pairs.overlaps(h2), pairs.overlaps(pairs.switch.unsqueeze(-1))
    terms = PairTerms(overlap * both if gate else both, SHIFT * both - SHIFT, overlap * both)
    maps = PairMaps(x("QK", 3, 6), x("VO", 6, 3), x("B", 3), None, 2)
    attended, _ = b.pair_attention(g2, h2, terms, pairs, maps)
    assert attended is not None
    return [of_pairs(attended, pairs)]


Case = Callable[[Reference, Inputs], list[Tensor]]
BOTH = {
    "residual step": residual_step,
    "moments": partial(moments, widths=[3, 6, 12]),
    "moments, other skips": partial(moments, widths=[3, 5, 5]),
    "moments, holes": moments_with_holes,
    "moments, strip": partial(moments, widths=[2, 4], strip=True),
    "moments, scales": partial(moments, widths=[2, 4, 4], idt=True),
    "moments by net": moments_by_net,
    "angle sums": angle_sums,
    "angle sums, many": angle_sums_of_many,
    "angle sums, scales": partial(angle_sums, idt=True),
    "angle sums, strip": partial(angle_sums, strip=True),
    "neighbour sums": neighbor_sums,
    "neighbour sums, inner convolution": partial(neighbor_sums, inner=True),
    "neighbour sums alone": partial(neighbor_sums, alone=True),
    "pair attention": partial(pair_attention, nsel=6),
    "pair attention, no slot free": partial(pair_attention, nsel=4),
    "pair attention, too few slots": partial(pair_attention, nsel=2),
    "pair attention without gate": partial(pair_attention, nsel=6, gate=False),
}
TRAINING = {"dense": dense, "net": residual_net, "embedding": embedding}
CASES: list[tuple[str, str, Case]] = [
    *(("inference", name, case) for name, case in BOTH.items()),
    *(("training", name, case) for name, case in {**TRAINING, **BOTH}.items()),
]


def derivatives(case: Case, mode: str, dtype: torch.dtype, *, order: int) -> dict[str, Tensor]:
    """Values, and gradients up to `order` of weighted sums of them, for weights only in training."""
    x = Inputs(dtype)
    backend = make_backend(mode)
    values = case(backend, x)
    weights = Inputs(dtype)

    def weighted(tensors: list[Tensor]) -> Tensor:
        parts = [(t * weights(f"weights {k}", *t.shape).detach()).sum() for k, t in enumerate(tensors)]
        return torch.stack(parts).sum()

    inputs = {n: v for n, v in x.made.items() if not n.isupper()}
    out = {f"value {k}": v for k, v in enumerate(values)}
    first = torch.autograd.grad(weighted(values), list(inputs.values()), create_graph=order > 1)
    out |= {f"d/d {n}": g for n, g in zip(inputs, first)}
    if order > 1:
        total, everything = weighted([*values, *first]), list(x.made.values())
        second = torch.autograd.grad(total, everything, allow_unused=True, materialize_grads=True)
        out |= {f"d2/d {n}": g for n, g in zip(x.made, second)}
    return {n: v.detach() for n, v in out.items()}


@pytest.fixture(autouse=True)
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few atoms each, so that several are needed."""
    for module in ("embedding", "pair_blocks", "residual"):
        monkeypatch.setattr(f"dpa2calc.kernels.inference.{module}._BLOCK_BYTES", 1000)
    monkeypatch.setattr("dpa2calc.kernels.training.moments._ROWS", 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(("mode", "name", "case"), CASES, ids=[f"{m}: {n}" for m, n, _ in CASES])
def test_a_twin_has_the_numbers_of_its_formula(mode: str, name: str, case: Case, dtype: torch.dtype) -> None:
    if mode == "training":
        pytest.importorskip("numba")
    order = 2 if mode == "training" else 1
    expected = derivatives(case, "reference", dtype, order=order)
    got = derivatives(case, mode, dtype, order=order)
    assert got.keys() == expected.keys()
    for key, value in got.items():
        scale = max(1.0, float(expected[key].abs().max()))
        tolerance = (1e-12 if dtype == torch.float64 else 1e-5) * scale
        say = f"{key}: {{}}".format
        torch.testing.assert_close(value, expected[key], rtol=0, atol=tolerance, msg=say)


@pytest.mark.parametrize("name", [*TRAINING, *BOTH])
def test_gradients_of_training_are_the_same_where_they_are_recorded(name: str) -> None:
    """As somebody asks for who differentiates by weights, or once more than a loss on forces."""
    pytest.importorskip("numba")
    case: Case = {**TRAINING, **BOTH}[name]
    made = []
    for mode in ("reference", "training"):
        x = Inputs(torch.float64)
        value = sum(t.square().sum() for t in case(make_backend(mode), x))
        inputs = list(x.made.values())
        given = {"create_graph": True, "allow_unused": True, "materialize_grads": True}
        by_all = torch.autograd.grad(value, inputs, **given)
        positions = [v for n, v in x.made.items() if not n.isupper()]
        first = torch.autograd.grad(value, positions, **given)
        total = sum(g.square().sum() for g in first)
        made.append([g.detach() for g in (*by_all, *torch.autograd.grad(total, positions, **given))])
    for expected, got in zip(*made):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-11 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", ["neighbour sums", *(name for name in BOTH if name.startswith("pair"))])
def test_blocks_have_the_same_numbers_without_compiled_loops(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpa2calc.kernels.inference.compiled.has_numba", lambda: False)
    test_a_twin_has_the_numbers_of_its_formula("inference", name, BOTH[name], dtype)


@pytest.mark.parametrize("case", [neighbor_sums, partial(pair_attention, nsel=6)], ids=["sums", "attention"])
def test_formulas_are_the_same_in_all_layouts(case: Case) -> None:
    class Lists(Reference):
        def pair_table(self, near, kind, nsel):
            return ListPairs.of(near, nsel=nsel)

    class InBlocks(Reference):
        def pair_table(self, near, kind, nsel):
            return BlockPairs.of(near, kind=kind, nsel=nsel)

    x = Inputs(torch.float64)
    for backend in (Lists(), InBlocks()):
        for a, b in zip(case(backend, x), case(Reference(), x)):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_lists_without_any_pair() -> None:
    near = Neighbors(
        torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, 1)
    )
    pairs = ListPairs.of(near, nsel=3)
    x = torch.zeros(0, 4)
    assert pairs.sum(x).shape == (2, 4) and pairs.moments(x, x).shape == (2, 4, 4)
    assert pairs.overlaps(x).shape == (0,) and pairs.join(pairs.blocks(x)).shape == (0, 4)


# --- what the twins are made of -------------------------------------------------------------------


@pytest.mark.parametrize("n_more", [-3, 0, 1, 17])
def test_padded_softmax_counts_columns_that_are_not_there(n_more: int) -> None:
    torch.manual_seed(0)
    scores = 10 * torch.randn(4, 2, 9, dtype=torch.float64) - 10
    if n_more >= 0:
        scores[0] -= 40  # far below the padding; with fewer columns than none the sum would vanish
    missing = n_more * torch.exp(torch.tensor(-SHIFT, dtype=torch.float64))
    expected = scores.exp() / (scores.exp().sum(-1, keepdim=True) + missing)
    torch.testing.assert_close(padded_softmax(scores, n_more), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(padded_weights(scores.clone(), n_more), expected, rtol=1e-12, atol=0)


def test_padded_softmax_survives_a_first_column_that_underflows() -> None:
    scores = torch.full((1, 3), -20.0, dtype=torch.float64)
    scores[0, 0] = -900.0
    assert padded_weights(scores, 5)[0, 1].item() == pytest.approx(1.0 / 7.0, rel=1e-12)


def test_padded_softmax_stays_positive_with_more_neighbours_than_the_normaliser() -> None:
    scores = torch.tensor([[-60.0, -70.0, -50.0]], dtype=torch.float64, requires_grad=True)
    for weights in (padded_softmax(scores, -2), padded_weights(scores.detach().clone(), -2)):
        assert bool((weights >= 0).all()) and float(weights.detach().sum()) < 1e-10
    (gradient,) = torch.autograd.grad(padded_softmax(scores, -2).sum(), scores)
    assert bool(torch.isfinite(gradient).all())


def test_tanh_is_exact_and_differentiable_any_number_of_times() -> None:
    x = torch.linspace(-9, 9, 4001, dtype=torch.float64)
    assert float((Tanh.apply(x) - torch.tanh(x)).abs().max()) < 5e-16
    single = x.float()
    assert float((Tanh.apply(single).double() - torch.tanh(single.double())).abs().max()) < 3e-7
    point = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Tanh.apply, point)
    assert torch.autograd.gradgradcheck(Tanh.apply, point)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_exponentials_of_compiled_loops(dtype: type[np.floating]) -> None:
    pytest.importorskip("numba")
    x = np.concatenate([-np.logspace(-8, 1.9, 4001), [0.0, -1e5]]).astype(dtype)
    got = x.copy()
    Native("inference.softmax_loops", "exponentials")(got, exponential_terms(np.dtype(dtype)))
    np.testing.assert_allclose(got, np.exp(x.astype(np.float64)), rtol=4 * np.finfo(dtype).eps, atol=1e-37)
