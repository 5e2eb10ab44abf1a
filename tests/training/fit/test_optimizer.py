"""Adam by its formulas, clipping, and the average of the weights."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.fit.optimizers.adam import Adam
from dpa2calc.training.fit.optimizers.optimizer import BatchClipper, Clipper, WeightAverage
from dpa2calc.training.fit.run import pretrain
from dpa2calc.training.runs.state import read_tensors


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_is_the_textbook_one_also_when_gradients_are_missing(decay):
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(5, 3)), rng.normal(size=4)]
    named = {str(i): nn.Parameter(torch.from_numpy(v.copy())) for i, v in enumerate(start)}
    adam = Adam(named, weight_decay=decay)
    m, v, t = [0.0, 0.0], [0.0, 0.0], [0, 0]
    for step in range(12):
        rate = 1e-2 / (1 + step)
        for i in range(2):
            gradient = rng.normal(size=start[i].shape)
            if i == 1 and step % 3:
                named["1"].grad = None
                continue
            named[str(i)].grad = torch.from_numpy(gradient)
            t[i] += 1
            m[i] = 0.9 * m[i] + 0.1 * gradient
            v[i] = 0.999 * v[i] + 0.001 * gradient**2
            start[i] = start[i] * (1 - rate * decay)
            start[i] -= rate * (m[i] / (1 - 0.9 ** t[i])) / (np.sqrt(v[i] / (1 - 0.999 ** t[i])) + 1e-8)
        adam.step(rate)
        for i in range(2):
            np.testing.assert_allclose(named[str(i)].detach(), start[i], rtol=1e-12)
    assert adam.steps == {"0": 12, "1": 4}


def test_clipping_by_length_and_by_the_running_mean():
    p = nn.Parameter(torch.zeros(4))

    def clip(clipper, length):
        p.grad = torch.full((4,), length / 2.0)
        assert clipper.apply([p]) == pytest.approx(length)
        return float(p.grad.norm())

    assert clip(Clipper(1.0, None), 5.0) == pytest.approx(1.0)
    assert clip(Clipper(1.0, None), 0.5) == pytest.approx(0.5)
    relative = Clipper(None, 2.0)
    assert [clip(relative, 1.0) for _ in range(3)] == pytest.approx([1.0] * 3)
    assert clip(relative, 100.0) == pytest.approx(2.0)
    assert clip(relative, 1.5) == pytest.approx(1.5)
    p.grad = torch.full((4,), float("nan"))
    assert np.isnan(relative.apply([p])) and np.isfinite(relative.mean_norm)


def test_average_of_the_weights():
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    average, expected = WeightAverage([p], 0.9), 0.0
    for step in range(200):
        with torch.no_grad():
            p.fill_(float(step))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.applied():
        assert float(p.detach()) == pytest.approx(expected, rel=1e-12)
    assert float(p.detach()) == 199.0
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert float(p.detach()) == 199.0


def test_a_long_batch_is_shortened_to_the_geometric_mean_and_short_ones_are_left():
    p, unused = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))
    clipper = BatchClipper(2.0)
    logs = [clipper.backward((p * torch.tensor(g)).sum(), [p, unused]) for g in ([3.0, 4.0], [0.6, 0.8])]
    assert p.grad is not None
    np.testing.assert_allclose(p.grad, [3.6, 4.8], rtol=1e-6)  # nothing is known yet: the plain sum
    np.testing.assert_allclose(logs, [np.log(5.0), 0.0], atol=1e-6)
    clipper.update(float(np.mean(logs)))  # lengths 5 and 1: geometric mean sqrt(5)
    p.grad = None
    clipper.backward((p * torch.tensor([30.0, 40.0])).sum(), [p, unused])
    np.testing.assert_allclose(p.grad.norm(), 2.0 * 5.0**0.5, rtol=1e-6)
    clipper.backward((p * torch.tensor([0.0, 1.0])).sum(), [p, unused])
    np.testing.assert_allclose(p.grad, np.array([0.6, 0.8]) * 2.0 * 5.0**0.5 + [0.0, 1.0], rtol=1e-6)
    assert unused.grad is None


def test_a_batch_without_a_gradient_does_not_move_the_geometric_mean():
    p = nn.Parameter(torch.zeros(2))
    clipper = BatchClipper(2.0)
    clipper.update(float(np.log(1000.0)))
    assert clipper.backward((p * 0.0).sum(), [p]) is None
    assert clipper.backward((p * torch.tensor([np.inf, 1.0])).sum(), [p]) is None
    clipper.update(None)
    assert clipper.mean_log == pytest.approx(np.log(1000.0))


def test_a_run_counts_only_batches_with_a_gradient(tiny_model, lj_data, tmp_path):
    """One set has forces, the other has energies alone, which the loss leaves out."""
    bare = Dataset(tuple(dataclasses.replace(f, forces=None, virial=None) for f in lj_data(4)), "B")
    config = TrainConfig(
        steps=6,
        batches_per_step=4,
        gradient_clip_batch=5.0,
        energy_prefactor_start=0.0,
        energy_prefactor_limit=0.0,
        checkpoint_every=6,
    )
    means = {}
    for name, sets in (("one", {"A": lj_data(4)}), ("two", {"A": lj_data(4), "B": bare})):
        pretrain(tiny_model(("A", "B")), sets, config, output=tmp_path / name, progress=False)
        means[name] = read_tensors(tmp_path / name / "state.safetensors")[1]["batch_mean_log"]
    assert means["two"] == pytest.approx(means["one"], abs=0.7)  # as log 1 it would be half of it
    assert abs(means["one"]) > 1.8
