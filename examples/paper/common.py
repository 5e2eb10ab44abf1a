"""What the scripts of this folder share: options, architecture and training options of the recipe, data."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from record import save_record

from dpa2calc.model.config import ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.training import Dataset, Errors, TrainConfig, TrainingSet, load_registered, model_for
from dpa2calc.training.config.model import with_changes
from dpa2calc.training.config.run_file import RunFile, read_run_file
from dpa2calc.training.config.sections import ModelSection
from dpa2calc.training.data.dataset import spread_frames
from dpa2calc.training.learning_curve import Scheme

RECIPE = Path(__file__).parent / "comparison.toml"
# Sets that the comparison run never sees: the downstream tasks of the zero-shot table and figures.
LEFT_OUT = ("FerroEle-AIMD", "H2O-DPLR", "Alloy-LiAl", "Mol-AcAc")

# What --quick makes of the recipe: everything runs, nothing is learned.
QUICK_OPTIONS: dict[str, Any] = {
    "batch_atoms": 60, "batches_per_step": 2, "validation_frames": 1
}  # fmt: skip
QUICK_MODEL: dict[str, dict[str, Any]] = {
    "repinit": {"neuron": [4, 8], "axis_neuron": 2},
    "repformer": {"nlayers": 1, "g1_dim": 16, "g2_dim": 8, "attn1_hidden": 8, "attn2_hidden": 8},
}


def parser_for(doc: str | None, name: str) -> argparse.ArgumentParser:
    """Options that all scripts have; `name` is the default folder under runs/paper."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("data"), help="holds NAME/train.extxyz.xz and NAME/test.extxyz.xz"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/paper") / name)
    parser.add_argument("--quick", action="store_true", help="a minute or two; the numbers mean nothing")
    parser.add_argument("--threads", type=int, help="threads of the matrix products")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    return parser


def begin(args: argparse.Namespace) -> None:
    """Set the threads and make the output folder."""
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)


def recipe(args: argparse.Namespace | None = None, **changes: Any) -> RunFile[TrainConfig]:
    """The recipe of the comparison run (sets, model section, training options) with some options changed.

    Args:
        args: gives seed, device, whether to be quick and, where a script has `--recipe`, another file.
    """
    path = getattr(args, "recipe", RECIPE)
    if args is not None:
        changes = {
            "seed": args.seed,
            "device": args.device,
            **(QUICK_OPTIONS if args.quick else {}),
            **changes,
        }
    return read_run_file(path, TrainConfig, changes=changes)


def architecture(
    sets: Mapping[str, TrainingSet | Dataset],
    args: argparse.Namespace | None = None,
    *,
    quick: bool = False,
    descriptor: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """The recipe's model with a head for each of the sets' heads.

    Args:
        args: see `recipe`.
        quick: a tiny model instead.
        descriptor: changes to the descriptor, such as {"repformer": {"update_g1_has_conv": False}}.
    """
    section = recipe(args).model
    assert isinstance(section, ModelSection)
    changes = dict(section.descriptor)
    for step in (QUICK_MODEL if quick else {}, descriptor or {}):
        for part, values in step.items():
            before = changes.get(part, {})  # three_body = "none" in the recipe
            changes[part] = {**(before if isinstance(before, dict) else {}), **values}
    fitting = {"neuron": [16]} if quick else section.fitting
    section = ModelSection(preset=section.preset, descriptor=changes, fitting=fitting)
    return with_changes(model_for(section.preset, sets), section)


def load_test(name: str, folder: Path, frames: int = 0) -> Dataset:
    """The test frames of a registered set, or `frames` of them, spread over the whole set."""
    data = load_registered(name, folder, split="test")
    return data.subset(spread_frames(data, frames)) if 0 < frames < len(data) else data


def write_figure(figure: Any, path: Path) -> str:
    """Save a matplotlib figure as PNG and close it; returns the file's name."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return path.name


def pair(errors: Errors | Mapping[str, Any] | None) -> tuple[float | None, float | None]:
    """Energy and force RMSE (meV/atom, meV/Å) of errors or of their dict."""
    if errors is None:
        return None, None
    values = errors.to_dict() if isinstance(errors, Errors) else errors
    return values["energy_rmse"], values["force_rmse"]


def weighted_mean(values: Iterable[float | None], weights: Iterable[float]) -> float | None:
    """Weighted average over what is known (the paper's WARMSE); None if nothing is."""
    known = [(v, w) for v, w in zip(values, weights) if v is not None]
    total = sum(w for _, w in known)
    return sum(v * w for v, w in known) / total if total else None


def ratio(value: float | None, reference: float | None) -> float | None:
    """value / reference where both are known."""
    return value / reference if value is not None and reference else None


def require_steps(record: Mapping[str, Any], steps: int, path: Path) -> None:
    """Stop when a finished run had another number of steps than is asked for now."""
    if record["steps"] != steps:
        raise SystemExit(
            f"{path} is a finished run of {record['steps']} steps, not {steps}: ask for as many steps as "
            "then, or choose another --output"
        )


def steps_for(frames: int, atoms: int, batch_atoms: int, *, epochs: int, least: int, most: int) -> int:
    """Steps of batches of whole frames, for a number of passes over the frames, within limits.

    Frames of more than two batches' atoms get fewer steps, so that one step's cost matters less.

    Args:
        atoms: of one frame, on average.

    Example:
        >>> steps_for(100, 40, 100, epochs=10, least=100, most=600)  # two frames a batch
        500
    """
    per_batch = max(1, batch_atoms // max(1, atoms))
    most = max(1, round(most * min(1.0, 2 * batch_atoms / max(1, atoms))))
    return min(most, max(min(least, most), math.ceil(frames / per_batch) * epochs))


def options_for(data: Dataset, args: argparse.Namespace, *, most: int) -> dict[str, Any]:
    """The recipe's training options for a sample of one set; `args.epochs` and `most` limit the steps."""
    config = recipe(args).config
    steps = steps_for(
        len(data),
        data.n_atoms // len(data),
        config.batch_atoms,
        epochs=args.epochs,
        least=most // 3,
        most=most,
    )
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(TrainConfig)}
    return {**values, "steps": steps, "shared_steps": 0, "batches_per_step": 1, "ema_decay": 0.98}


def timed(scheme: Scheme, folder: Path, name: str) -> Scheme:
    """A scheme of a learning curve, leaving a record of its wall time in FOLDER/times."""

    def run(data: Dataset, place: Path) -> Potential:
        started = time.time()
        potential = scheme(data, place)
        print(f"{name}, {len(data)} frames: {time.time() - started:.0f} s", file=sys.stderr)
        save_record(folder / "times" / f"{name}-{len(data)}.json", {"frames": len(data)}, started)
        return potential

    return run
