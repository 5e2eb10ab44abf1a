"""Active learning of EMT copper by a model of some hundred parameters."""

import emt_cases  # noqa: F401  processes of their own need its EMT too
import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution

from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.training import Dataset, FinetuneConfig, LearnResult, active_learning
from dpa2calc.training.data.readers.frame_file import labelled
from dpa2calc.training.fit.setup import new_potential

TRAIN = FinetuneConfig(
    steps=80,
    batch_atoms=32,
    learning_rate=1e-2,
    learning_rate_stop=5e-4,
    ema_decay=0.95,
    log_every=50,
    start_head="fresh",
)
MD = {"temperature": (300, 900), "timestep": 4, "steps": 60, "sample_interval": 10, "trajectories": 1}


class Counted(EMT):
    """EMT that remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        self.asked.append(np.round(atoms.positions, 6).tobytes())


def tiny(head: str = "", **sizes: object) -> ModelConfig:
    """A DPA-1 of copper, with some of its sizes changed."""
    usual = dict(cutoff=4.5, cutoff_smooth=2.0, nsel=40, neuron=(4, 8), axis_neuron=4, tebd_dim=2)
    named = {"name": head} if head else {}
    return ModelConfig(
        type_map=("Cu",),
        descriptor=DPA1Config(attn_layer=0, **{**usual, **sizes}),
        heads=(HeadConfig(fitting=FittingConfig(neuron=(16, 16)), **named),),
    )


def make_model():
    """Of random weights."""
    return new_potential(tiny("base"), seed=1)


def copper():
    return bulk("Cu", cubic=True, a=3.61)


def dynamics_of(atoms, n_frames: int, **langevin: object) -> Dataset:
    """Labelled frames of EMT dynamics at 700 K that no run sees."""
    atoms.calc, rng = EMT(), np.random.default_rng(99)
    MaxwellBoltzmannDistribution(atoms, temperature_K=700, rng=rng)
    dynamics = Langevin(atoms, 4 * units.fs, temperature_K=700, friction=0.01, rng=rng, **langevin)
    frames = []
    for _ in range(n_frames):
        dynamics.run(10)
        frames.append(labelled(atoms, EMT()))
    return Dataset.from_atoms(frames, name="held out")


def learn(folder, label=None, **changes) -> LearnResult:
    options = {
        "start": copper(),
        "md": MD,
        "train": TRAIN,
        "perturbed": 3,
        "displacement": 0.1,
        "budget": 14,
        "frames_per_round": 4,
        "max_rounds": 3,
        "threshold": 0.2,
        "progress": False,
        **changes,
    }
    return active_learning(make_model(), label=label or Counted(), output=folder, **options)


SMALL = {
    "train": TRAIN.replace(steps=8, checkpoint_every=3, learning_rate=1e-3),
    "budget": 8,
    "frames_per_round": 2,
    "max_rounds": 2,
}


def learn_small(folder) -> LearnResult:
    """Two rounds, hardly trained."""
    return learn(folder, **SMALL)
