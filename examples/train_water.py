"""Train the water model that ships inside the package: DPA-2 on PBE0+TS liquid water, one head.

    python examples/train_water.py DATA_FOLDER --output runs/water

DATA_FOLDER holds train.extxyz.xz and test.extxyz.xz (the 400 frames of deepmd-kit's water example,
LGPL-3.0). Stop it at any time and run the same command again: it goes on where it stopped. At the end
`water.safetensors` in the output folder holds the averaged weights, with the errors on the test frames
in the head's `info`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from dpa2calc.model.config import DPA2Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.presets import preset
from dpa2calc.training.config import TrainConfig
from dpa2calc.training.dataset import Dataset
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.run import train
from dpa2calc.training.weights import save_potential

HEAD = "H2O-PBE0TS"


def model_config(size: str, layers: int, three_body: bool) -> ModelConfig:
    """The `small` preset, or a reduced one that trains in an hour on one core."""
    config = preset("small", ("H", "O"))
    descriptor = config.descriptor
    assert isinstance(descriptor, DPA2Config)
    if not three_body:
        descriptor = dataclasses.replace(descriptor, three_body=None)
    repformer = dataclasses.replace(descriptor.repformer, nlayers=layers)
    if size == "reduced":
        repinit = dataclasses.replace(descriptor.repinit, neuron=(16, 32, 64), axis_neuron=8)
        repformer = dataclasses.replace(repformer, g1_dim=64, g2_dim=16)
        descriptor = dataclasses.replace(descriptor, repinit=repinit)
    descriptor = dataclasses.replace(descriptor, repformer=repformer)
    head = HeadConfig(
        name=HEAD,
        aliases=("water",),
        description="liquid water, 64 molecules, snapshots of molecular dynamics",
        functional="PBE0+TS",
        elements=("H", "O"),
        fitting=FittingConfig(neuron=(240, 240, 240)),
        info={
            "source": "deepmodeling/deepmd-kit examples/water/data (Zhang et al., PRL 120, 143001 (2018))",
            "data_licence": "LGPL-3.0",
        },
    )
    return dataclasses.replace(config, descriptor=descriptor, heads=(head,))


def train_config(steps: int, seed: int) -> TrainConfig:
    """Forces weigh far more than energies at the start, as in the paper, and the weights are averaged."""
    return TrainConfig(
        steps=steps,
        batch_atoms=192,
        learning_rate=2e-3,
        learning_rate_stop=1e-5,
        warmup_steps=min(200, steps // 10),
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
    parser.add_argument("--size", choices=("reduced", "small"), default="reduced")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--three-body", action="store_true")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    config = train_config(args.steps, args.seed)
    everything = Dataset.read(args.data / "train.extxyz.xz", name=HEAD)
    data, validation = everything.split(0.95, seed=args.seed)
    model = model_config(args.size, args.layers, args.three_body)
    result = train(model, data, config, validation=validation, output=args.output)

    test = evaluate(result.potential, Dataset.read(args.data / "test.extxyz.xz", name="test"))
    print(test.summary())
    head = result.potential.config.heads[0]
    info = {
        **head.info,
        "test_errors": test.errors.to_dict(),
        "training": {"steps": result.steps, "frames": len(data), "seed": args.seed},
    }
    heads = (dataclasses.replace(head, info=info),)
    result.potential.config = result.potential.config.with_heads(heads)
    save_potential(result.potential, args.output / "water.safetensors")
    result.history.plot()[0].figure.savefig(args.output / "learning_curve.png", dpi=120)
    print(f"written: {args.output / 'water.safetensors'}")


if __name__ == "__main__":
    main()
