"""Distil students, and print the shape of the paper's Table S4 beside its numbers.

    python examples/distill_students.py DATA_FOLDER --output runs/students
    python examples/distill_students.py DATA_FOLDER --systems water --quick

DATA_FOLDER holds H2O-PBE0TS, SSE-PBE, FerroEle, Alloy-MgCu and Mol-3BPA, each with train.extxyz.xz and
test.extxyz.xz (docs/data.md). The paper has the first three; the students of the other two, an alloy and a
flexible drug-like molecule in vacuum, have 0.13 M parameters. For each system a teacher is fine-tuned from
the default model on a tenth of the frames, a DPA-1 student without attention (0.4 M parameters, 6 Å) is
distilled from it, and the same student architecture is trained on all frames. Hours on a CPU; stop it at any
time, the same command resumes. With `--quick` the steps are too few for good numbers: it only shows that
everything runs.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from paper.student_systems import COLUMNS, System, student_model, student_training, systems, teacher_training

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.training import (
    Dataset,
    Errors,
    distill,
    evaluate,
    finetune,
    load_registered,
    train,
)
from dpa2calc.training.data.dataset import spread_frames


def with_rare_compositions(few: Dataset, everything: Dataset, rare: int = 5) -> Dataset:
    """`few`, and all frames with elements that occur together `rare` times or less, as Mg with Cu."""
    kinds = [tuple(np.unique(frame.numbers)) for frame in everything]
    rest = [i for i, kind in enumerate(kinds) if kinds.count(kind) <= rare]
    known = {frame.source for frame in few}
    added = everything.subset([i for i in rest if everything[i].source not in known])
    return Dataset([*few, *added], name=few.name)


@dataclass(frozen=True)
class Student:
    """A distilled student, its teacher's file, and the frames of its system."""

    model: Path
    teacher: Path
    few: Dataset
    everything: Dataset
    test: Dataset


