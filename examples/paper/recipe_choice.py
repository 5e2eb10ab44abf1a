"""How to pre-train: ways of training five sets of different kinds together, from scratch, at equal CPU time.

    python examples/paper/recipe_choice.py --data data
    python examples/paper/recipe_choice.py --data data --seconds 300 --variants shared-net
    python examples/paper/recipe_choice.py --data data --quick

A small copy of the default model's descriptor (pair attention in two narrow layers) first learns all sets
from scratch, a head for each set, at a constant learning rate: the early part of a pre-training, the same for
all. From its weights each recipe trains for the same CPU time of one thread, as a long run would be
continued. Steps follow from the cost of a step, measured at the start and kept. Averages of the weights are
as long, as a share of the run, as in the long run. `shared-net` needs an early part of its own, whose heads
share one net that knows the head by its case embedding. Stop it at any time; the same command resumes.
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from common import QUICK_MODEL, begin, load_test, parser_for
from record import once
from report import Cell, Table, write_report

from dpa2calc.model.config import ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.training import (
    Dataset,
    TrainConfig,
    TrainingSet,
    evaluate,
    load_registered,
    model_for,
    pretrain,
)
from dpa2calc.training.config.model import with_changes
from dpa2calc.training.config.sections import ModelSection
from dpa2calc.training.data.element_energies import energy_bias
from dpa2calc.training.data.sets import TrainingData
from dpa2calc.training.energy_bias import absorb_initial_energies, fit_energy_biases
from dpa2calc.training.evaluate import Evaluation
from dpa2calc.training.fit.setup import measure_environment, new_potential, tie_heads

SETS = ("SSE-PBE", "HfO2-PBE", "Cu-mlearn", "Mol-SPICE-drug", "Catalysis-PtCO")
DESCRIPTOR: dict[str, dict[str, Any] | str] = {
    "three_body": "none",
    "repinit": {"neuron": [16, 32, 64], "axis_neuron": 4},
    "repformer": {
        "nlayers": 2,
        "g1_dim": 64,
        "g2_dim": 16,
        "axis_neuron": 4,
        "update_g1_has_attn": False,
        "update_g2_has_g1g1": False,
        "update_g2_has_attn": True,
        "attn2_hidden": 16,
        "attn2_nhead": 2,
    },
}
# The recipe of examples/default_model.toml, with the learning rates that suit a start from scratch.
TODAY: dict[str, Any] = {
    "batch_atoms": 100,
    "batches_per_step": 1,
    "learning_rate": 1e-2,
    "learning_rate_stop": 5e-5,
    "beta2": 0.98,
    "weight_decay": 0.02,
    "gradient_clip_batch": 4.0,
    "ema_decay": 0.97,
    "huber_delta": 0.5,
    "energy_prefactor_start": 300,
    "energy_prefactor_limit": 1500,
    "force_prefactor_start": 600,
    "force_prefactor_limit": 40,
    "virial_prefactor_start": 20,
    "virial_prefactor_limit": 50,
    "final_bias_frames": 100,
}
# Changes to it; a variant is one more line.
VARIANTS: dict[str, dict[str, Any]] = {"today": {}, "shared-net": {"shared": True}}


def main() -> None:
    """Measure steps, train what is missing, print the table."""
    args = options()
    begin(args)
    sets = {name: TrainingSet(load_registered(name, args.data)) for name in args.sets}
    tests = {name: load_test(name, args.data, args.test_frames) for name in args.sets}
    spread = {name: spreads(item.train) for name, item in sets.items()}
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in args.seeds:
        for variant in args.variants:
            found[variant, seed] = trained(variant, seed, sets, tests, args)
            print(write(found, spread, args), flush=True)


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = parser_for(__doc__, "recipe_choice")
    parser.add_argument("--start-seconds", type=float, default=130.0, help="CPU time of the early part")
    parser.add_argument("--seconds", type=float, default=45.0, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--test-frames", type=int, default=30, help="of each set (0 = all)")
    args = parser.parse_args()
    args.variants = list(dict.fromkeys(["today", *args.variants]))
    if args.quick:
        args.seconds, args.seeds, args.sets, args.test_frames = 1.0, [1], list(SETS[2:4]), 6
        args.start_seconds = 1.0
        args.variants = args.variants[:2]
    args.threads = args.threads or 1
    return args


def model(
    variant: str, seed: int, sets: Mapping[str, TrainingSet], *, quick: bool
) -> ModelConfig | Potential:
    """The small descriptor with a net a head, or with one net that knows the head by its case embedding."""
    descriptor: dict[str, Any] = {**DESCRIPTOR, **(QUICK_MODEL if quick else {})}
    case = len(sets) if VARIANTS[variant].get("shared") else 0
    section = ModelSection(
        preset="small", descriptor=descriptor, fitting={"neuron": [120, 120, 120], "dim_case_embd": case}
    )
    config = with_changes(model_for(section.preset, sets), section)
    if not case:
        return config
    potential = new_potential(config, seed=seed)
    for row, head in zip(torch.eye(case), potential.heads):
        head.get_buffer("case_embd").copy_(row)
    tie_heads(potential)
    data = TrainingData.of(sets, config)
    measure_environment(potential, data, seed=seed)
    fit_energy_biases(potential, data)
    absorb_initial_energies(potential, data, seed=seed)
    return potential


def config_for(variant: str, steps: int, seed: int, args: argparse.Namespace) -> TrainConfig:
    """The options of a training."""
    changes = {key: value for key, value in VARIANTS[variant].items() if key != "shared"}
    fixed = {"steps": steps, "seed": seed, "device": args.device, "keep": "last"}
    return TrainConfig(**{**TODAY, **changes, **fixed})


def cost(sets: Mapping[str, TrainingSet], args: argparse.Namespace) -> float:
    """CPU seconds of a step, the same for all variants: a difference of trainings, least of two rounds."""
    few, many, rounds = (1, 3, 1) if args.quick else (10, 60, 2)

    def work() -> dict[str, float]:
        spent: dict[int, list[float]] = {few: [], many: []}
        place = args.output / "cost"
        for steps, times in list(spent.items()) * rounds:
            start = model("today", 1, sets, quick=args.quick)
            config = config_for("today", steps, 1, args).replace(final_bias_frames=0, statistics_frames=2)
            shutil.rmtree(place, ignore_errors=True)
            began = time.process_time()
            pretrain(start, sets, config, output=place, progress=False)
            times.append(time.process_time() - began)
        shutil.rmtree(place)
        return {"seconds": max((min(spent[many]) - min(spent[few])) / (many - few), 1e-3)}

    return float(once(args.output / "seconds.json", work)["seconds"])


def early_part(variant: str, sets: Mapping[str, TrainingSet], args: argparse.Namespace) -> Potential:
    """The weights from which a variant starts."""
    first = "shared-net" if VARIANTS[variant].get("shared") else "today"
    steps = max(2, round(args.start_seconds / cost(sets, args)))
    config = config_for("today", steps, 1, args)
    config = config.replace(schedule="constant", learning_rate_stop=config.learning_rate)
    start = model(first, 1, sets, quick=args.quick)
    return pretrain(start, sets, config, output=args.output / f"early-{first}", progress=False).potential


def trained(
    variant: str,
    seed: int,
    sets: Mapping[str, TrainingSet],
    tests: Mapping[str, Dataset],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Steps, CPU seconds and test errors by set of one training."""
    label = f"{variant}-seed{seed}"

    def work() -> dict[str, Any]:
        start = early_part(variant, sets, args)
        steps = max(2, round(args.seconds / cost(sets, args)))
        place = args.output / label
        began = time.process_time()
        result = pretrain(start, sets, config_for(variant, steps, seed, args), output=place, progress=False)
        spent = time.process_time() - began
        last = result.history.train[-1]
        errors = {}
        for name, test in tests.items():
            evaluation = evaluate(result.potential, test, head=name, device=args.device)
            errors[name] = {**evaluation.errors.to_dict(), "cold": cold_error(evaluation, test)}
        shutil.rmtree(place)
        return {"steps": steps, "cpu_seconds": spent, "sets": errors, "last": last}

    return once(args.output / f"{label}.json", work)


