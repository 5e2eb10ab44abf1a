"""Train the water model that ships inside the package: DPA-2 on PBE0+TS liquid water, one head.

    python examples/train_water.py DATA_FOLDER --output runs/water

DATA_FOLDER holds train.extxyz.xz and test.extxyz.xz of H2O-PBE0TS (docs/data.md). Ten minutes on one
core. Stop it at any time and run the same command again: it resumes. At the end
`water.safetensors` in the output folder holds the averaged weights, with the errors on the test frames
in the head's `info`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from dpa2calc.model.config import DPA2Config, HeadConfig, ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.store.checkpoint import save_checkpoint
from dpa2calc.training.config.train import TrainConfig
from dpa2calc.training.data.dataset import Dataset
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.fit.run import train

HEAD = HeadConfig(
    name="H2O-PBE0TS",
    aliases=("water",),
    description="liquid water, 64 molecules, snapshots of molecular dynamics; stop-gap model",
    functional="PBE0+TS",
    elements=("H", "O"),
    info={
        "source": "deepmodeling/deepmd-kit examples/water/data (Zhang et al., PRL 120, 143001 (2018))",
        "data_licence": "LGPL-3.0",
    },
)


def model_config() -> ModelConfig:
    """The `small` preset, reduced so that it trains in ten minutes on one core: 0.18 M parameters."""
    config = preset("small", ("H", "O"))
    descriptor = config.descriptor
    assert isinstance(descriptor, DPA2Config)
    descriptor = dataclasses.replace(
        descriptor,
        three_body=None,
        repinit=dataclasses.replace(descriptor.repinit, neuron=(16, 32, 64), axis_neuron=8),
        repformer=dataclasses.replace(descriptor.repformer, g1_dim=64, g2_dim=16),
    )
    return dataclasses.replace(config, descriptor=descriptor, heads=(HEAD,))


def train_config(steps: int, seed: int) -> TrainConfig:
    """Forces weigh far more than energies at the start, as in the paper, and the weights are averaged."""
    return TrainConfig(
        steps=steps,
        batch_atoms=192,
        schedule="cosine",
        learning_rate=3e-2,
        learning_rate_stop=1e-4,
        warmup_steps=min(50, steps // 10),
        gradient_clip_relative=3.0,
        ema_decay=0.998,
        energy_prefactor_start=0.02,
        energy_prefactor_limit=2.0,
        force_prefactor_start=1000.0,
        force_prefactor_limit=20.0,
        validate_every=500,
        checkpoint_every=250,
        seed=seed,
    )


def main() -> None:
    """Train, evaluate on the test frames, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/water"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    everything = Dataset.read(args.data / "train.extxyz.xz", name=HEAD.name)
    frames, validation = everything.split(0.95, seed=args.seed)
    options = train_config(args.steps, args.seed)
    result = train(model_config(), frames, options, output=args.output, validation=validation)
    result.history.plot()[0].figure.savefig(args.output / "learning_curve.png", dpi=120)

    test = evaluate(result.potential, Dataset.read(args.data / "test.extxyz.xz", name="test")).errors
    print(f"test: {test}")
    training = {"steps": result.steps, "frames": len(frames), "seed": args.seed}
    info = {**HEAD.info, "test_errors": test.to_dict(), "training": training}
    potential = result.potential
    potential.config = potential.config.with_heads((dataclasses.replace(HEAD, info=info),))
    print("written:", save_checkpoint(potential, args.output / "water.safetensors"))


if __name__ == "__main__":
    main()