def make_student(name: str, system: System, args: argparse.Namespace) -> Student:
    """Fine-tune the teacher and distil it; what is done already is read."""
    output = args.output / name
    everything = load_registered(system.folder, args.data)
    test = load_registered(system.folder, args.data, split="test")
    if args.quick:
        everything, test = everything.subset(range(40)), test.subset(spread_frames(test, 5))
    few = everything.sample(max(4, int(args.share * len(everything))), seed=args.seed)
    if not system.paper:
        few = with_rare_compositions(few, everything)
    # A tenth of the frames may lack a rare element; frames with it are no test of this student.
    known = {atomic_numbers[e] for e in few.elements}
    test = test.subset([i for i, frame in enumerate(test) if known.issuperset(frame.numbers.tolist())])
    fitted, held_out = few.split(0.9 if len(few) > 20 else 0.75, seed=args.seed)
    options = teacher_training(args.teacher_steps, system, args.seed, args.device)
    # The weights that do best on a few held-out frames; what the default model can already is kept.
    finetune(args.model, fitted, options, output=output / "teacher", validation=held_out)
    best = output / "teacher" / "best.safetensors"
    result = distill(
        DPA2Calculator(best, device=args.device),
        few,
        student_model(system, few.elements),
        md=system.md,
        train=student_training(args.student_steps, system, args.seed, args.device),
        config=system.loop,
        later_steps=max(1, args.student_steps // 2),
        final_steps=args.final_steps,
        name=f"student-{name}",
        functional=system.functional,
        seed=args.seed,
        test=test,
        output=output / "distill",
    )
    print(result.summary(), flush=True)
    return Student(result.student, best, few, everything, test)


def run_system(name: str, system: System, args: argparse.Namespace) -> dict[str, Any]:
    """Teacher, student and full-data student of one system; errors on the DFT test frames."""
    output = args.output / name
    record_path = output / "table.json"
    if record_path.exists():
        return dict(json.loads(record_path.read_text(encoding="utf-8")))
    student = make_student(name, system, args)
    training = student_training(args.full_steps, system, args.seed, args.device)
    model = student_model(system, student.everything.elements)
    whole = train(model, student.everything, training, output=output / "full").potential.to("cpu")
    errors = {
        "teacher": evaluate(student.teacher, student.test).errors,
        "student": evaluate(student.model, student.test).errors,
        "full data": evaluate(whole, student.test).errors,
    }
    known = any(system.folder in h.name for h in load_model(args.model).config.heads)
    record: dict[str, Any] = {
        "share": 100.0 * len(student.few) / len(student.everything),
        "frames": len(student.few),
        "pretrained_on_it": known,
        **{k: _numbers(e) for k, e in errors.items()},
    }
    record_path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return record


def _numbers(errors: Errors) -> dict[str, float]:
    return {
        "energy": errors.energy_rmse or 0.0,
        "force": errors.force_rmse or 0.0,
        "energy_mae": errors.energy_mae or 0.0,  # says whether one frame makes the RMSE
        "force_mae": errors.force_mae or 0.0,
    }


def table(records: dict[str, dict[str, Any]], chosen: dict[str, System]) -> str:
    """Table S4: errors on the DFT test frames, ours above the paper's."""
    lines = [
        f"{'':<22}{'':>10}" + "".join(f"{c:>20}" for c in COLUMNS) + f"{'student / full':>18}",
        f"{'system':<22}{'% of DFT':>10}" + f"{'E':>10}{'F':>10}" * 3 + f"{'E':>9}{'F':>9}",
    ]
    for name, record in records.items():
        system = chosen[name]
        ours = [(record[c]["energy"], record[c]["force"]) for c in COLUMNS]
        both = [(system.folder, record["share"], ours)]
        if system.paper:
            both.append(("  paper", system.paper_share, [system.paper[c] for c in COLUMNS]))
        for label, share, rows in both:
            cells = "".join(f"{e:>10.2f}{f:>10.1f}" for e, f in rows)
            ratios = "".join(f"{s / w if w else float('nan'):>9.2f}" for s, w in zip(rows[1], rows[2]))
            if label == system.folder and record["pretrained_on_it"]:
                label += " *"
            lines.append(f"{label:<22}{share:>10.2f}{cells}{ratios}")
    lines.append("RMSE on the test frames: energies meV/atom, forces meV/Å. The paper's test sets and frames")
    lines.append("are others (its water has 100 times as many), so its rows show the shape, not a target.")
    if any(r["pretrained_on_it"] for r in records.values()):
        lines.append(
            "*: the pre-trained model has a head for this set: it has seen its training frames before"
        )
    return "\n".join(lines)


def main() -> None:
    """One system after the other, then the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/students"))
    parser.add_argument("--systems", nargs="+", default=["water", "sse", "ferroelectric", "mgcu", "3bpa"])
    parser.add_argument("--model", default="default", help="the pre-trained model to fine-tune")
    parser.add_argument("--share", type=float, default=0.1, help="of the DFT frames that the teacher sees")
    parser.add_argument("--teacher-steps", type=int, default=800)
    parser.add_argument("--student-steps", type=int, default=1000, help="of the first round")
    parser.add_argument("--final-steps", type=int, default=2000, help="of the last, with all frames")
    parser.add_argument("--full-steps", type=int, default=3000, help="of the full-data student")
    parser.add_argument("--md-steps", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a few steps of everything")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.quick:
        args.teacher_steps, args.student_steps, args.final_steps, args.full_steps = 10, 20, 40, 20
    known = systems(args.quick, args.md_steps, args.rounds)
    unknown = [name for name in args.systems if name not in known]
    if unknown:
        parser.error(f"no system {', '.join(unknown)}; there are {', '.join(known)}")
    for name in args.systems:  # all students first: they are what the applications wait for
        make_student(name, known[name], args)
    records = {name: run_system(name, known[name], args) for name in args.systems}
    text = table(records, known)
    print(text)
    (args.output / "table.txt").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
