"""A descriptor of another package (tests/radial_descriptor.py) is asked, never named, by all that is around.

That it obeys the physics, its line among the architectures sees to.
"""

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from radial_descriptor import RadialConfig

from dpa2calc.calculator import DPA2Calculator
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.description import describe, model_facts
from dpa2calc.errors import CheckpointError, ConfigError
from dpa2calc.model.compression import compress
from dpa2calc.model.config import FittingConfig, HeadConfig, ModelConfig, from_dict, to_dict
from dpa2calc.model.descriptors import build_descriptor
from dpa2calc.store.checkpoint import load_checkpoint, save_checkpoint
from dpa2calc.training.config.train import FinetuneConfig, TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.finetune.finetune import finetune, trainable_weights
from dpa2calc.training.fit.run import train

OPTIONS = TrainConfig(steps=100, batch_atoms=8, learning_rate=3e-2, validate_every=100, ema_decay=0.5)
MODEL = ModelConfig(
    type_map=("Ar",),
    descriptor=RadialConfig(cutoff=4.5),
    heads=(HeadConfig(name="LJ", fitting=FittingConfig(neuron=(12, 12))),),
)


def argon(seed: int) -> Atoms:
    atoms = bulk("Ar", "fcc", a=4.2, cubic=True)
    atoms.rattle(0.2, rng=np.random.default_rng(seed))
    atoms.calc = LennardJones(sigma=2.6, epsilon=0.05, rc=4.5, smooth=True)
    results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    frames = Dataset.from_atoms([argon(seed) for seed in range(10)], name="LJ")
    validation = Dataset.from_atoms([argon(seed) for seed in range(20, 24)])
    folder = tmp_path_factory.mktemp("run")
    return train(MODEL, frames, OPTIONS, output=folder, validation=validation, progress=False)


def test_it_trains(run):
    _, forces = run.history.series("LJ", "force_rmse")
    assert forces[-1] < 0.5 * forces[0]


def test_it_is_saved_and_loaded(run, tmp_path):
    again = load_checkpoint(save_checkpoint(run.potential, tmp_path / "radial.safetensors"))
    assert again.config == run.potential.config and isinstance(again.config.descriptor, RadialConfig)
    ours, theirs = (DPA2Calculator(p).evaluate([argon(30)])[0] for p in (run.potential, again))
    np.testing.assert_array_equal(ours["forces"], theirs["forces"])
    mine = DPA2Calculator(again).get_descriptors(argon(30))
    assert mine.shape == (4, 8)


def test_it_looks_as_far_as_it_says():
    spec = MODEL.graph_spec
    assert spec.blocks == ((4.5, 100),) and spec.shells == (4.5,) and not spec.nearest
    assert MODEL.cutoff == 4.5 and MODEL.n_arrays == 1 + 3


def test_it_is_described(run):
    facts = model_facts(run.potential)
    assert facts["kind"] == "radial symmetry functions" and facts["descriptor_width"] == 8
    assert facts["blocks"] == [{"name": "descriptor", "cutoff": 4.5, "nsel": 100}]
    assert "LJ: radial symmetry functions, 297 parameters" in describe(run.potential, "LJ")


def test_what_it_cannot_do_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="radial symmetry functions has no embedding net that can be tab"):
        compress(run.potential)
    with pytest.raises(ConfigError, match="radial symmetry functions has no embedding net"):
        DPA2Calculator(run.potential, compress=True)
    with pytest.raises(CheckpointError, match=r"deepmd-kit has no descriptor 'radial'; it has dpa2, dpa1"):
        write_deepmd(run.potential, tmp_path / "radial.pt")
    with pytest.raises(ConfigError, match=r"freeze_layers = 1 is not allowed; the descriptor has 0"):
        trainable_weights(run.potential, FinetuneConfig(freeze_layers=1))
    with pytest.raises(ConfigError, match="lora_rank = 2: no linear map of the descriptor"):
        trainable_weights(run.potential, FinetuneConfig(lora_rank=2))


def test_fine_tuning_takes_it_as_it_is(run, tmp_path):
    data = Dataset.from_atoms([argon(seed) for seed in range(40, 44)], name="new")
    options = FinetuneConfig(steps=2, batch_atoms=8, freeze_descriptor=True)
    tuned = finetune(run.potential, data, options, output=tmp_path, progress=False)
    torch.testing.assert_close(tuned.potential.descriptor.eta, run.potential.descriptor.eta, rtol=0, atol=0)


def test_a_kind_that_nobody_registered_is_named():
    values = to_dict(MODEL)
    values["descriptor"]["kind"] = "angular"
    with pytest.raises(
        ConfigError, match=r"descriptor.kind = 'angular' is not .* dpa2, .*radial, or what an"
    ):
        from_dict(ModelConfig, values)
    with pytest.raises(ConfigError, match=r"unknown option descriptor.n_radal = 3; did you mean .*n_radial"):
        from_dict(ModelConfig, {**values, "descriptor": {"kind": "radial", "n_radal": 3}})
    with pytest.raises(ConfigError, match=r"radial.n_radial = 0 is not allowed; allowed: 1 or more"):
        dataclasses.replace(MODEL.descriptor, n_radial=0)


def test_every_descriptor_of_the_package_is_in_the_registry():
    from dpa2calc.model.config.presets import preset, preset_names

    kinds = {preset(name, ("O", "H")).descriptor.kind for name in preset_names()}
    assert kinds == {"dpa2", "dpa1", "deeppot_se"}
    for name in ("small", "dpa1-l0", "deeppot-se"):
        config = preset(name, ("O", "H")).descriptor
        assert build_descriptor(config, ("O", "H")).config is config
