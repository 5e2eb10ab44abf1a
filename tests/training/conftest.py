"""Tiny models and data with exact labels: Lennard-Jones-like energies from ASE's calculator."""

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator

from dpa2calc.model.config import (
    DPA2Config,
    FittingConfig,
    HeadConfig,
    ModelConfig,
    RepformerConfig,
    RepinitConfig,
)
from dpa2calc.store.checkpoint import load_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.fit.run import train

torch.set_num_threads(1)


def _tiny_model(heads: tuple[str, ...] = ("A",), type_map: tuple[str, ...] = ("Ar", "Ne")) -> ModelConfig:
    descriptor = DPA2Config(
        repinit=RepinitConfig(cutoff=4.5, nsel=30, neuron=(4, 8), axis_neuron=2, tebd_dim=3),
        repformer=RepformerConfig(
            cutoff=4.0,
            nsel=20,
            nlayers=2,
            g1_dim=8,
            g2_dim=4,
            axis_neuron=2,
            update_g1_has_attn=False,
            update_g2_has_attn=False,
            update_g2_has_g1g1=False,
        ),
    )
    fitting = FittingConfig(neuron=(8, 8))
    return ModelConfig(
        type_map=type_map,
        descriptor=descriptor,
        heads=tuple(HeadConfig(name=name, fitting=fitting) for name in heads),
    )


def _label(atoms: Atoms, shift: float) -> Atoms:
    atoms = atoms.copy()
    atoms.calc = LennardJones(sigma=2.6, epsilon=0.05, rc=4.5, smooth=True)
    energy = atoms.get_potential_energy() + shift * len(atoms)
    results = {"energy": energy, "forces": atoms.get_forces()}
    if atoms.pbc.all():
        results["stress"] = atoms.get_stress()
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _frames(n: int, *, seed: int = 0, symbol: str = "Ar", shift: float = 0.0, repeat: int = 1) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(n):
        atoms = bulk(symbol, "fcc", a=4.4, cubic=True) * (repeat, 1, 1)
        atoms.set_cell(atoms.cell.array * (1 + 0.03 * rng.standard_normal()), scale_atoms=True)
        atoms.positions += rng.normal(0.0, 0.12, atoms.positions.shape)
        atoms.info["group"] = f"g{number % 3}"
        frames.append(_label(atoms, shift))
    return frames


@pytest.fixture
def tiny_model():
    """Function: head names (and type map) -> a model configuration of some hundred parameters."""
    return _tiny_model


@pytest.fixture
def lj_frames():
    """Function: number of frames -> labelled argon crystals of 4 * repeat atoms."""
    return _frames


@pytest.fixture
def lj_data(lj_frames):
    """Function: the same as a Dataset."""

    def make(n: int, *, name: str = "A", **options: object) -> Dataset:
        return dataclasses.replace(Dataset.from_atoms(lj_frames(n, **options)), name=name)

    return make


SHORT_RUN = TrainConfig(
    steps=4,
    batch_atoms=8,
    learning_rate=5e-3,
    learning_rate_stop=1e-4,
    ema_decay=0.9,
    checkpoint_every=2,
    validate_every=2,
    log_every=1,
    final_bias_frames=4,
)


@pytest.fixture
def short():
    """Options of a run of four steps that does all that a run can do."""
    return SHORT_RUN


@pytest.fixture
def same_weights():
    """Function: whether two checkpoints hold the same weights, to the last bit."""

    def same(a, b) -> bool:
        one, two = load_checkpoint(a).state_dict(), load_checkpoint(b).state_dict()
        return all(torch.equal(one[name], two[name]) for name in one)

    return same


@pytest.fixture
def run(tiny_model, lj_data, tmp_path):
    """Function: train to 4 steps in a folder, with anything changed."""

    def go(folder="run", *, model=None, data=None, validation=None, **options):
        return train(
            model or tiny_model(),
            data or lj_data(5),
            SHORT_RUN.replace(**options),
            output=tmp_path / folder,
            validation=validation or lj_data(2, seed=7),
            progress=False,
        )

    return go
