"""Heads that begin as one, and fresh heads that start at the right energy."""

import dataclasses

import pytest
import torch

from dpa2calc.errors import ConfigError
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.sets import TrainingData, TrainingSet
from dpa2calc.training.energy_bias import absorb_initial_energies, fit_energy_biases
from dpa2calc.training.fit.loader import GraphStore
from dpa2calc.training.fit.predict import potential_errors
from dpa2calc.training.fit.run import pretrain
from dpa2calc.training.fit.setup import measure_environment, new_potential, tie_heads, untie_heads

FAST = TrainConfig(steps=6, shared_steps=8, batch_atoms=8, log_every=2, checkpoint_every=2, warmup_steps=0)


def _fresh(tiny_model, sets):
    config = tiny_model(("A", "B"))
    potential = new_potential(config, seed=3, dtype="float64")
    data = TrainingData.of(sets, config)
    measure_environment(potential, data)
    fit_energy_biases(potential, data)
    return potential, data


@pytest.fixture
def sets(lj_data):
    return {
        "A": TrainingSet(lj_data(6)),
        "B": TrainingSet(lj_data(6, seed=4, shift=-7.0, repeat=2), head="B"),
    }


def test_tied_heads_give_the_same_forces_and_train_each_other(tiny_model, sets):
    potential, _ = _fresh(tiny_model, sets)
    graph = GraphStore(sets["A"].train, potential.config).graph(0)
    before = [potential.compute(graph, head).forces for head in (0, 1)]
    assert not torch.allclose(*before)
    tie_heads(potential)
    a, b = (potential.compute(graph, head) for head in (0, 1))
    assert torch.equal(a.forces, b.forces)
    # Their energies still differ, by the biases of the two sets: 7 eV an atom.
    assert float((a.energy - b.energy).detach() / graph.n_atoms) == pytest.approx(7.0, abs=0.05)
    n_tied = sum(p.numel() for p in potential.parameters())
    untie_heads(potential)
    assert sum(p.numel() for p in potential.parameters()) > n_tied
    next(potential.heads[1].parameters()).data.mul_(2.0)
    assert torch.equal(potential.compute(graph, 0).forces, a.forces)
    assert not torch.allclose(potential.compute(graph, 1).forces, a.forces)


def test_heads_part_after_the_shared_steps_and_a_stopped_run_goes_on_to_the_bit(tiny_model, sets, tmp_path):
    model = tiny_model(("A", "B"))
    whole = pretrain(model, sets, FAST, output=tmp_path / "whole", progress=False)
    shared = load_checkpoint(tmp_path / "whole" / "shared" / "last.safetensors").state_dict()
    name = "heads.{}.nets.0.layers.0.matrix"
    assert torch.equal(shared[name.format(0)], shared[name.format(1)])
    final = whole.potential.state_dict()
    assert not torch.equal(final[name.format(0)], final[name.format(1)])
    # A time limit of almost nothing stops after each step, in either phase.
    for _ in range(20):
        result = pretrain(model, sets, FAST.replace(time_limit=1e-9), output=tmp_path / "cut", progress=False)
    assert result.finished
    assert all(torch.equal(v, final[n]) for n, v in result.potential.state_dict().items())


def test_unequal_fitting_nets_cannot_be_shared(tiny_model):
    config = tiny_model(("A", "B"))
    other = dataclasses.replace(config.heads[1].fitting, neuron=(5, 5))
    config = config.with_heads((config.heads[0], dataclasses.replace(config.heads[1], fitting=other)))
    with pytest.raises(ConfigError, match="'B' differs from 'A'; set shared_steps = 0"):
        tie_heads(new_potential(config, seed=1))


def test_a_fresh_network_does_not_shift_the_energies(tiny_model, sets):
    potential, data = _fresh(tiny_model, sets)
    for head in potential.heads:
        head.nets[0].layers[-1].bias.data.fill_(1.5)  # eV an atom, as a random network may give

    def errors(name):
        store = GraphStore(data.sets[name].train, potential.config)
        return potential_errors(potential, store, head=data.heads[name]).energy_rmse

    before = [errors(n) for n in data.sets]
    absorb_initial_energies(potential, data)
    after = [errors(n) for n in data.sets]
    assert min(before) > 1000 and max(after) < 100
