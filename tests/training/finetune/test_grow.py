"""A model made larger: the same predictions at first, and new parts that learn."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from dpa2calc.errors import ConfigError
from dpa2calc.model.config.presets import preset
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.training.config.run_file import load_sets, read_run_file
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.data.sets import TrainingSet
from dpa2calc.training.energy_bias import shift_energy_bias
from dpa2calc.training.finetune import grow
from dpa2calc.training.finetune.grow import grown, grown_model
from dpa2calc.training.fit.predict import predict_potential
from dpa2calc.training.fit.run import pretrain
from dpa2calc.training.fit.setup import new_potential


def changed(descriptor, **repformer):
    return dataclasses.replace(descriptor, repformer=dataclasses.replace(descriptor.repformer, **repformer))


@pytest.fixture
def bare(lj_data):
    """A model of two layers without pair attention, with one head."""
    config = preset("small", lj_data(1).elements)
    descriptor = changed(
        dataclasses.replace(config.descriptor, three_body=None),
        nlayers=2, g1_dim=8, g2_dim=4, attn2_hidden=4, attn2_nhead=2, update_g2_has_attn=False,
        update_g1_has_attn=False, update_g2_has_g1g1=False, update_style="res_residual",
    )  # fmt: skip
    head = dataclasses.replace(config.heads[0], name="A")
    return new_potential(dataclasses.replace(config, descriptor=descriptor).with_heads((head,)), seed=3)


def predictions(potential, data, head=0):
    made = predict_potential(potential, data, head=head)
    return np.array([p.energy for p in made]), np.concatenate([p.forces for p in made])


def test_a_larger_model_predicts_the_same_and_learns_with_its_new_parts(bare, lj_data, tmp_path):
    data = lj_data(12)
    sets = {"A": TrainingSet(data), "B": TrainingSet(data)}
    model = grown(bare, sets, descriptor=changed(bare.config.descriptor, update_g2_has_attn=True))
    assert [head.name for head in model.config.heads] == ["A", "B"]
    for old, new in zip(predictions(bare, data), predictions(model, data)):
        assert new == pytest.approx(old, abs=1e-5)
    # A new head begins as the old one, at the level of its labels.
    assert predictions(model, data, head=1)[1] == pytest.approx(predictions(bare, data)[1], abs=1e-5)
    labels = np.array([frame.energy for frame in data])
    assert abs(np.mean(predictions(model, data, head=1)[0] - labels)) < 0.2 * np.abs(labels).mean()
    config = TrainConfig(steps=3, batch_atoms=8, warmup_steps=0, learning_rate=1e-2)
    result = pretrain(model, sets, config, output=tmp_path / "run", progress=False)
    factors = {n: p for n, p in result.potential.state_dict().items() if n.endswith("g2_residual.1")}
    assert factors and all(bool(torch.any(p != 0)) for p in factors.values())


def test_another_set_of_a_head_tells_its_elements_apart(bare, lj_frames):
    """One composition leaves the energies of two elements open; the second set of the head decides."""
    levels = {"Ar": -10.0, "Ne": -70.0}

    def of(n_neon):
        frames = lj_frames(8)
        for atoms in frames:
            labels = {"forces": atoms.get_forces()}
            atoms.symbols[:n_neon], atoms.symbols[n_neon:] = "Ne", "Ar"
            labels["energy"] = sum(levels[symbol] for symbol in atoms.symbols)
            atoms.calc = SinglePointCalculator(atoms, **labels)
        return Dataset.from_atoms(frames)

    one, two = of(2), of(1)
    old = new_potential(dataclasses.replace(bare.config, type_map=("Ar", "Ne")), seed=3)
    shift_energy_bias(old, one, head=0)
    sets = {"A": TrainingSet(one), "other": TrainingSet(two, head="A")}
    model = grown(old, sets)
    labels = np.array([frame.energy for frame in two])
    assert np.abs(predictions(old, two)[0] - labels).min() > 5.0
    assert predictions(model, two)[0] == pytest.approx(labels, abs=0.5)
    assert predictions(model, one)[1] == pytest.approx(predictions(old, one)[1], abs=1e-6)


def run_from(bare, frames, folder, *lines):
    """A run that starts from a file of the model, and the sets that its own file names."""
    save_checkpoint(bare, folder / "old.safetensors")
    write(folder / "new.xyz", frames)
    text = [f"output = '{folder}/run'", "steps = 2", "[model]", "start = 'old.safetensors'", *lines]
    (folder / "run.toml").write_text("\n".join([*text, "[sets.new]", "train = ['new.xyz']"]))
    run = read_run_file(folder / "run.toml", TrainConfig)
    return run, load_sets(run)[0]


def test_a_file_grows_a_model(bare, lj_frames, tmp_path):
    options = ("fitting = { neuron = [6, 6] }", "[model.descriptor.repformer]", "update_g2_has_attn = true")
    run, sets = run_from(bare, lj_frames(30), tmp_path, *options)
    model = grown_model(run.model, run, sets)
    assert [head.fitting.neuron[0] for head in model.config.heads][1:] == [6]
    assert model.config.descriptor.repformer.update_g2_has_attn


def test_a_run_that_resumes_ranks_no_heads(bare, lj_frames, tmp_path, monkeypatch):
    run, sets = run_from(bare, lj_frames(6), tmp_path)
    first = grown_model(run.model, run, sets)
    pretrain(first, sets, run.config, output=run.output, progress=False)
    monkeypatch.setattr(grow, "rank_heads", None)
    again = grown_model(run.model, run, sets)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in first.state_dict().items())
    assert pretrain(again, sets, run.config, output=run.output, progress=False).steps == 2
    # Without a state what lies there may be of other data.
    (run.output / "state.safetensors").unlink()
    with pytest.raises(TypeError):
        grown_model(run.model, run, sets)


@pytest.mark.parametrize("change", [{"g1_dim": 16}, {"nlayers": 1}, {"g1_out_mlp": False}])
def test_a_change_of_shape_is_refused(bare, change):
    with pytest.raises(ConfigError, match=r"the model cannot grow this way: .*another shape or no place"):
        grown(bare, {}, descriptor=changed(bare.config.descriptor, **change))


def test_further_layers_change_nothing_at_first(bare, lj_data):
    model = grown(bare, {}, descriptor=changed(bare.config.descriptor, nlayers=4))
    assert predictions(model, lj_data(2))[1] == pytest.approx(predictions(bare, lj_data(2))[1], abs=1e-5)


def test_a_change_of_predictions_is_refused(bare):
    """The product comes before the attention, whose factor it would take."""
    model = grown(bare, {}, descriptor=changed(bare.config.descriptor, update_g2_has_attn=True))
    for name, value in model.state_dict().items():
        if name.endswith("g2_residual.1"):
            value.fill_(1.0)
    with pytest.raises(ConfigError, match="its predictions would change"):
        grown(model, {}, descriptor=changed(model.config.descriptor, update_g2_has_g1g1=True))
