"""What a few frames and a few minutes give: fine-tuning by frames and CPU minutes, on three kinds of system.

    python examples/few_frames.py --data data                       # 4 x 3 x 3 runs, 15 hours of one core
    python examples/few_frames.py --data data --frames 10 25 --minutes 2
    python examples/few_frames.py --data runs/unseen/frames --sets pyridine GaN KCl-melt
    python examples/few_frames.py --data data --frames 25 --minutes 0 --change steps=300 learning_rate=5e-3

The default model has learned the sets of the collection. Sets that it has not are files NAME.extxyz in the
folder, with the test in NAME.test.extxyz or in their last sixteen frames, as `examples/unseen_systems.py make
--pool 400` writes them. Errors are those of test frames that no run sees; "before" is the head that the
fine-tuning starts from, with energies of the elements fitted to the test. Minutes are CPU minutes of the
training; the ranking of heads comes before them. What is done is kept in the output folder, and the same
command resumes. `--model` names another start, `--sets` other sets.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from paper.frames import asked_of, changed, frames_of
from paper.record import load_record, save_record

from dpa2calc.training import Dataset, FinetuneConfig, evaluate, finetune
from dpa2calc.training.runs.baselines import Baselines
from dpa2calc.training.runs.folder import remove_large_files

SETS = ("Alloy-MgCu", "Electrolyte-NaCl-aq", "Mol-MD17")  # an alloy, a liquid, molecules
Record = dict[str, Any]


def main() -> None:
    """Make what is missing; print and draw everything."""
    args = options()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    records = {}
    for name in args.sets:
        data, test = frames_of(name, args.data)
        for frames in args.frames:
            for minutes in args.minutes:
                place = args.output / name / "-".join([f"{frames}", f"{minutes:g}", *args.change])
                record = load_record(place / "point.json")
                record = record or point(data, test, frames, minutes, place, args)
                records[name, frames, minutes] = record
    text = "\n\n".join(table(name, records, args) for name in args.sets) + "\n"
    (args.output / "few_frames.txt").write_text(text, encoding="utf-8")
    draw(records, args)
    print(text, end="")


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path("data"), help="holds NAME/train.extxyz.xz and test.extxyz.xz")
    add("--output", type=Path, default=Path("runs/few_frames"))
    add("--model", default="default", help="to start from: a name or a file")
    add("--sets", nargs="+", default=list(SETS), help="of the collection, or of files in --data")
    add("--frames", nargs="+", type=int, default=[10, 25, 100, 400])
    add("--minutes", nargs="+", type=float, default=[2.0, 10.0, 60.0], help="CPU minutes")
    add("--test-frames", type=int, default=60, help="at most, of each set")
    add("--threads", type=int, default=1, help="of the matrix products")
    add("--seed", type=int, default=1)
    add("--change", nargs="+", default=[], metavar="OPTION=VALUE", help="of FinetuneConfig")
    add("--quick", action="store_true", help="a minute or two; the numbers mean nothing")
    args = parser.parse_args()
    if args.quick:
        args.sets, args.frames, args.minutes, args.test_frames = args.sets[-1:], [4, 8], [0.05], 4
    return args


def point(
    data: Dataset, test: Dataset, frames: int, minutes: float, place: Path, args: argparse.Namespace
) -> Record:
    """Fine-tune on a sample, evaluate, and leave the record; the smaller samples are parts of the larger."""
    print(f"{data.name}: {frames} frames, {minutes:g} minutes", file=sys.stderr, flush=True)
    started, spent = time.time(), time.process_time()
    sample = data.sample(frames, seed=args.seed)
    asked = asked_of(test, sample, args.test_frames, args.seed)
    config = FinetuneConfig(minutes=minutes, clock="cpu", seed=args.seed).replace(**changed(args.change))
    result = finetune(args.model, sample, config, output=place, name="new", progress=False)
    errors = evaluate(result.potential, asked, head="new").errors
    before = evaluate(args.model, asked, head=result.start_head, fit_bias=True).errors
    trivial = Baselines.of(sample, asked)
    remove_large_files(place)
    return save_record(
        place / "point.json",
        {
            "errors": errors.to_dict(),
            "before": before.to_dict(),
            "zero_forces": trivial.force,
            "composition": trivial.energy,
            "start_head": result.start_head,
            "steps": result.steps,
            "cpu_seconds": time.process_time() - spent,
        },
        started,
    )


def table(name: str, records: dict[tuple[str, int, float], Record], args: argparse.Namespace) -> str:
    """A row a number of frames, two columns (energy and force) a budget."""
    first = next(record for (own, _, _), record in records.items() if own == name)
    lines = [
        f"{name}: test RMSE, energy (meV/atom) / force (meV/Å); zero forces {first['zero_forces']:.0f} meV/Å,"
        f" energies from composition {first['composition']:.0f} meV/atom",
        "| frames | before |" + "".join(f" {minutes:g} min |" for minutes in args.minutes),
        "|---|---|" + "---|" * len(args.minutes),
    ]
    for frames in args.frames:
        row = [records[name, frames, minutes] for minutes in args.minutes]
        before = row[0]["before"]
        cells = [f"{before['energy_rmse']:.1f} / {before['force_rmse']:.0f}"]
        cells += [f"{r['errors']['energy_rmse']:.2f} / {r['errors']['force_rmse']:.1f}" for r in row]
        lines.append(f"| {frames} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(records: dict[tuple[str, int, float], Record], args: argparse.Namespace) -> None:
    """Force errors against frames, a panel a set and a line a budget."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        1, len(args.sets), figsize=(4 * len(args.sets), 3.6), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], args.sets):
        for minutes in args.minutes:
            errors = [records[name, frames, minutes]["errors"]["force_rmse"] for frames in args.frames]
            axis.plot(args.frames, errors, "o-", label=f"{minutes:g} min")
        axis.set(xscale="log", yscale="log", xlabel="frames", ylabel="force RMSE (meV/Å)", title=name)
        axis.set_xticks(args.frames, [str(n) for n in args.frames])
        axis.legend()
    fig.savefig(args.output / "few_frames.png", dpi=120)
    plt.close(fig)


if __name__ == "__main__":
    main()
