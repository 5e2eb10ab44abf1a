"""Train the water model that ships inside the package: DPA-2 on PBE0+TS liquid water, one head.

    python examples/train_water.py DATA_FOLDER --pretrain HOT_FOLDER --output runs/water

DATA_FOLDER holds train.extxyz.xz and test.extxyz.xz of H2O-PBE0TS, HOT_FOLDER those of H2O-SCAN-600K
(docs/data.md). The hot water comes first: it teaches the repulsion at short distances, of which 320
frames at 330 K say nothing. Stop it at any time and run the same command again: it goes on where it
stopped. At the end `water.safetensors` in the output folder holds the averaged weights, with the errors
on the test frames in the head's `info`.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from dpa2calc.checkpoint import save_checkpoint
from dpa2calc.model.config import DPA2Config, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.model.presets import preset
from dpa2calc.training.config import FinetuneConfig, TrainConfig
from dpa2calc.training.dataset import Dataset
from dpa2calc.training.evaluate import evaluate
from dpa2calc.training.finetune import finetune
from dpa2calc.training.run import train

HEAD = "H2O-PBE0TS"
LOSS = {
    "energy_prefactor_start": 0.02,
    "energy_prefactor_limit": 2.0,
    "force_prefactor_start": 1000.0,
    "force_prefactor_limit": 20.0,
    "gradient_clip_relative": 3.0,
    "batch_atoms": 192,
    "validate_every": 500,
    "checkpoint_every": 250,
}
SOURCES = {
    "H2O-PBE0TS": "deepmodeling/deepmd-kit examples/water/data (Zhang et al., PRL 120, 143001), LGPL-3.0",
    "H2O-SCAN-600K": "marciosampaio/Water-Deep-Potential-Training-Data-Set (J. Phys. Chem. B 125, 10772 "
    "(2021); 127, 1422 (2023)), no licence stated",
}


def model_config() -> ModelConfig:
    """The `small` preset, reduced so that it trains in half an hour on one core: 0.18 M parameters."""
    config = preset("small", ("H", "O"))
    descriptor = config.descriptor
    assert isinstance(descriptor, DPA2Config)
    descriptor = dataclasses.replace(
        descriptor,
        three_body=None,
        repinit=dataclasses.replace(descriptor.repinit, neuron=(16, 32, 64), axis_neuron=8),
        repformer=dataclasses.replace(descriptor.repformer, g1_dim=64, g2_dim=16),
    )
    return dataclasses.replace(config, descriptor=descriptor, heads=(HeadConfig(name="H2O-SCAN-600K"),))


def with_card(potential: Potential, errors: dict, steps: dict[str, int], seed: int) -> Potential:
    """The potential with what is known of it in the head."""
    head = HeadConfig(
        name=HEAD,
        aliases=("water",),
        description="liquid water at 330 K, 64 molecules; stop-gap model",
        functional="PBE0+TS",
        elements=("H", "O"),
        fitting=potential.config.heads[0].fitting,
        info={"sources": SOURCES, "test_errors": errors, "training": {"steps": steps, "seed": seed}},
    )
    potential.config = potential.config.with_heads((head,))
    return potential


def main() -> None:
    """Pre-train on hot water, fine-tune on the target, evaluate on the test frames, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--pretrain", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/water"))
    parser.add_argument("--pretrain-steps", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    hot = Dataset.read(args.pretrain / "train.extxyz.xz", name="H2O-SCAN-600K")
    options = TrainConfig(
        steps=args.pretrain_steps,
        learning_rate=2e-3,
        learning_rate_stop=2e-4,
        warmup_steps=200,
        ema_decay=0.99,
        seed=args.seed,
        **LOSS,
    )
    first = train(model_config(), hot, options, output=args.output / "pretrain")

    water, validation = Dataset.read(args.data / "train.extxyz.xz", name=HEAD).split(0.95, seed=args.seed)
    gentle = FinetuneConfig(
        steps=args.steps,
        learning_rate=1e-3,
        learning_rate_stop=1e-5,
        ema_decay=0.998,
        start_head="H2O-SCAN-600K",
        seed=args.seed,
        **LOSS,
    )
    result = finetune(first.potential, water, gentle, output=args.output / "finetune", validation=validation)
    result.history.plot()[0].figure.savefig(args.output / "learning_curve.png", dpi=120)

    test = evaluate(result.potential, Dataset.read(args.data / "test.extxyz.xz", name="test")).errors
    print(f"test: {test}")
    steps = {"H2O-SCAN-600K": args.pretrain_steps, HEAD: args.steps}
    potential = with_card(result.potential, test.to_dict(), steps, args.seed)
    print("written:", save_checkpoint(potential, args.output / "water.safetensors"))


if __name__ == "__main__":
    main()