def cold_error(evaluation: Evaluation, test: Dataset) -> float | None:
    """Deviation (meV/atom) of the energy errors among the frames with the smallest third of forces.

    Crystals near rest, strained cells and relaxed molecules: such differences carry elastic constants.
    """
    size = np.array([np.sqrt((f.forces**2).mean()) for f in test if f.forces is not None])
    cold = size <= np.quantile(size, 1 / 3)
    error = evaluation.energies[:, 1] - evaluation.energies[:, 0]
    return float(1000.0 * error[cold].std())


def spreads(data: Dataset) -> tuple[float, float]:
    """Of the labels: energies about the fit by element (meV/atom), forces (meV/Å)."""
    types = sorted({chemical_symbols[z] for frame in data for z in set(frame.numbers)})
    rest = energy_bias(data, types)[1]
    forces = np.concatenate([f.forces.ravel() for f in data if f.forces is not None])
    return float(1000.0 * rest.std()), float(1000.0 * forces.std())


MEASURES = ("energy_mae", "energy_rmse", "force_mae", "force_rmse")


def geometric(values: list[float]) -> float:
    """Geometric mean."""
    return math.exp(statistics.mean(math.log(value) for value in values))


def write(
    found: Mapping[tuple[str, int], dict[str, Any]],
    spread: Mapping[str, tuple[float, float]],
    args: argparse.Namespace,
) -> str:
    """The report of what is there so far."""
    variants = list(dict.fromkeys(variant for variant, _ in found))
    rows: list[tuple[Cell, ...]] = []
    ratios: list[tuple[Cell, ...]] = []
    for variant in variants:
        seeds = [seed for name, seed in found if name == variant]
        runs = [found[variant, seed]["sets"] for seed in seeds]
        cells: list[Cell] = [variant]
        for name in args.sets:
            shares = [
                100.0
                * statistics.mean(run[name][key] for run in runs)
                / spread[name][key.startswith("force")]
                for key in MEASURES
            ]
            cells.append(" / ".join(f"{share:.1f}" for share in shares))
        rows.append(tuple(cells))
        line: list[Cell] = [variant]
        for key in (*MEASURES, "cold"):
            each = [
                geometric(
                    [found[variant, s]["sets"][n][key] / found["today", s]["sets"][n][key] for n in args.sets]
                )
                for s in seeds
            ]
            line.append(" ".join(f"{value:.3f}" for value in each))
        line += [
            " ".join(str(found[variant, s]["steps"]) for s in seeds),
            " ".join(f"{found[variant, s]['cpu_seconds']:.0f}" for s in seeds),
        ]
        ratios.append(tuple(line))
    title = "Test errors in % of the labels' spread: energy MAE / RMSE / force MAE / RMSE, means over seeds"
    second = "Errors over those of today's recipe with the same seed (one number a seed), mean over the sets"
    columns = (
        "recipe",
        "energy MAE",
        "energy RMSE",
        "force MAE",
        "force RMSE",
        "cold frames",
        "steps",
        "CPU s",
    )
    return write_report(
        args.output,
        "recipe_choice",
        title="Recipes from scratch at equal CPU time",
        tables=[Table(title, ("recipe", *args.sets), tuple(rows)), Table(second, columns, tuple(ratios))],
        notes=[f"One thread, {args.seconds:g} CPU seconds a training, {args.test_frames} test frames a set."],
        numbers={f"{variant} seed {seed}": value for (variant, seed), value in found.items()},
        quick=args.quick,
    )


if __name__ == "__main__":
    main()
