"""The rigidity of a last layer, against linear models whose posterior is known exactly."""

import numpy as np
import pytest
import torch

from dpa2calc.errors import ConfigError
from dpa2calc.model import rigidity as module
from dpa2calc.model.rigidity import (
    RIDGES,
    Rigidity,
    RigidityFacts,
    calibrate,
    force_floor,
    inverse_factor,
)

WIDTH = 6


def features(n, seed):
    """(n, WIDTH) of very different lengths by direction, correlated."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(WIDTH, WIDTH)) * 10.0 ** -np.arange(WIDTH)[:, None]
    return torch.from_numpy(rng.normal(size=(n, WIDTH)) @ mixing)


def made(x, *, scale=0.3, ridge=1e-6, types=2):
    """A rigidity from the features of one net."""
    factor = inverse_factor((x.t() @ x / len(x))[None], ridge)
    return Rigidity(factor, torch.ones(types), RigidityFacts(scale=scale, ridge=ridge)).double()


def test_the_deviation_is_that_of_bayesian_linear_regression():
    # y = x . w + noise with the prior N(0, noise^2 / (n ridge mean)): covariance of w known in closed form
    x, new = features(200, 0), features(5, 1)
    noise, ridge = 0.02, 1e-4
    mean = float(torch.trace(x.t() @ x / 200) / WIDTH)
    posterior = noise**2 * torch.linalg.inv(x.t() @ x + 200 * ridge * mean * torch.eye(WIDTH))
    exact = torch.einsum("na,ab,nb->n", new, posterior, new).sqrt()
    found = made(x, scale=noise / 200**0.5, ridge=ridge).of_atoms(new, torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)  # the factor is float32 in between


def test_scale_and_coverage_on_synthetic_errors():
    """Errors drawn from the posterior: the scale is found, and one deviation holds 68 % of them."""
    x = features(3000, 2)
    moments = (x.t() @ x / len(x))[None]
    rng = np.random.default_rng(3)
    true = inverse_factor(moments, 1e-6)[0].numpy()
    weights = 0.05 * rng.normal(size=(3000, WIDTH)) @ true
    errors = torch.from_numpy((weights * x.numpy()).sum(axis=1))
    found = calibrate(moments, x[:, None, :], errors)
    assert found.scale == pytest.approx(0.05, rel=0.05) and found.left_out == 0
    sure = made(x, scale=found.scale, ridge=found.ridge)
    std = sure.of_structures(x, torch.zeros(3000, dtype=torch.int64), torch.arange(3000), 3000)
    assert float((errors.abs() < std).double().mean()) == pytest.approx(0.683, abs=0.03)
    assert float((errors.abs() < 2 * std).double().mean()) == pytest.approx(0.954, abs=0.015)


def test_the_ridge_is_chosen_by_the_errors():
    """Errors drawn from posteriors of two ridges are told apart."""
    x = features(3000, 4)
    moments = (x.t() @ x / len(x))[None]
    rng = np.random.default_rng(5)
    found = []
    for ridge in (RIDGES[0], RIDGES[-1]):
        weights = rng.normal(size=(3000, WIDTH)) @ inverse_factor(moments, ridge)[0].numpy()
        errors = torch.from_numpy((weights * x.numpy()).sum(axis=1))
        found.append(calibrate(moments, x[:, None, :], errors).ridge)
    assert found[0] <= RIDGES[1] and found[1] >= RIDGES[-2]


def test_wrong_labels_do_not_set_the_scale():
    x = features(300, 5)
    moments = (x.t() @ x / len(x))[None]
    usual = made(x, scale=0.1).of_atoms(x, torch.zeros(300, dtype=torch.int64))
    errors = usual * torch.randn(300, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clean = calibrate(moments, x[:, None, :], errors).scale
    errors[7] = 500.0
    spoiled = calibrate(moments, x[:, None, :], errors)
    assert spoiled.left_out == 1 and spoiled.scale == pytest.approx(clean, rel=0.1)


def test_nets_of_elements_are_independent():
    """Without mixed types the variances of the nets add up, and a net without atoms does no harm."""
    x, y = features(50, 6), features(50, 7)
    moments = torch.stack([x.t() @ x / 50, y.t() @ y / 50, torch.zeros(WIDTH, WIDTH).double()])
    both = Rigidity(inverse_factor(moments, 1e-6), torch.ones(3), RigidityFacts(scale=1.0)).double()
    new, types = features(4, 8), torch.tensor([0, 1, 0, 1])
    parts = [made(part, scale=1.0) for part in (x, y)]
    zeros = torch.zeros(2, dtype=torch.int64)
    expected = sum(
        one.of_structures(new[types == k], zeros, zeros, 1) ** 2 for k, one in enumerate(parts)
    ).sqrt()
    torch.testing.assert_close(both.of_structures(new, types, torch.zeros(4).long(), 1), expected)
    alone = both.of_atoms(new, types)
    torch.testing.assert_close(alone[1:2], parts[1].of_atoms(new[1:2], zeros[:1]))
    assert bool(both.of_atoms(new, torch.full((4,), 2)).isfinite().all())


def test_draws_have_the_covariance_and_are_the_same_every_time(monkeypatch):
    sure, new = made(features(100, 9)), features(3, 10)
    types = torch.zeros(3, dtype=torch.int64)
    assert torch.equal(sure.draws(types), sure.draws(types))
    monkeypatch.setattr(module, "MEMBERS", 20_000)
    spread = (sure.draws(types) * new).sum(dim=2).square().mean(dim=0).sqrt()
    torch.testing.assert_close(spread, sure.of_atoms(new, types), rtol=0.02, atol=0)


def test_a_floor_under_the_errors_of_forces_is_found():
    """Errors of two parts, one that grows with the deviation: each bin of them has the right mean square."""
    normal = torch.Generator().manual_seed(0)
    variances = torch.rand(40_000, generator=normal, dtype=torch.float64) ** 3
    variances[:4000] = 1e-12  # forces that symmetry forbids
    floor, seen = 0.4, 0.5
    true = seen * variances + floor**2 * (variances > 1e-6)
    squares = true * torch.randn(40_000, generator=normal, dtype=torch.float64).square()
    variances *= squares.mean() / variances.mean()
    found = force_floor(squares, variances)
    assert found == pytest.approx(floor, rel=0.05)
    facts = RigidityFacts(scale=1.0, force_floor=found, force_error=float(squares.mean().sqrt()))
    sure = Rigidity(torch.eye(2)[None], torch.ones(1), facts)
    std = sure.of_forces(variances.sqrt().view(1, -1, 1))[:, 0]
    for part in std.argsort()[4000:].tensor_split(8):
        ratio = (squares[part].mean() / std[part].square().mean()).sqrt()
        assert float(ratio) == pytest.approx(1.0, abs=0.1)
    assert float(std[:4000].max()) < 1e-3
    assert force_floor(squares, torch.zeros(40_000, dtype=torch.float64)) == 0.0


def test_without_a_floor_deviations_are_those_of_the_draws():
    changes = torch.randn(8, 5, 3, generator=torch.Generator().manual_seed(1))
    sure = Rigidity(torch.eye(2)[None], torch.ones(1), RigidityFacts(scale=1.0))
    torch.testing.assert_close(sure.of_forces(changes), changes.square().mean(dim=0).sqrt())


def test_files_hold_a_triangle():
    sure = made(features(20, 11))
    tensors = sure.tensors()
    assert tensors["triangle"].shape == (1, WIDTH * (WIDTH + 1) // 2)
    again = Rigidity.from_tensors(tensors, sure.facts, (1, WIDTH, 2))
    assert torch.equal(again.factor, sure.factor.float()) and again.facts == sure.facts
    with pytest.raises(ConfigError, match=r"arrays .*'limits': \(2,\).* expected .*\(3,\)"):
        Rigidity.from_tensors(tensors, sure.facts, (1, WIDTH, 3))
