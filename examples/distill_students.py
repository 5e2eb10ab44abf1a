"""Distil students, and print the shape of the paper's Table S4 beside its numbers.

    python examples/distill_students.py DATA_FOLDER --output runs/students
    python examples/distill_students.py DATA_FOLDER --systems water --quick

DATA_FOLDER holds H2O-PBE0TS, SSE-PBE, FerroEle, Alloy-MgCu and Mol-3BPA, each with train.extxyz.xz and
test.extxyz.xz (docs/data.md). The paper has the first three; the students of the other two, an alloy and a
flexible drug-like molecule in vacuum, have 0.14 M parameters. For each system a teacher is fine-tuned from
the default model on a tenth of the frames, a DPA-1 student without attention (0.4 M parameters, 6 Å) is
distilled from it, and the same student architecture is trained on all frames. Hours on a CPU; stop it at any
time, the same command resumes. With `--quick` the steps are too few for good numbers: it only shows that
everything runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.model.config import ModelConfig
from dpa2calc.model.config.presets import preset
from dpa2calc.training import (
    Dataset,
    DistillConfig,
    Errors,
    FinetuneConfig,
    MDCondition,
    TrainConfig,
    distill,
    evaluate,
    finetune,
    load_registered,
    train,
)
from dpa2calc.training.data.dataset import spread_frames
from dpa2calc.training.exploration.options import Ensemble

COLUMNS = ("teacher", "student", "full data")


@dataclass(frozen=True, kw_only=True)
class System:
    """One column of the table: data, dynamics, and what the paper has (energy meV/atom, force meV/Å)."""

    folder: str
    functional: str
    md: tuple[MDCondition, ...]
    loop: DistillConfig
    virial: bool
    small: bool = False  # a student of a third of the size
    paper: dict[str, tuple[float, float]] = field(default_factory=dict)
    paper_share: float = 0.0


def systems(quick: bool, md_steps: int, rounds: int) -> dict[str, System]:
    """The three systems; temperatures go above those of the applications, so that their tails are covered."""
    sample = 5 if quick else 50
    steps = 20 if quick else md_steps

    def md(
        temperature: tuple[float, ...], timestep: float, ensemble: Ensemble = "nvt"
    ) -> tuple[MDCondition, ...]:
        chosen = temperature[:1] if quick else temperature
        return (
            MDCondition(
                ensemble=ensemble,
                temperature=chosen,
                timestep=timestep,
                steps=steps,
                sample_interval=sample,
                trajectories=1,
            ),
        )

    loop = DistillConfig(
        max_rounds=1 if quick else rounds,
        frames_per_round=4 if quick else 60,
        perturbed=0 if quick else 3,
        explore_with="both",  # the student's own mistakes are corrected too
        contacts=0 if quick else 3,  # without them two oxygen atoms fused after 8 ps
        force_limit=100.0,
        displacement=0.04,
        strain=0.015,
        later_learning_rate=5e-3,
    )
    return {
        "water": System(
            folder="H2O-PBE0TS",
            functional="PBE0+TS",
            md=md((330.0, 500.0, 700.0), 0.5),
            loop=dataclasses.replace(loop, threshold=0.15),
            virial=False,
            paper={"teacher": (0.3, 30.0), "student": (0.4, 41.7), "full data": (0.4, 37.7)},
            paper_share=0.25,
        ),
        "sse": System(
            folder="SSE-PBE",
            functional="PBE",
            md=md((400.0, 800.0, 1200.0), 2.0),
            loop=dataclasses.replace(loop, threshold=0.3),
            virial=True,
            paper={"teacher": (1.3, 72.0), "student": (3.3, 101.0), "full data": (1.9, 96.7)},
            paper_share=1.01,
        ),
        "ferroelectric": System(
            folder="FerroEle",
            functional="PBEsol",
            md=md((200.0, 500.0, 900.0), 1.0, "npt"),
            loop=dataclasses.replace(loop, threshold=0.25),
            virial=True,
            paper={"teacher": (1.6, 44.7), "student": (2.5, 99.6), "full data": (1.9, 105.7)},
            paper_share=7.86,
        ),
        "mgcu": System(
            folder="Alloy-MgCu",
            functional="PBE",
            md=md((300.0, 800.0, 1500.0), 2.0),
            loop=dataclasses.replace(loop, threshold=0.15),
            virial=True,
            small=True,
        ),
        "3bpa": System(
            folder="Mol-3BPA",
            functional="wB97X",
            md=md((300.0, 600.0, 1000.0), 0.5),
            loop=dataclasses.replace(loop, threshold=0.2),
            virial=False,
            small=True,
        ),
    }


def student_model(system: System, elements: tuple[str, ...]) -> ModelConfig:
    """A DPA-1 without attention."""
    model = preset("dpa1-l0", elements)
    if not system.small:
        return model
    descriptor = dataclasses.replace(model.descriptor, axis_neuron=8)  # type: ignore[call-arg]
    heads = tuple(
        dataclasses.replace(head, fitting=dataclasses.replace(head.fitting, neuron=(120, 120, 120)))
        for head in model.heads
    )
    return dataclasses.replace(model, descriptor=descriptor, heads=heads)


def student_training(steps: int, system: System, seed: int, device: str) -> TrainConfig:
    """Forces first, then energies; the weights are averaged.

    With Huber's loss the large forces of close contacts do not outweigh those of ordinary frames. It has no
    factor of the frame's size, so the energy's weights are larger than usual.
    """
    return TrainConfig(
        steps=steps,
        batch_atoms=200,
        learning_rate=2e-2,
        learning_rate_stop=5e-5,
        ema_decay=0.99,
        huber_delta=0.3,
        energy_prefactor_start=2.0,
        energy_prefactor_limit=200.0,
        force_prefactor_limit=20.0,
        log_every=max(1, min(100, steps // 5)),
        seed=seed,
        device=device,
        virial_prefactor_start=2.0 if system.virial else 0.0,
        virial_prefactor_limit=50.0 if system.virial else 0.0,
    )


def teacher_training(steps: int, system: System, seed: int, device: str) -> FinetuneConfig:
    """Gentle: the descriptor knows much of this already."""
    return FinetuneConfig(
        steps=steps,
        batch_atoms=200,
        learning_rate=3e-3,
        learning_rate_stop=5e-5,
        ema_decay=0.99,
        energy_prefactor_limit=20.0,
        force_prefactor_limit=20.0,
        log_every=max(1, min(100, steps // 5)),
        validate_every=max(1, steps // 10),
        seed=seed,
        device=device,
        virial_prefactor_start=0.02 if system.virial else 0.0,
        virial_prefactor_limit=0.5 if system.virial else 0.0,
    )


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
        final_steps=2 * args.student_steps,
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
        lines_of = [(system.folder, record["share"], ours)]
        if system.paper:
            lines_of.append(("  paper", system.paper_share, [system.paper[c] for c in COLUMNS]))
        for label, share, rows in lines_of:
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
        args.teacher_steps, args.student_steps, args.full_steps = 10, 20, 20
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
