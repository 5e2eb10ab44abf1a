"""Figure S2 at our scale: does it matter which head fine-tuning starts from?

    python examples/paper/head_choice.py --data data
    python examples/paper/head_choice.py --data data --set H2O-DPLR --heads H2O-SCAN-600K SSE-PBE fresh
    python examples/paper/head_choice.py --data data --quick

All heads of the comparison run (examples/paper/multitask.py) are ranked by their zero-shot error on a set
that it never saw. The best, the second, a middling one and the worst of those that know all elements, and a
fresh head, are then fine-tuned on samples of a few sizes. Stop it at any time; the same command resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import begin, load_test, options_for, parser_for, timed, write_figure
from record import once
from report import Cell, Table, write_report

from dpa2calc import load_model
from dpa2calc.model.potential import Potential
from dpa2calc.training import (
    Dataset,
    FinetuneConfig,
    LearningCurve,
    finetune,
    learning_curve,
    load_registered,
    rank_heads,
)
from dpa2calc.training.learning_curve import Scheme

FRESH = "fresh"


def main() -> None:
    """Rank the heads, fine-tune from some of them, print and plot."""
    args = options()
    begin(args)
    data = load_registered(args.set, args.data)
    ranks = once(args.output / f"{args.set}.heads.json", lambda: ranked(data, args))
    heads = args.heads or spread([h["head"] for h in ranks["heads"] if not h["missing"]])
    folder = args.output / args.set
    curve = learning_curve(
        data,
        load_test(args.set, args.data, args.test_frames),
        sizes=args.sizes,
        schemes={head: timed(tuned(head, args), folder, head) for head in heads},
        output=folder,
        seed=args.seed,
    )
    print(
        write_report(
            args.output,
            "head_choice",
            title="Choice of the head to fine-tune from (Figure S2)",
            tables=[table(curve, heads, ranks, quantity) for quantity in ("force", "energy")],
            figures=[figure(curve, args.output)],
            notes=[
                f"{args.set}, from {args.model}; at most {args.steps} steps and {args.epochs} passes.",
                "The paper, on ANI-1x: curves from two heads (Drug, FerroEle-P) and from a random one "
                "become the same with enough frames.",
            ],
            numbers={"heads": ranks["heads"]},
            quick=args.quick,
        )
    )


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = parser_for(__doc__, "head_choice")
    parser.add_argument("--model", default="runs/paper/multitask/multi/last.safetensors", help="name or file")
    parser.add_argument("--set", default="Mol-AcAc", help="downstream set")
    parser.add_argument("--heads", nargs="+", help="to start from; fresh = random weights")
    parser.add_argument("--sizes", nargs="+", type=int, default=[10, 50, 250])
    parser.add_argument("--steps", type=int, default=300, help="at most")
    parser.add_argument("--epochs", type=int, default=100, help="at most this many passes over the frames")
    parser.add_argument("--learning-rate", type=float, default=5e-3)
    parser.add_argument("--test-frames", type=int, default=60, help="(0 = all)")
    parser.add_argument("--rank-frames", type=int, default=20, help="for the zero-shot errors")
    args = parser.parse_args()
    if args.quick:
        args.model, args.sizes, args.steps = "default", [2], 2
        args.test_frames = args.rank_frames = 2
        args.heads = ["Mol-3BPA", FRESH]
    return args


def ranked(data: Dataset, args: argparse.Namespace) -> dict[str, Any]:
    """Zero-shot errors of every head, best first."""
    model = load_model(args.model).to(args.device)
    matches = rank_heads(model, data, frames=args.rank_frames, device=args.device)
    return {
        "heads": [
            {"head": m.head, "missing": list(m.missing_elements), "errors": m.errors.to_dict()}
            for m in matches
        ]
    }


def spread(heads: Sequence[str]) -> list[str]:
    """The best, the second, a middling and the worst of ranked heads, and a fresh one.

    Example:
        >>> spread("abcdefg")
        ['a', 'b', 'd', 'g', 'fresh']
    """
    places = sorted({0, 1, len(heads) // 2, len(heads) - 1})
    return [heads[i] for i in places if 0 <= i < len(heads)] + [FRESH]


def tuned(head: str, args: argparse.Namespace) -> Scheme:
    """Fine-tuning from one head."""

    def run(data: Dataset, folder: Path) -> Potential:
        values = options_for(data, args, most=args.steps)
        values.update(learning_rate=args.learning_rate, start_head=head, zero_shot_frames=10)
        return finetune(args.model, data, FinetuneConfig(**values), output=folder, progress=False).potential

    return run


def table(curve: LearningCurve, heads: Sequence[str], ranks: dict[str, Any], kind: str) -> Table:
    """Zero-shot error and errors after fine-tuning of one kind, "energy" or "force"; a row a head."""
    before = {h["head"]: h["errors"][f"{kind}_rmse"] for h in ranks["heads"]}
    rows: list[tuple[Cell, ...]] = []
    sizes: list[int] = []
    for head in heads:
        sizes, errors = curve.series(head, f"{kind}_rmse")
        rows.append((head, before.get(head), *errors))
    unit = "meV/atom" if kind == "energy" else "meV/Å"
    columns = ("start", "zero-shot", *(f"{n} frames" for n in sizes))
    return Table(f"{curve.name}: {kind} RMSE ({unit}), zero-shot and after fine-tuning", columns, tuple(rows))


def figure(curve: LearningCurve, folder: Path) -> str:
    """Learning curves, one a start."""
    axes = curve.plot()
    return write_figure(axes[0].figure, folder / "head_choice.png")


if __name__ == "__main__":
    main()
