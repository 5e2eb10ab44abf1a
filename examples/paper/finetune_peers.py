"""A few frames, ten minutes of one core: fine-tuning beside training from scratch, MACE, SevenNet-0, CHGNet.

    export DPA2CALC_PEERS_PYTHON=PEERS/bin/python      # has mace-torch, sevenn, chgnet
    python examples/paper/finetune_peers.py --data data --sets Alloy-MgCu Mol-MD17 ...
    python examples/paper/finetune_peers.py --data mine --sets oxide   # mine/oxide.extxyz

Every model has the same frames, the same test frames and the same CPU time of one thread (the time of the
training itself; choosing the head, reading and building are in the column of the whole process). Energies of
the elements are fitted to the few frames for all of them. What is done is kept: the same command resumes.
"""

from __future__ import annotations

import argparse
from typing import Any

from common import begin, parser_for, write_figure
from peers.jobs import Job, peers_python, results
from report import Cell, Table, write_report

SETS = ("Alloy-MgCu", "Electrolyte-NaCl-aq", "Mol-MD17", "Catalysis-formate-Cu", "SemiCond-Ga2O3")
TUNED = "DPA-2 fine-tuned"
JOBS = (
    Job(TUNED, "dpa2calc", "fine-tuned"),
    Job("DPA-2 from scratch, all frames", "dpa2calc", "from scratch", all_frames=True),
    Job("MACE from scratch", "mace", "from scratch"),
    Job("SevenNet-0 as it is", "sevennet", "as it is"),
    Job("SevenNet-0 fine-tuned", "sevennet", "fine-tuned"),
    Job("CHGNet as it is", "chgnet", "as it is"),
    Job("CHGNet fine-tuned", "chgnet", "fine-tuned"),
)
COLUMNS = ("energy RMSE", "MAE", "force RMSE", "MAE", "steps", "CPU s, whole process", "peak MB")
KEYS = ("energy_rmse", "energy_mae", "force_rmse", "force_mae", "steps", "cpu_seconds", "peak_mb")


def main() -> None:
    """Do what is missing, print the tables."""
    parser = options()
    args = parser.parse_args()
    if args.quick:
        args.sets, args.minutes, args.frames, args.test_frames = args.sets[:1], 1 / 3, 8, 8
    python = peers_python(parser)
    begin(args)
    found = {name: results(name, JOBS, args, python) for name in args.sets}
    text = write_report(
        args.output,
        "finetune_peers",
        title=f"{args.frames} frames and {args.minutes:g} CPU minutes of one core",
        tables=[table(name, records) for name, records in found.items()],
        figures=[figure(found, args)],
        notes=[
            f"Fine-tuned from {args.model}; {args.test_frames} test frames at most, of elements that the few "
            "frames hold. Energies in meV/atom, forces in meV/Å.",
            *(r["error"] for records in found.values() for r in records.values() if "error" in r),
        ],
        numbers=found,
        quick=args.quick,
    )
    print(text)


def options() -> argparse.ArgumentParser:
    """Options of the command line."""
    parser = parser_for(__doc__, "finetune_peers")
    parser.add_argument("--model", default="default", help="of this package: a name or a file")
    parser.add_argument("--sets", nargs="+", default=list(SETS), help="of the collection, or files in --data")
    parser.add_argument("--frames", type=int, default=25, help="to learn from")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU minutes of each training")
    parser.add_argument("--test-frames", type=int, default=60, help="at most, of each set")
    return parser


def table(name: str, records: dict[str, dict[str, Any]]) -> Table:
    """A row a model."""
    rows: list[tuple[Cell, ...]] = [(t, *(r.get(k) for k in KEYS)) for t, r in records.items()]
    return Table(f"{name}: test errors (meV/atom, meV/Å)", ("model", *COLUMNS), tuple(rows))


def figure(found: dict[str, dict[str, dict[str, Any]]], args: argparse.Namespace) -> str:
    """Force errors by set, a bar a model."""
    import matplotlib.pyplot as plt

    titles = list(next(iter(found.values())))
    fig, axis = plt.subplots(figsize=(2.2 * len(found) + 3, 4), layout="constrained")
    width = 0.8 / len(titles)
    for place, title in enumerate(titles):
        errors = [records[title].get("force_rmse") or float("nan") for records in found.values()]
        axis.bar([i + width * place for i in range(len(found))], errors, width, label=title)
    axis.set_xticks([i + 0.4 - width / 2 for i in range(len(found))], list(found))
    axis.set(ylabel="force RMSE (meV/Å)", yscale="log")
    axis.legend(fontsize=8)
    return write_figure(fig, args.output / "finetune_peers.png")


if __name__ == "__main__":
    main()
