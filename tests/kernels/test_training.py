"""Training's functions with derivatives by hand, against plain formulas and finite differences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from dpa2calc.kernels.training.attention import Blocks, attend
from dpa2calc.kernels.training.dense_tanh import tanh_dense, tanh_embedding
from dpa2calc.kernels.training.pair_list import FlatPairs
from dpa2calc.model.config import DPA2Config, ModelConfig, RepformerConfig, RepinitConfig, ThreeBodyConfig
from dpa2calc.model.descriptors.gated_attention import padded_softmax
from dpa2calc.model.potential import Potential
from dpa2calc.structures.graph import collate
from dpa2calc.structures.graph_builder import graph_from_atoms

REPFORMER = RepformerConfig(
    cutoff=3.6, cutoff_smooth=2.0, nsel=40, nlayers=2, g1_dim=5, g2_dim=3, axis_neuron=2,
    update_g1_has_attn=False, update_g2_has_attn=False, update_g2_has_g1g1=False,
)  # fmt: skip
SMALL = DPA2Config(
    repinit=RepinitConfig(cutoff=5.0, nsel=90, neuron=(3, 6, 12), axis_neuron=3, tebd_dim=4),
    repformer=REPFORMER,
)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_dense_layer_has_exact_first_and_second_derivatives():
    torch.manual_seed(0)
    inputs = (random(5, 3), random(3, 4), random(4))
    x, matrix, bias = inputs
    torch.testing.assert_close(tanh_dense(*inputs), torch.tanh(x @ matrix + bias), rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(tanh_dense, inputs)
    assert torch.autograd.gradgradcheck(tanh_dense, inputs)


@pytest.mark.parametrize("skips", [(2, 2), (0, 1), (2, 0)])
def test_embedding_has_exact_first_and_second_derivatives(skips):
    torch.manual_seed(0)
    widths = [2]
    for skip in skips:
        widths.append(widths[-1] * (skip or 2))
    index = torch.tensor([0, 2, 1, 2, 2, 0])
    weights = [random(a, b) for a, b in zip(widths, widths[1:])] + [random(b) for b in widths[1:]]

    def embed(s, table, slope, *weights):
        n = len(skips)
        return tanh_embedding(s, index, table, slope, list(zip(weights[:n], weights[n:], skips)))

    def plain(s, table, slope, *weights):
        x = torch.tanh(s[:, None] * slope + table[index])
        for skip, matrix, bias in zip(skips, weights, weights[len(skips) :]):
            y = torch.tanh(x @ matrix + bias)
            x = y if skip == 0 else y + torch.cat([x] * skip, dim=1)
        return x

    inputs = (random(6), random(3, 2), random(2), *weights)
    torch.testing.assert_close(embed(*inputs), plain(*inputs), rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(embed, inputs)
    assert torch.autograd.gradgradcheck(embed, inputs)


def test_surroundings_are_the_plain_sums_with_exact_derivatives():
    pytest.importorskip("numba")
    from dpa2calc.kernels.training.neighbor_sums import Shape, surroundings

    torch.manual_seed(0)
    # Four atoms with three, none, two and four neighbours, one of them twice, in a table with a hole.
    mask = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    neighbors = torch.tensor([[1, 0, 2, 2], [0, 0, 0, 0], [3, 0, 0, 0], [0, 1, 2, 0]])
    pairs = FlatPairs.of(mask, neighbors)
    shape = Shape(pairs, axis=2, factor=0.3)
    inputs = (random(4, 5), random(9, 3), random(9, 3), random(9), random(3, 5))

    def plain(g1, g2, h2, weight, project):
        sums = lambda values: values.new_zeros(4, *values.shape[1:]).index_add(0, pairs.centers, values)  # noqa: E731
        around = g1[pairs.neighbors]
        conv = sums((g2 * weight[:, None]) @ project * around)
        moments = (sums(h2[:, :, None] * x[:, None, :]) for x in (g2, around))
        return conv, torch.cat([0.3 * (m[:, :, :2].mT @ m).flatten(1) for m in moments], dim=1)

    fast = lambda *x: surroundings(*x, shape)  # noqa: E731
    for a, b in zip(fast(*inputs), plain(*inputs)):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(fast, inputs)
    assert torch.autograd.gradgradcheck(fast, inputs)


def test_products_of_pairs_have_exact_first_and_second_derivatives():
    pytest.importorskip("numba")
    from dpa2calc.kernels.training.products import pair_products

    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 1]], dtype=torch.bool)
    pairs = FlatPairs.of(mask, torch.tensor([[1, 2, 2], [0, 0, 0], [0, 0, 2]]))
    g1 = random(3, 4)
    fast = lambda x: pair_products(x, pairs)  # noqa: E731
    torch.testing.assert_close(fast(g1), g1[pairs.centers] * g1[pairs.neighbors], rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(fast, (g1,))
    assert torch.autograd.gradgradcheck(fast, (g1,))


@pytest.mark.parametrize("nsel", [6, 4, 2])
@pytest.mark.parametrize("of_pairs", [True, False])
def test_attention_is_the_plain_formula_with_exact_derivatives(nsel, of_pairs):
    torch.manual_seed(0)
    # Atoms with three, none, two, four, one and two neighbours.
    mask = torch.tensor(
        [[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]], dtype=torch.bool
    )
    neighbors = torch.tensor([[1, 0, 2, 5], [0] * 4, [3, 0, 0, 0], [0, 1, 2, 0], [3, 0, 0, 0], [0, 4, 4, 0]])
    pairs, heads, d = FlatPairs.of(mask, neighbors), 2, 3
    if of_pairs:
        blocks = Blocks.of_pairs(pairs, heads, nsel)
    else:
        blocks = Blocks.of_atoms(pairs, heads, nsel, mask=mask, neighbors=neighbors)
    rows = len(pairs.chosen) if of_pairs else 6
    terms = [random(len(pairs.squares()[0]) if of_pairs else len(pairs.chosen)) for _ in range(3)]
    inputs = (random(rows, heads * d), random(rows, d), *terms)

    def plain(query, keys, *terms):
        out, pair, square = [query.new_zeros(0 if of_pairs else 1, heads * d)], 0, 0
        for place, c in enumerate(sorted(pairs.count.tolist())):
            mine, q = slice(pair, pair + c), query[pair : pair + c] if of_pairs else query[place : place + 1]
            x = keys[mine] if of_pairs else keys[pairs.neighbors[mine]]
            chosen = slice(square, square + c * c) if of_pairs else mine
            gate, shift, scale = (t[chosen].view(-1, 1, c) if c else t[:0].view(0, 1, 1) for t in terms)
            pair, square = pair + c, square + c * c
            if c:
                scores = torch.einsum("rhd,kd->rhk", q.view(-1, heads, d), x)
                weights = padded_softmax(scores * gate + shift, nsel - c) * scale
                out.append(torch.einsum("rhk,kd->rhd", weights, x).flatten(1))
        return torch.cat(out)

    def fast(query, keys, *terms):
        if not of_pairs:  # lists to tables, with -20 for the score of padding
            tables = [t.new_zeros(mask.numel()).index_put((pairs.chosen,), t).view(mask.shape) for t in terms]
            tables[1] = torch.where(mask, tables[1], -20.0)
            terms = [t[pairs.order] for t in tables]
        return attend(query, keys, terms, blocks)

    torch.testing.assert_close(fast(*inputs), plain(*inputs), rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(fast, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(fast, inputs, fast_mode=True)


def frames() -> list[Atoms]:
    """A slab with a molecule, a molecule in vacuum and a lone atom."""
    slab = bulk("Cu", cubic=True).repeat((2, 1, 2))
    slab.rattle(0.1, seed=3)
    ethanol = molecule("CH3OH")
    ethanol.symbols[0] = "O"
    return [slab, ethanol, Atoms("H", positions=[[0, 0, 0]])]


def loss_gradient(config: ModelConfig, wanted: str = "") -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """A loss on energies, forces and virials of several frames, and its gradient for the weights `wanted`."""
    torch.manual_seed(7)
    potential = Potential(config)
    graph = collate([graph_from_atoms(a, config) for a in frames()])
    out = potential.compute(graph, create_graph=True)
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros((), dtype=torch.float64)
    for value in (out.energy, out.forces, out.virial):
        label = torch.randn(value.shape, generator=rng, dtype=torch.float64)
        total = total + (value - label).square().sum()
    named = {n: p for n, p in potential.named_parameters() if wanted in n}
    total.backward(inputs=list(named.values()))
    return total.detach(), {n: p.grad for n, p in named.items() if p.grad is not None}


ATTENTION = {"update_g1_has_attn": True, "update_g2_has_attn": True, "update_g2_has_g1g1": True}
VARIANTS = {
    "small": {},
    "averaged": {"update_style": "res_avg", "use_sqrt_nnei": False},
    "without own layer": {"g1_out_mlp": False},
    "relu": {"activation": "softplus"},
    "paper": {**ATTENTION, "update_style": "res_avg", "g1_out_conv": False, "g1_out_mlp": False},
    "attention without gate": {**ATTENTION, "attn2_has_gate": False},
    "fewer slots than neighbours": {**ATTENTION, "nsel": 4},
    "inner convolution": {"g1_out_conv": False},
    "three-body": {},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_lists_of_pairs_give_the_gradients_of_the_table(name, monkeypatch):
    pytest.importorskip("numba")
    repformer = dataclasses.replace(REPFORMER, **VARIANTS[name])
    three_body = ThreeBodyConfig(cutoff=3.4, cutoff_smooth=2.0, nsel=40) if name == "three-body" else None
    descriptor = dataclasses.replace(SMALL, repformer=repformer, three_body=three_body)
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=descriptor)
    loss, gradient = loss_gradient(config)
    monkeypatch.setattr("dpa2calc.model.descriptors.dpa2.has_numba", lambda: False)
    monkeypatch.setattr("dpa2calc.model.embedding.PairEmbedding.takes_columns", False)
    expected_loss, expected = loss_gradient(config)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
    assert gradient.keys() == expected.keys()
    for key, value in gradient.items():
        torch.testing.assert_close(
            value, expected[key], rtol=1e-9, atol=1e-11 * float(expected[key].abs().max())
        )


def test_gradient_of_a_loss_on_forces_is_that_of_finite_differences(monkeypatch):
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=SMALL)
    _, gradient = loss_gradient(config)
    rng = np.random.default_rng(0)
    shift = {n: torch.from_numpy(rng.standard_normal(g.shape)) for n, g in gradient.items()}
    slope = sum(float((gradient[n] * shift[n]).sum()) for n in shift)
    original, losses = Potential.compute, []

    for step in (1e-5, -1e-5):

        def moved(self, *args, step=step, **options):
            with torch.no_grad():
                for name, p in self.named_parameters():
                    if name in shift:
                        p.add_(shift[name], alpha=step)
            return original(self, *args, **options)

        monkeypatch.setattr(Potential, "compute", moved)
        losses.append(float(loss_gradient(config)[0]))
    assert (losses[0] - losses[1]) / 2e-5 == pytest.approx(slope, rel=1e-6)


def test_frozen_weights_do_not_change_the_other_gradients():
    config = ModelConfig(type_map=("O", "H", "Cu"), descriptor=SMALL)
    _, gradient = loss_gradient(config)
    for part in ("proj_g1g2", "embedding", "heads"):
        _, some = loss_gradient(config, wanted=part)
        assert some and all(torch.equal(value, gradient[name]) for name, value in some.items())
