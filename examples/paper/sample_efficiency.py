"""Figures 3 and S1 at our scale: how many frames a fine-tuned model saves on sets it has never seen.

    python examples/paper/multitask.py --data data                       # first: the comparison run
    python examples/paper/sample_efficiency.py --data data
    python examples/paper/sample_efficiency.py --data data --model FILE --sets Mol-AcAc --sizes 5 50 475
    python examples/paper/sample_efficiency.py --data data --quick

Learning curves on sets left out of the comparison run: DPA-2 fine-tuned from it, the same DPA-2 from scratch,
DPA-1 and DeepPot-SE from scratch. Printed is by what factor fewer frames fine-tuning needs to reach the
error that DPA-2 from scratch has at the largest size. Stop it at any time; the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from common import architecture, begin, load_test, options_for, parser_for, timed, write_figure
from report import Cell, Table, write_report

from dpa2calc.model.config import ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.training import (
    Dataset,
    FinetuneConfig,
    LearningCurve,
    TrainConfig,
    finetune,
    learning_curve,
    load_registered,
    model_for,
    train,
)
from dpa2calc.training.learning_curve import Scheme

SIZES: dict[str, tuple[int, ...]] = {
    "FerroEle-AIMD": (10, 30, 100, 300, 1000, 3000),
    "H2O-DPLR": (1, 3, 10, 30, 100, 300),
    "Mol-AcAc": (5, 15, 50, 150, 475),
    "Alloy-LiAl": (5, 15, 50, 150, 500, 834),
}
DEFAULT_SETS = ("FerroEle-AIMD", "H2O-DPLR", "Mol-AcAc")
TUNED, SCRATCH, DPA1, SE = "DPA-2 fine-tuned", "DPA-2", "DPA-1", "DeepPot-SE"
SCHEMES = (TUNED, SCRATCH, DPA1, SE)


def main() -> None:
    """Train what is missing, print curves and factors."""
    args = options()
    begin(args)
    curves = {name: curve(name, args) for name in args.sets}
    tables = [factors(curves, args.schemes), *(curve_table(c) for c in curves.values())]
    print(
        write_report(
            args.output,
            "sample_efficiency",
            title="Sample efficiency on sets left out of pre-training (Figures 3 and S1)",
            tables=tables,
            figures=[figure(curves, args)],
            notes=[
                f"Fine-tuned from {args.model}; at most {args.steps} steps (fine-tuning "
                f"{args.finetune_steps}) and {args.epochs} passes over the frames; at most "
                f"{args.test_frames or 'all'} test frames.",
                f"DPA-1 is the preset {args.dpa1}.",
                "The paper: fine-tuning saves one to two orders of magnitude of frames (Figure 3).",
            ],
            quick=args.quick,
        )
    )


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = parser_for(__doc__, "sample_efficiency")
    parser.add_argument("--model", default="runs/paper/multitask/multi/last.safetensors", help="name or file")
    parser.add_argument("--sets", nargs="+", choices=list(SIZES), default=list(DEFAULT_SETS))
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of frames, for every set")
    parser.add_argument("--scratch-sizes", nargs="+", type=int, help="for training from scratch, if others")
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=list(SCHEMES))
    parser.add_argument("--steps", type=int, default=600, help="at most, of training from scratch")
    parser.add_argument("--finetune-steps", type=int, default=400, help="at most")
    parser.add_argument("--finetune-rate", type=float, default=5e-3, help="learning rate of fine-tuning")
    parser.add_argument("--epochs", type=int, default=100, help="at most this many passes over the frames")
    parser.add_argument(
        "--dpa1", default="dpa1-l0", choices=("dpa1-l0", "dpa1"), help="without attention, or with"
    )
    parser.add_argument("--test-frames", type=int, default=60, help="of each set (0 = all)")
    args = parser.parse_args()
    if args.quick:
        args.model, args.sets, args.sizes = "default", ["Mol-AcAc"], [2, 4]
        args.steps = args.finetune_steps = 2
        args.test_frames = 2
    return args


def curve(name: str, args: argparse.Namespace) -> LearningCurve:
    """The learning curve of one set; its points are kept by `learning_curve`."""
    data, test = load_registered(name, args.data), load_test(name, args.data, args.test_frames)
    sizes = args.sizes or SIZES[name]
    own = {scheme: sizes if scheme == TUNED else args.scratch_sizes or sizes for scheme in args.schemes}
    folder = args.output / name
    every = {
        TUNED: tuned(args),
        SCRATCH: scratch(args, lambda: architecture({name: data}, quick=args.quick)),
        DPA1: scratch(args, lambda: model_for(args.dpa1, {name: data})),
        SE: scratch(args, lambda: model_for("deeppot-se", {name: data})),
    }
    schemes = {scheme: timed(every[scheme], folder, scheme) for scheme in args.schemes}
    return learning_curve(data, test, sizes=own, schemes=schemes, output=folder, seed=args.seed)


def tuned(args: argparse.Namespace) -> Scheme:
    """Fine-tuning from the comparison run, from its best head."""

    def run(data: Dataset, folder: Path) -> Potential:
        values = options_for(data, args, most=args.finetune_steps)
        values.update(learning_rate=args.finetune_rate, zero_shot_frames=4 if args.quick else 10)
        return finetune(args.model, data, FinetuneConfig(**values), output=folder, progress=False).potential

    return run


def scratch(args: argparse.Namespace, model: Callable[[], ModelConfig]) -> Scheme:
    """Training from random weights."""

    def run(data: Dataset, folder: Path) -> Potential:
        config = TrainConfig(**options_for(data, args, most=args.steps))
        return train(model(), data, config, output=folder, progress=False).potential

    return run


def factors(curves: dict[str, LearningCurve], schemes: Sequence[str]) -> Table:
    """By what factor fewer frames fine-tuning needs for the scratch errors at the largest size."""
    rows: list[tuple[Cell, ...]] = []
    for name, curve in curves.items():
        for reference in schemes:
            if reference == TUNED or TUNED not in schemes:
                continue
            largest = curve.series(reference)[0][-1]
            found = [saved(curve, reference, quantity) for quantity in ("energy_rmse", "force_rmse")]
            rows.append((name, reference, largest, *found))
    columns = ("set", "from scratch", "frames", "factor, energy", "factor, force")
    return Table(
        "Factor fewer frames for the same error (> = at the smallest size already)", columns, tuple(rows)
    )


def saved(curve: LearningCurve, reference: str, quantity: str) -> str:
    """The factor as text: "> 30" where the smallest size is already better, "< 1" where none is."""
    factor = curve.frames_saved(TUNED, reference, quantity)
    if factor is None:
        return "< 1"
    target = curve.series(reference, quantity)[1][-1]
    bound = curve.series(TUNED, quantity)[1][0] <= target
    return f"{'> ' if bound else ''}{factor:.3g}"


def curve_table(curve: LearningCurve) -> Table:
    """Errors by number of frames."""
    found = {(p.scheme, p.n_frames): p.errors for p in curve.points}
    schemes = curve.schemes()
    rows: list[tuple[Cell, ...]] = []
    for n in sorted({p.n_frames for p in curve.points}):
        errors = [found.get((s, n)) for s in schemes]
        energies = [e.energy_rmse if e else None for e in errors]
        forces = [e.force_rmse if e else None for e in errors]
        rows.append((n, *energies, *forces))
    columns = ("frames", *(f"E {s}" for s in schemes), *(f"F {s}" for s in schemes))
    return Table(f"{curve.name}: test RMSE, energy (meV/atom) and force (meV/Å)", columns, tuple(rows))


def figure(curves: dict[str, LearningCurve], args: argparse.Namespace) -> str:
    """Energy and force curves, a row a set."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        len(curves), 2, figsize=(9, 3.5 * len(curves)), squeeze=False, layout="constrained"
    )
    for row, curve in zip(axes, curves.values()):
        curve.plot(row)
    return write_figure(fig, args.output / "sample_efficiency.png")


if __name__ == "__main__":
    main()
