"""Loss by hand, its gradient through the forces, prefactors and schedules."""

import dataclasses

import numpy as np
import pytest
import torch

from dpa2calc.errors import ConfigError
from dpa2calc.model.potential import Output
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.fit.loader import GraphStore, make_batch
from dpa2calc.training.fit.loss import energy_force_loss
from dpa2calc.training.fit.setup import new_potential


@pytest.fixture
def batch(tiny_model, lj_frames):
    frames = [*lj_frames(2), lj_frames(1, repeat=2)[0]]
    return make_batch(GraphStore(Dataset.from_atoms(frames), tiny_model()), [0, 1, 2])


def _output(batch, seed=0):
    g = torch.Generator().manual_seed(seed)
    m, n = len(batch.energy), len(batch.forces)

    def noise(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return Output(
        energy=batch.energy + noise(m),
        atomic_energies=torch.zeros(n),
        forces=batch.forces + noise(n, 3),
        virial=batch.virial + noise(m, 3, 3),
    )


def test_loss_is_the_formula(batch):
    out = _output(batch)
    terms = energy_force_loss(out, batch, (2.0, 3.0, 5.0))
    n = np.array([4.0, 4.0, 8.0])
    d_e = (out.energy - batch.energy).numpy()
    d_f = (out.forces - batch.forces).numpy()
    d_w = (out.virial - batch.virial).numpy()
    d_w = 0.5 * (d_w + d_w.transpose(0, 2, 1))
    expected = 2.0 * np.mean(d_e**2 / n) + 3.0 * np.mean(d_f**2) + 5.0 * np.mean(d_w**2 / n[:, None, None])
    assert float(terms.total) == pytest.approx(expected, rel=1e-12)


def test_huber_is_quadratic_inside_and_linear_outside(batch):
    out = _output(batch)
    d_f = (out.forces - batch.forces).abs().numpy()
    wide = energy_force_loss(out, batch, (0.0, 1.0, 0.0), huber_delta=100.0)
    assert float(wide.total) == pytest.approx(np.mean(d_f**2), rel=1e-12)
    delta = 0.3
    narrow = energy_force_loss(out, batch, (0.0, 1.0, 0.0), huber_delta=delta)
    by_hand = np.where(d_f < delta, d_f**2, 2 * delta * d_f - delta**2).mean()
    assert float(narrow.total) == pytest.approx(by_hand, rel=1e-12)


def test_missing_labels_do_not_count(batch):
    out = _output(batch)
    half = dataclasses.replace(
        batch,
        has_energy=torch.tensor([True, False, False]),
        has_forces=torch.arange(16) < 4,
        has_virial=torch.zeros(3, dtype=torch.bool),
    )
    terms = energy_force_loss(out, half, (1.0, 1.0, 1.0))
    expected = float((out.energy - batch.energy)[0] ** 2 / 4 + ((out.forces - batch.forces)[:4] ** 2).mean())
    assert float(terms.total) == pytest.approx(expected, rel=1e-12)
    assert terms.d_virial.numel() == 0


def test_gradient_through_forces_matches_finite_differences(tiny_model, batch):
    potential = new_potential(tiny_model(), seed=1, dtype="float64")

    def loss() -> torch.Tensor:
        output = potential.compute(batch.graph, create_graph=True)
        return energy_force_loss(output, batch, (0.5, 2.0, 0.7)).total

    loss().backward()
    for name, parameter in potential.named_parameters():
        flat, index = parameter.data.view(-1), parameter.numel() // 2
        old, h = float(flat[index]), 1e-5
        flat[index] = old + h
        up = float(loss().detach())
        flat[index] = old - h
        down = float(loss().detach())
        flat[index] = old
        numeric = (up - down) / (2 * h)
        assert float(parameter.grad.view(-1)[index]) == pytest.approx(numeric, rel=2e-4, abs=1e-6), name


def test_prefactors_follow_the_learning_rate():
    config = TrainConfig(virial_prefactor_start=0.0, virial_prefactor_limit=0.0)
    assert config.prefactors(1.0) == (0.02, 1000.0, 0.0)
    assert config.prefactors(0.0) == (1.0, 1.0, 0.0)
    assert config.prefactors(0.25) == pytest.approx((0.755, 250.75, 0.0))


def test_paper_schedule():
    s = TrainConfig.paper()
    assert s.learning_rate_at(0) == s.learning_rate_at(4999) == 2e-4
    assert s.learning_rate_at(5000) < 2e-4
    assert s.learning_rate_at(999_999) == pytest.approx(3e-8, rel=0.06)
    ratio = s.learning_rate_at(500_000) / s.learning_rate_at(495_000)
    assert ratio == pytest.approx((3e-8 / 2e-4) ** (1 / 200), rel=1e-9)


def _deepmd_rates(start, stop, steps, decay_steps):
    """deepmd-kit's LearningRateExp of all steps, after its formulas (no warm-up, no decay_rate)."""
    if decay_steps >= steps:
        decay_steps = 100 if steps // 10 > 100 else steps // 100 + 1
    rate = np.exp(np.log(stop / start) / (steps / decay_steps))
    return np.maximum(start * rate ** (np.arange(steps) // decay_steps), stop)


@pytest.mark.parametrize("decay_steps", [1, 3, 50, 5000])
@pytest.mark.parametrize("steps", [1, 2, 7, 99, 100, 101, 1999, 2000, 4999, 5000, 5001, 7400, 10_000, 12_000])
def test_the_exponential_schedule_is_that_of_deepmd_kit(steps, decay_steps):
    s = TrainConfig.paper(steps=steps, decay_steps=decay_steps)
    expected = _deepmd_rates(2e-4, 3e-8, steps, decay_steps)
    chosen = sorted({0, steps - 1, *range(0, steps, max(steps // 200, 1))})
    np.testing.assert_allclose([s.learning_rate_at(i) for i in chosen], expected[chosen], rtol=1e-9)


def test_short_runs_of_the_paper_protocol_come_down():
    # as deepmd-kit 3.1.2 prints them; with them the loss moves from forces to energies
    for steps, last in ((2000, 4.7e-8), (7400, 5.2e-7), (12_000, 1.3e-7)):
        config = TrainConfig.paper(steps=steps)
        assert config.learning_rate_at(steps - 1) == pytest.approx(last, rel=0.05)
        energy, force, _ = config.prefactors(config.rate_fraction(steps - 1))
        assert energy == pytest.approx(1.0, abs=0.01) and force < 4.0


def test_the_decay_counts_from_the_end_of_the_warm_up():
    rates = {"learning_rate": 1e-3, "learning_rate_stop": 1e-5}
    s = TrainConfig(schedule="exponential", **rates, steps=1000, decay_steps=100, warmup_steps=200)
    assert s.learning_rate_at(199) == s.learning_rate_at(299) == 1e-3
    expected = _deepmd_rates(1e-3, 1e-5, 800, 100)
    np.testing.assert_allclose([s.learning_rate_at(i) for i in range(200, 1000)], expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["exponential", "cosine"])
def test_warm_up_and_end(kind):
    rates = {"learning_rate": 1e-2, "learning_rate_stop": 1e-5}
    s = TrainConfig(schedule=kind, **rates, steps=1000, warmup_steps=100)
    rates = [s.learning_rate_at(i) for i in range(1000)]
    assert rates[0] == pytest.approx(1e-4) and rates[49] == pytest.approx(5e-3)
    assert max(rates) == pytest.approx(1e-2)
    assert all(a >= b for a, b in zip(rates[100:], rates[101:]))
    assert s.learning_rate_at(1000) == pytest.approx(1e-5)


def test_wrong_options_say_what_is_allowed():
    with pytest.raises(ConfigError, match="optimizer = 'sgd' is not allowed; allowed: adam, adamw, soap"):
        TrainConfig(optimizer="sgd")
    with pytest.raises(ConfigError, match=r"learning_rate_stop = 0\.1"):
        TrainConfig(learning_rate_stop=0.1)
    with pytest.raises(ConfigError, match="choose 'adamw'"):
        TrainConfig(optimizer="adam", weight_decay=0.1)
    with pytest.raises(ConfigError, match="batch_atoms = 0"):
        TrainConfig(batch_atoms=0)
    with pytest.raises(ConfigError, match=r"learning_rate = -1\.0 is not allowed; allowed: above 0"):
        TrainConfig(learning_rate=-1.0)
    with pytest.raises(ConfigError, match=r"^force_prefactor_limit = -1\.0 .* allowed: at least 0"):
        TrainConfig(force_prefactor_limit=-1.0)
    names = [
        f"{kind}_prefactor_{end}" for kind in ("energy", "force", "virial") for end in ("start", "limit")
    ]
    with pytest.raises(ConfigError, match=r"virial_prefactor_limit = 0 .* one of them above 0"):
        TrainConfig(**dict.fromkeys(names, 0.0))
    for name, value in (("beta1", 1.0), ("beta1", -0.1), ("beta2", 1.0)):  # divided by 1 - beta^n
        with pytest.raises(ConfigError, match=rf"^{name} = {value} .* allowed: from 0 to below 1"):
            TrainConfig(**{name: value})
    for name in ("weight_decay", "time_limit"):
        with pytest.raises(ConfigError, match=rf"^{name} = -1\.0 is not allowed; allowed: at least 0"):
            TrainConfig(**{name: -1.0})
