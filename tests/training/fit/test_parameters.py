"""Frame and atomic parameters (fparam, aparam): read, scaled, learned from, and needed in every call."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from dpa2calc import DPA2Calculator
from dpa2calc.errors import DataError
from dpa2calc.model.config import FittingConfig
from dpa2calc.training import (
    Dataset,
    FinetuneConfig,
    TrainConfig,
    TrainingSet,
    check_dataset,
    evaluate,
    finetune,
    pretrain,
    train,
)
from dpa2calc.training.data.sets import TrainingData
from dpa2calc.training.evaluate import predict_calculator
from dpa2calc.training.fit.predict import predict_potential
from dpa2calc.training.fit.setup import new_potential, set_parameter_statistics

CONFIG = TrainConfig(steps=3, batch_atoms=8, validation_frames=4, dtype="float64", shared_steps=0)


def with_parameters(frames, n_fparam=2, n_aparam=1, seed=0):
    """Frames whose energies and forces depend on what is written beside them."""
    rng, out = np.random.default_rng(seed), []
    for atoms in frames:
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms = atoms.copy()
        if n_fparam:
            atoms.info["fparam"] = 5.0 + rng.normal(size=n_fparam)
        if n_aparam:
            atoms.arrays["aparam"] = rng.normal(size=(len(atoms), n_aparam))
        scale = 1 + 0.1 * float(atoms.info.get("fparam", [0])[0])
        atoms.calc = SinglePointCalculator(atoms, energy=energy * scale, forces=forces * scale)
        out.append(atoms)
    return out


def with_head(config, **fitting):
    heads = (dataclasses.replace(h, fitting=FittingConfig(neuron=(8, 8), **fitting)) for h in config.heads)
    return dataclasses.replace(config, heads=tuple(heads))


@pytest.mark.parametrize(("n_fparam", "n_aparam"), [(1, 0), (0, 2), (2, 1)])
def test_a_head_with_parameters_trains_and_the_calculator_agrees(
    tmp_path, lj_frames, tiny_model, n_fparam, n_aparam
):
    structures = with_parameters(lj_frames(8), n_fparam, n_aparam)
    write(tmp_path / "a.extxyz", structures)
    data = Dataset.read(tmp_path / "a.extxyz", name="A")
    if n_fparam:
        np.testing.assert_allclose(data[3].fparam, structures[3].info["fparam"], rtol=1e-12)
    if n_aparam:
        np.testing.assert_allclose(data[3].aparam, structures[3].arrays["aparam"], atol=1e-7)
    model = with_head(tiny_model(), numb_fparam=n_fparam, numb_aparam=n_aparam)
    run = train(model, data, CONFIG, output=tmp_path / "run", validation=data, progress=False)
    head = run.potential.heads[0]
    if n_fparam:
        values = np.array([f.fparam for f in data])
        np.testing.assert_allclose(head.fparam_avg, values.mean(axis=0))
        np.testing.assert_allclose(head.fparam_inv_std, 1 / values.std(axis=0))
    if n_aparam:
        values = np.concatenate([f.aparam for f in data])
        np.testing.assert_allclose(head.aparam_avg, values.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(head.aparam_inv_std, 1 / values.std(axis=0))
    batched = predict_potential(run.potential, data, batch_atoms=16)
    calculator = DPA2Calculator(run.potential, dtype="float64")
    for ours, theirs in zip(batched, predict_calculator(calculator, data)):
        assert ours.energy == pytest.approx(theirs.energy, abs=1e-10)
        np.testing.assert_allclose(ours.forces, theirs.forces, atol=1e-10)
    assert evaluate(run.potential, data).errors.n_frames == 8


def test_predictions_depend_on_the_parameters_and_forces_are_their_gradients(lj_frames, tiny_model):
    data = Dataset.from_atoms(with_parameters(lj_frames(2)), name="A")
    potential = new_potential(with_head(tiny_model(), numb_fparam=2, numb_aparam=1), seed=1, dtype="float64")
    set_parameter_statistics(potential, 0, data.frames)

    def energy(**changes):
        (p,) = predict_potential(
            potential, data.subset([0]).__class__((dataclasses.replace(data[0], **changes),))
        )
        return p

    base = energy()
    assert abs(energy(fparam=data[0].fparam + 1).energy - base.energy) > 1e-6
    assert abs(energy(aparam=data[0].aparam + 1).energy - base.energy) > 1e-6
    step = 1e-4
    shift = np.zeros_like(data[0].positions)
    shift[1, 2] = step
    up, down = (energy(positions=data[0].positions + s * shift).energy for s in (1, -1))
    assert -(up - down) / (2 * step) == pytest.approx(base.forces[1, 2], abs=1e-6)


def test_a_small_deviation_is_bounded_as_in_deepmd_kit(lj_frames, tiny_model):
    structures = with_parameters(lj_frames(3), 1, 0)
    for atoms in structures:
        atoms.info["fparam"] = 0.25
    potential = new_potential(with_head(tiny_model(), numb_fparam=1), seed=1)
    set_parameter_statistics(potential, 0, Dataset.from_atoms(structures).frames)
    assert potential.heads[0].fparam_avg.item() == 0.25
    assert potential.heads[0].fparam_inv_std.item() == pytest.approx(100.0)


@pytest.mark.parametrize("where", ["train", "validation"])
@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda a: a.info.pop("fparam"), r"2 numbers per frame \(fparam\), found none"),
        (lambda a: a.info.update(fparam=[1.0]), r"2 numbers per frame \(fparam\), found 1"),
        (lambda a: a.arrays.pop("aparam"), r"1 numbers per atom \(aparam\), found none"),
    ],
)
def test_missing_parameters_are_named_before_the_first_step(
    tmp_path, lj_frames, tiny_model, where, spoil, found
):
    good = Dataset.from_atoms(with_parameters(lj_frames(4)), name="A")
    structures = with_parameters(lj_frames(4))
    spoil(structures[2])
    bad = Dataset.from_atoms(structures, name="mine")
    model = with_head(tiny_model(), numb_fparam=2, numb_aparam=1)
    sets = {"train": (bad, good), "validation": (good, bad)}[where]
    with pytest.raises(DataError, match=f"mine, frame 2: the head needs {found}"):
        pretrain(model, {"A": TrainingSet(*sets)}, CONFIG, output=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="mine, frame 2"):
        evaluate(new_potential(model, seed=0), bad)


def test_a_default_stands_in_for_missing_frame_parameters(lj_frames, tiny_model):
    structures = with_parameters(lj_frames(2), 1, 0)
    structures[0].info["fparam"] = 0.7
    del structures[1].info["fparam"]
    model = with_head(tiny_model(), numb_fparam=1, default_fparam=(0.7,))
    potential = new_potential(model, seed=0, dtype="float64")
    data = Dataset.from_atoms(structures, name="A")
    TrainingData.of({"A": data}, model)
    both = predict_potential(potential, data)
    structures[1].info["fparam"] = 0.7
    for ours, wanted in zip(both, predict_potential(potential, Dataset.from_atoms(structures))):
        assert ours.energy == pytest.approx(wanted.energy, abs=1e-12)


def test_parameters_that_no_head_takes_are_said(tmp_path, lj_frames, tiny_model, caplog):
    data = Dataset.from_atoms(with_parameters(lj_frames(4)), name="A")
    with caplog.at_level("WARNING"):
        train(tiny_model(), data, CONFIG, output=tmp_path, progress=False)
    assert [r for r in caplog.messages if "frames have fparam, which head 'A' does not take" in r]
    assert [r for r in caplog.messages if "frames have aparam" in r]
    assert "parameters: fparam on 4, aparam on 4" in check_dataset(data).summary()


@pytest.mark.parametrize("start", ["best", "fresh"])
def test_finetuning_heads_with_parameters(tmp_path, lj_frames, tiny_model, start):
    config = with_head(tiny_model(), numb_fparam=1)
    potential = new_potential(config, seed=0, dtype="float64")
    data = Dataset.from_atoms(with_parameters(lj_frames(5), 1, 0), name="new")
    options = FinetuneConfig(steps=2, batch_atoms=8, dtype="float64", start_head=start)
    run = finetune(potential, data, options, output=tmp_path / "a", progress=False)
    average = run.potential.heads[0].fparam_avg
    wanted = np.mean([f.fparam for f in data]) if start == "fresh" else 0.0
    assert torch.allclose(average, torch.tensor([wanted]).to(average))
    bare = Dataset.from_atoms(lj_frames(3), name="bare")
    with pytest.raises(DataError, match=r"bare, frame 0: the head needs 1 numbers per frame \(fparam\)"):
        finetune(potential, bare, options, output=tmp_path / "b", progress=False)
