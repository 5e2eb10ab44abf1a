"""Tables S3 and 2 at our scale: one model for many sets against a model for each, on known and unseen sets.

    python examples/paper/multitask.py --data data
    python examples/paper/multitask.py --data data --single all --steps 6000
    python examples/paper/multitask.py --data data --model runs/paper/comparison/last.safetensors --single all
    python examples/paper/multitask.py --data data --quick

A comparison run is pre-trained with a recipe (examples/paper/comparison.toml) on all sets but four,
FerroEle-AIMD, H2O-DPLR, Alloy-LiAl and Mol-AcAc. For some sets (`--single`) the same architecture is trained
on that set alone, one batch a step, for as many batches as the comparison run draws of it. Test errors of
both make Table S3; their errors on the four unseen sets, after a fit of one energy per element, Table 2. The
outside column is CHGNet (`pip install chgnet`). With `--model`, a comparison run that was trained elsewhere,
nothing but the sets of `--single` is trained, with the options of that run's file (`--recipe`). Stop it at
any time; the same command resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import outside
from common import LEFT_OUT, RECIPE, architecture, begin, load_test, parser_for, recipe, require_steps
from multitask_tables import paper_2, paper_s3, table_2, table_s3
from record import once
from report import write_report

from dpa2calc import load_model
from dpa2calc.training import (
    Dataset,
    TrainingSet,
    evaluate,
    load_registered,
    pretrain,
    rank_heads,
    registered_sets,
    training_collection,
)
from dpa2calc.training.data.element_energies import energy_bias

SINGLE = ("H2O-PBE0TS", "SSE-PBE", "FerroEle", "Mol-3BPA", "Inorganic-MPtrj1k", "HfO2-PBE")
# Table 2 fits the energies of an unseen set with the head of one chosen pre-training set, the nearest.
NEAREST = {
    "FerroEle-AIMD": "FerroEle",
    "H2O-DPLR": "H2O-PBE0TS",
    "Alloy-LiAl": "Inorganic-MPtrj1k",
    "Mol-AcAc": "Mol-3BPA",
}
QUICK_SETS = ("Mol-3BPA", "Cu-mlearn", "Li-mlearn")


def main() -> None:
    """Train what is missing, evaluate, print both tables."""
    args = options()
    begin(args)
    names = QUICK_SETS if args.quick else tuple(n for n in recipe(args).sets if n not in LEFT_OUT)
    single = names if args.single == ["all"] else tuple(args.single)
    single = tuple(n for n in single if n in names)
    sets = weighted_sets(names, args)
    weights = {n: registered_sets()[n].weight for n in (*names, *LEFT_OUT)}
    own_steps = shares_of_draws({n: s.weight for n, s in sets.items()}, batches(args))
    on_own: dict[str, Any] = {}
    if args.model is None:
        train_multi(sets, args)
    for name in single:
        train_single(name, sets[name], own_steps[name], args)
    if args.model is None or single:
        for name in names:
            tested = load_test(name, args.data, args.test_frames)
            on_own[name] = own_errors(name, sets[name].head, tested, name in single, args)
    unseen = {n: unseen_errors(n, single, sets, args) for n in LEFT_OUT if NEAREST[n] in sets}
    tables = [table_2(unseen, weights), paper_2()]
    if on_own:
        tables[:0] = [table_s3(on_own, own_steps, weights), paper_s3()]
    print(
        write_report(
            args.output,
            "multitask",
            title="Multi-task against single-task training (Table S3) and zero-shot errors (Table 2)",
            tables=tables,
            notes=notes(args),
            numbers={"own": on_own, "unseen": unseen, "batches": own_steps},
            quick=args.quick,
        )
    )


def options() -> argparse.Namespace:
    """Options of the command line; `--quick` overrides sizes."""
    parser = parser_for(__doc__, "multitask")
    parser.add_argument("--model", type=Path, help="a comparison run of your own; see above")
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="the comparison run's file")
    parser.add_argument("--steps", type=int, help="steps after the shared start, if not the recipe's")
    parser.add_argument("--shared-steps", type=int, help="with one fitting net for all, if not the recipe's")
    parser.add_argument(
        "--single", nargs="+", help=f"sets to train alone, or all; {', '.join(SINGLE)} without --model"
    )
    parser.add_argument("--test-frames", type=int, default=100, help="of each test set (0 = all)")
    parser.add_argument("--outside-frames", type=int, default=20, help="of each unseen set, for CHGNet")
    parser.add_argument("--rank-frames", type=int, default=20, help="of each unseen set, to choose a head")
    args = parser.parse_args()
    if args.single is None:
        args.single = [] if args.model else list(SINGLE)
    given = recipe(args).config
    args.steps = given.steps if args.steps is None else args.steps
    args.shared_steps = given.shared_steps if args.shared_steps is None else args.shared_steps
    if args.quick:
        args.steps, args.shared_steps = 6, 2
        args.test_frames = args.rank_frames = 2
        args.outside_frames = 1
    return args


def weighted_sets(names: tuple[str, ...], args: argparse.Namespace) -> dict[str, TrainingSet]:
    """The training sets, with the weights that the recipe gives them."""
    sections = recipe(args).sets
    sets, _ = training_collection(args.data, names=names, seed=args.seed)
    return {n: dataclasses.replace(item, weight=sections[n].weight) for n, item in sets.items()}


def batches(args: argparse.Namespace) -> int:
    """Batches that the comparison run draws in all."""
    return int((args.steps + args.shared_steps) * recipe(args).config.batches_per_step)


def shares_of_draws(weights: Mapping[str, float], n_batches: int) -> dict[str, int]:
    """How many of the batches belong to each set, on average; at least one.

    Example:
        >>> shares_of_draws({"a": 1.0, "b": 0.5}, 300)
        {'a': 200, 'b': 100}
    """
    total = sum(weights.values())
    return {name: max(1, round(n_batches * weight / total)) for name, weight in weights.items()}


def train_multi(sets: Mapping[str, TrainingSet], args: argparse.Namespace) -> None:
    """The comparison run, in OUTPUT/multi."""
    folder = args.output / "multi"
    config = recipe(args, steps=args.steps, shared_steps=args.shared_steps).config

    def work() -> dict[str, Any]:
        result = pretrain(architecture(sets, args, quick=args.quick), sets, config, output=folder)
        return {"steps": result.steps, "model": "multi/last.safetensors", "sets": list(sets)}

    require_steps(once(args.output / "multi.json", work), args.steps, args.output / "multi.json")


def train_single(name: str, item: TrainingSet, steps: int, args: argparse.Namespace) -> None:
    """The same architecture on one set, in OUTPUT/single/NAME: as many batches as the comparison run drew."""
    folder = args.output / "single" / name
    config = recipe(args, steps=steps, shared_steps=0, batches_per_step=1).config

    def work() -> dict[str, Any]:
        alone = {name: dataclasses.replace(item, head=name)}
        result = pretrain(architecture(alone, args, quick=args.quick), alone, config, output=folder)
        return {"steps": result.steps, "model": f"single/{name}/last.safetensors"}

    record = args.output / "single" / f"{name}.json"
    require_steps(once(record, work), steps, record)


def own_errors(name: str, head: str, test: Dataset, single: bool, args: argparse.Namespace) -> dict[str, Any]:
    """Test errors of both models on one of the sets they were trained on."""
    found: dict[str, Any] = {"multi": errors_of(args, "multi", f"own/{name}.multi", test, head)}
    if single:
        found["single"] = errors_of(args, f"single/{name}", f"own/{name}.single", test, None)
    return found


def errors_of(
    args: argparse.Namespace,
    run: str,
    record: str,
    test: Dataset,
    head: str | None,
    *,
    fit_bias: bool = False,
) -> dict[str, Any]:
    """Errors of the last weights of a run; evaluated once."""

    def work() -> dict[str, Any]:
        model = load_model(weights_of(args, run)).to(args.device)
        return evaluate(model, test, head=head, fit_bias=fit_bias, device=args.device).errors.to_dict()

    return once(errors_folder(args) / f"{record}.json", work)


def weights_of(args: argparse.Namespace, run: str) -> Path:
    """The last weights of a run."""
    if run == "multi" and args.model is not None:
        return Path(args.model)
    return Path(args.output / run / "last.safetensors")


def errors_folder(args: argparse.Namespace) -> Path:
    """Where evaluations on this many test frames are kept, and of which model."""
    given = "" if args.model is None else f"-{'-'.join(args.model.with_suffix('').parts[-2:])}"
    return Path(args.output / f"errors-{args.test_frames or 'all'}{given}")


def unseen_errors(
    name: str, single: tuple[str, ...], sets: Mapping[str, TrainingSet], args: argparse.Namespace
) -> dict[str, Any]:
    """Zero-shot errors on a set that no run has seen: nearest head, best head, single-task, CHGNet.

    The best head is the one with the least errors on a sample of the set's training frames.
    """
    test = load_test(name, args.data, args.test_frames)
    nearest = NEAREST[name]
    head = sets[nearest].head or nearest
    found: dict[str, Any] = {"nearest": nearest, "deviation": deviation(test)}
    found["multi"] = errors_of(args, "multi", f"unseen/{name}.multi", test, head, fit_bias=True)

    def rank() -> dict[str, Any]:
        model = load_model(weights_of(args, "multi")).to(args.device)
        frames = load_registered(name, args.data)
        matches = rank_heads(model, frames, frames=args.rank_frames, device=args.device)
        return {"heads": [m.head for m in matches], "errors": [m.errors.to_dict() for m in matches]}

    best = once(errors_folder(args) / f"unseen/{name}.heads.json", rank)["heads"][0]
    found["best head"] = best
    found["best"] = errors_of(args, "multi", f"unseen/{name}.best", test, best, fit_bias=True)
    if nearest in single:
        found["single"] = errors_of(
            args, f"single/{nearest}", f"unseen/{name}.single", test, None, fit_bias=True
        )
    if outside.available():
        few = load_test(name, args.data, args.outside_frames)
        work = partial(outside.chgnet_errors, few)
        found["chgnet"] = once(errors_folder(args) / f"unseen/{name}.chgnet.json", work)
    return found


def deviation(data: Dataset) -> dict[str, float]:
    """Errors (meV/atom, meV/Å) of a model that knows one energy per element and no forces."""
    _, rest = energy_bias(data, data.elements)
    forces = np.concatenate([frame.forces.ravel() for frame in data if frame.forces is not None])
    return {
        "energy_rmse": 1e3 * float(np.sqrt(np.mean(rest**2))),
        "force_rmse": 1e3 * float(np.sqrt(np.mean(forces**2))),
    }


def notes(args: argparse.Namespace) -> list[str]:
    """What to know about the numbers."""
    per_step = recipe(args).config.batches_per_step
    trained = f"{args.shared_steps} + {args.steps} steps of {per_step} batches"
    out = [
        f"{args.model or trained}; at most {args.test_frames or 'all'} test frames a set.",
        "Single-task: one batch a step, as many batches as the multi-task run draws of the set.",
        "Zero-shot: one energy per element is fitted to the test frames; `multi` takes the head of the named "
        "set, `best head` the one with the least errors on training frames of the unseen set.",
    ]
    if outside.available():
        out.append(f"Outside: CHGNet, on {args.outside_frames} frames a set.")
    else:
        out.append("Outside: CHGNet is not installed (pip install chgnet).")
    return out


if __name__ == "__main__":
    main()
