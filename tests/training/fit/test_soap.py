"""SOAP: turns with the weights' bases, steps like Adam for vectors, and goes on exactly where it stopped."""

import numpy as np
import pytest
import torch
from torch import nn

from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.fit.optimizers.adam import Adam
from dpa2calc.training.fit.optimizers.optimizer import make_optimizer
from dpa2calc.training.fit.optimizers.soap import MAX_ROTATED, Soap
from dpa2calc.training.runs.processes import ALONE, Processes


def _orthogonal(n, seed):
    return torch.linalg.qr(torch.randn(n, n, generator=torch.Generator().manual_seed(seed)).double())[0]


def _gradients(shape, n, seed=0):
    rng = np.random.default_rng(seed)
    scale = np.outer(np.logspace(0, 1, shape[0]), np.logspace(0, 1, shape[1]))
    return [torch.from_numpy(rng.normal(size=shape) * scale) for _ in range(n)]


def _run(soap, gradients):
    (p,) = soap.named.values()
    for g in gradients:
        p.grad = g.clone()
        soap.step(1e-2)
    return p.detach().clone()


def test_rotated_gradients_give_the_rotated_path():
    """Adam's path depends on the coordinates of the weights, SOAP's does not."""
    left, right, gradients = _orthogonal(6, 1), _orthogonal(6, 2), _gradients((6, 6), 35)
    for kind, invariant in ((Soap, True), (Adam, False)):
        plain = _run(kind({"w": nn.Parameter(torch.zeros(6, 6).double())}), gradients)
        turned = _run(
            kind({"w": nn.Parameter(torch.zeros(6, 6).double())}), [left @ g @ right for g in gradients]
        )
        error = float((turned - left @ plain @ right).abs().max())
        assert (error < 1e-10) == invariant, (kind, error)


def test_vectors_take_adams_steps():
    gradients = [g[0] for g in _gradients((1, 6), 20)]
    ours = _run(Soap({"b": nn.Parameter(torch.zeros(6).double())}), gradients)
    adam = _run(Adam({"b": nn.Parameter(torch.zeros(6).double())}, beta1=0.95, beta2=0.95), gradients)
    np.testing.assert_allclose(ours, adam, rtol=1e-10)


def test_finds_the_least_squares_solution_that_adam_is_slow_to_find():
    """W (X^T) = Y with correlated inputs: the eigenbasis removes the correlation."""
    rng = np.random.default_rng(3)
    x = torch.from_numpy(rng.normal(size=(400, 12)) * np.logspace(0, -2, 12)) @ _orthogonal(12, 4)
    solution = torch.from_numpy(rng.normal(size=(12, 5)))
    errors = {}
    for kind in (Soap, Adam):
        w = nn.Parameter(torch.zeros(12, 5).double())
        optimizer = kind({"w": w})
        for step in range(400):
            loss = ((x @ (w - solution)) ** 2).mean()
            w.grad = torch.autograd.grad(loss, w)[0]
            optimizer.step(0.1 * (1 - step / 400))
        errors[kind] = float(((x @ (w - solution)) ** 2).mean().detach())
    assert errors[Soap] < 1e-2 * errors[Adam]


def test_directions_of_rounding_noise_are_left_alone():
    """Rows that no data reaches have gradients of rounding size; they must not take full steps."""
    gradients = _gradients((4, 6), 30)
    for g in gradients:
        g[3] *= 1e-9
    w = _run(Soap({"w": nn.Parameter(torch.zeros(4, 6).double())}), gradients)
    assert float(w[3].abs().max()) < 1e-4 * float(w[0].abs().max())


@pytest.mark.parametrize("shape", [(5, 7), (MAX_ROTATED + 1, 3), (1, 9), (6,)])
def test_goes_on_to_the_bit(shape):
    gradients = [torch.randn(shape, generator=torch.Generator().manual_seed(i)) for i in range(31)]
    whole = _run(Soap({"w": nn.Parameter(torch.zeros(shape))}), gradients)
    for stop in (1, 2, 14):
        first = Soap({"w": nn.Parameter(torch.zeros(shape))})
        weights = _run(first, gradients[:stop])
        second = Soap({"w": nn.Parameter(weights)})
        second.load({k: v.clone() for k, v in first.tensors().items()}, dict(first.steps))
        assert torch.equal(_run(second, gradients[stop:]), whole)


@pytest.mark.parametrize(("config", "both"), [(TrainConfig(), True), (FinetuneConfig(), False)])
def test_long_sides_are_rotated_where_weights_are_fresh(config, both):
    gradients = [g.float() for g in _gradients((300, 4), 12)]
    whole = make_optimizer({"w": nn.Parameter(torch.zeros(300, 4))}, config)
    weights = _run(whole, gradients)
    left, right = whole.sides["w"]
    assert (left is not None) == both and right is not None
    again = make_optimizer({"w": nn.Parameter(weights)}, config)
    again.load({k: v.clone() for k, v in whole.tensors().items()}, dict(whole.steps))
    assert torch.equal(_run(again, gradients), _run(whole, gradients))


@pytest.mark.parametrize("optimizer, own", [("soap", (0.95, 0.95)), ("adam", (0.9, 0.999))])
def test_betas_are_the_optimisers_own_unless_given(optimizer, own):
    def betas(**options):
        made = make_optimizer({}, TrainConfig(optimizer=optimizer, **options))
        return made.beta1, made.beta2

    assert betas() == own
    assert betas(beta1=0.0) == (0.0, own[1]) and betas(beta2=0.5) == (own[0], 0.5)


def test_weights_without_a_gradient_stay():
    named = {"a": nn.Parameter(torch.ones(3, 3)), "b": nn.Parameter(torch.ones(3, 3))}
    soap = Soap(named)
    for g in _gradients((3, 3), 5):
        named["a"].grad, named["b"].grad = g.float(), None
        soap.step(0.1)
    assert torch.equal(named["b"].detach(), torch.ones(3, 3)) and soap.steps == {"a": 4, "b": 0}


class _Recorded(Processes):
    """A process of two whose messages are the sums of what both sent."""

    sent: list[torch.Tensor]
    others: list[torch.Tensor] | None

    @classmethod
    def make(cls, rank, others=None):
        made = cls(rank, 2)
        object.__setattr__(made, "sent", [])
        object.__setattr__(made, "others", others)
        return made

    def sum(self, values):
        self.sent.append(values.clone())
        return values if self.others is None else values + self.others[len(self.sent) - 1]


def test_processes_share_the_bases_that_are_renewed():
    shapes, steps = {"a": (8, 5), "b": (6, 6), "c": (20, 3)}, 11

    def trained(processes):
        named = {n: nn.Parameter(torch.zeros(shape).double()) for n, shape in shapes.items()}
        soap = Soap(named, processes=processes)
        for k in range(steps):
            for seed, (n, shape) in enumerate(shapes.items()):
                named[n].grad = _gradients(shape, steps, seed)[k]
            soap.step(1e-2)
        return soap

    parts = [_Recorded.make(rank) for rank in (0, 1)]
    for part in parts:
        trained(part)
    assert [len(part.sent) for part in parts] == [1, 1]  # one message for all matrices
    shares = [int((part.sent[0] != 0).sum()) for part in parts]
    assert max(shares) < 0.8 * sum(shares)
    alone, first = trained(ALONE), trained(_Recorded.make(0, parts[1].sent))
    for name, value in alone.tensors().items():
        assert torch.equal(value, first.tensors()[name]), name
