"""Distil a student for PbTiO3 and PIN-PMN-PT alone, from the default model's FerroEle head (Figure 4d-e).

    python examples/perovskite_student.py DATA_FOLDER
    python examples/perovskite_transition.py        # with the one inside the package, student-perovskite
    python examples/perovskite_student.py DATA_FOLDER --quick

`student-ferroelectric` knows 14 elements, from a teacher that saw a tenth of the frames, and finds the
tetragonal, orthorhombic and rhombohedral domains of PbTiO3 equally deep. This student starts from the frames
of FerroEle that hold nothing but Pb, Ti, Mg, Nb, In and O, explores by NPT with a free cell, and is checked
by the depth of those domains beside its teacher's. Stop it at any time; the same command resumes.

Writes perovskite_student.json; the student is OUTPUT/distill/student.safetensors.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase.data import atomic_numbers
from paper.record import save_record
from paper.science import Verdict, calculator, options, prepare, summarise
from paper.student_systems import student_training, systems

from dpa2calc import DPA2Calculator
from dpa2calc.applications import perovskite, relax
from dpa2calc.training import Dataset, DistillResult, MDCondition, distill, evaluate, load_registered

ELEMENTS = ("O", "Mg", "Ti", "Nb", "In", "Pb")
DOMAINS = {"tetragonal": (0, 0, 1), "orthorhombic": (1, 1, 0), "rhombohedral": (1, 1, 1)}
CLOSE = 5.0  # meV a formula unit by which depths may differ from the teacher's


def lead_frames(name: str, part: Literal["train", "test"], root: Path) -> Dataset:
    """The frames of a set that hold no other elements."""
    data = load_registered(name, root, split=part)
    allowed = {atomic_numbers[symbol] for symbol in ELEMENTS}
    return data.subset([i for i, frame in enumerate(data) if allowed.issuperset(frame.numbers.tolist())])


def depths(calculator: Any) -> dict[str, float]:
    """Energies of domains of PbTiO3 over the cubic crystal, meV a formula unit; c/a of the tetragonal one."""
    found: dict[str, float] = {}
    energies = {}
    for domain, direction in {"cubic": (0, 0, 0), **DOMAINS}.items():
        shift = 0.3 * np.array(direction) / max(1.0, float(np.linalg.norm(direction)))
        atoms = perovskite("Pb", "Ti", lattice_constant=3.93, polar_shift=shift)
        atoms.calc = calculator
        result = relax(atoms, relax="cell", fmax=0.005, max_steps=400, progress=False)
        energies[domain] = result.energy
        if domain == "tetragonal":
            found["c/a"] = float(result.cell[2, 2] / result.cell[0, 0])
    return {domain: 1000 * (energies[domain] - energies["cubic"]) for domain in DOMAINS} | found


def taught(teacher: Any, frames: Dataset, test: Dataset, args: Any) -> DistillResult:
    """The student of `teacher`, explored by NPT with a free cell."""
    system = systems(args.quick, args.md_steps, args.rounds)["ferroelectric"]
    md = MDCondition(
        ensemble="npt",
        cell="cell",
        temperature=(100.0, 400.0, 800.0),
        timestep=2.0,
        steps=args.md_steps,
        sample_interval=5 if args.quick else 50,
        trajectories=1 if args.quick else 3,
    )
    return distill(
        teacher,
        frames,
        "dpa1-l0",
        md=md,
        train=student_training(args.student_steps, system, args.seed, "cpu"),
        config=dataclasses.replace(system.loop, frames_per_round=4 if args.quick else 90),
        later_steps=args.student_steps,
        final_steps=args.final_steps,
        name="student-perovskite",
        functional="PBEsol",
        seed=args.seed,
        test=test,
        output=args.output / "distill",
    )


def main() -> None:
    """Distil, then compare student and teacher."""
    parser = options(__doc__, model="default", output="runs/perovskite_student")
    parser.add_argument("data", type=Path)
    parser.add_argument("--student-steps", type=int, default=1500, help="of the first round (default 1500)")
    parser.add_argument("--final-steps", type=int, default=5000, help="of the last training (default 5000)")
    parser.add_argument("--md-steps", type=int, default=600, help="of a trajectory (default 600)")
    parser.add_argument("--rounds", type=int, default=2, help="at most (default 2)")
    parser.set_defaults(head="FerroEle")
    args = parser.parse_args()
    started = prepare(args)
    if args.quick:
        args.student_steps = args.final_steps = args.md_steps = 20
    teacher = calculator(args)
    frames = lead_frames("FerroEle", "train", args.data)
    test = lead_frames("FerroEle", "test", args.data)
    if args.quick:
        frames, test = frames.subset(range(4)), test.subset(range(2))
    result = taught(teacher, frames, test, args)
    print(result.summary(), flush=True)
    models = {
        "teacher": teacher,
        "student": DPA2Calculator(result.student),
        "student-ferroelectric": DPA2Calculator("student-ferroelectric"),
    }
    found = {name: depths(model) for name, model in models.items()}
    for name, numbers in found.items():
        print(f"{name:<24}" + "  ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
    errors = {name: evaluate(models[name], test).errors for name in ("teacher", "student")}
    data = {
        "domains_of_PbTiO3_meV_per_formula_unit": found,
        "test_frames": len(test),
        "test_errors": {name: error.to_dict() for name, error in errors.items()},
        "start_frames": len(frames),
    }
    record = summarise(args, data, verdicts(found))
    save_record(args.output / "perovskite_student.json", record, started)
    print(f"student {result.student}, {time.time() - started:.0f} s")


def verdicts(found: dict[str, dict[str, float]]) -> list[Verdict]:
    """Is the tetragonal domain the deepest, and is the student as deep as its teacher?"""
    out = []
    for name in ("teacher", "student"):
        lead = min(found[name][d] for d in DOMAINS if d != "tetragonal") - found[name]["tetragonal"]
        out.append(
            Verdict(f"{name}: tetragonal PbTiO3 is the lowest", f"by {lead:.1f} meV a formula unit", lead > 0)
        )
    gap = max(abs(found["student"][d] - found["teacher"][d]) for d in DOMAINS)
    out.append(
        Verdict(
            f"the student's domains are as deep as its teacher's within {CLOSE:g} meV",
            f"{gap:.1f}",
            gap <= CLOSE,
        )
    )
    return out


if __name__ == "__main__":
    main()
