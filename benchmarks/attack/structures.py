"""Attack on the calculator with random structures: nothing may be silently wrong.

    python benchmarks/attack/structures.py --number 2000 --seed 1
    python benchmarks/attack/structures.py --number 20000 --models student-water default

Each structure is evaluated by every model. What must hold: a result is finite or one of the package's errors;
the same atoms moved, wrapped, turned, permuted, doubled, or evaluated in a batch or by a calculator that has
seen others give the same numbers; forces are slopes of the energy (a part of the structures); the compiled
student agrees with its plain networks; atoms and global state stay as they are; and the process gets along
with 6 GB. Prints a line for each violation and a table of counts; the exit code is 1 if there was any. If the
process itself dies, the last line of `--trace` names the structure.
"""

import argparse
import json
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from random_structures import ELEMENTS, nonsense, odd, sensible

from dpa2calc import DPA2Calculator
from dpa2calc.errors import DPA2CalcError
from dpa2calc.model.config.presets import preset
from dpa2calc.model.potential import Potential
from dpa2calc.structures.distances import pair_vectors
from dpa2calc.structures.search import MAX_COORDINATE

Check = Callable[
    [DPA2Calculator, Atoms, dict[str, Any], np.random.Generator], Iterator[tuple[str, float, float]]
]


def models(names: list[str]) -> dict[str, DPA2Calculator]:
    """Calculators by name; a preset has random weights."""
    made = {}
    for name in names:
        kind, _, dtype = name.partition(":")
        options: dict[str, Any] = {"dtype": dtype or "float64"}
        if kind == "default":
            made[name] = DPA2Calculator(head="H2O-PBE0TS", **options)
        elif kind.endswith("-plain"):
            made[name] = DPA2Calculator(kind.removesuffix("-plain"), compress=False, **options)
        elif kind.startswith("student"):
            made[name] = DPA2Calculator(kind, **options)
        else:
            torch.manual_seed(0)
            made[name] = DPA2Calculator(Potential(preset(kind, ELEMENTS)), **options)
    return made


# -- what must hold ---------------------------------------------------------------------------------


def moved(
    calc: DPA2Calculator, atoms: Atoms, first: dict[str, Any], rng: np.random.Generator
) -> Iterator[Any]:
    """The same structure written in another way."""
    n = len(atoms)
    kind = rng.integers(5)
    other, expected = atoms.copy(), first
    if kind == 0:
        other.positions += rng.normal(scale=3.0, size=3)
        label = "moved"
    elif kind == 1:
        label = "whole cells"
        shifts = rng.integers(-3, 4, (n, 3)) * atoms.pbc
        other.positions += shifts @ atoms.cell.array
    elif kind == 2:
        label, order = "permuted", rng.permutation(n)
        other = atoms[order]
        expected = {**first, "forces": first["forces"][order], "energies": first["energies"][order]}
    elif kind == 3:
        label = "turned"
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        other.set_cell(atoms.cell.array @ turn)
        other.positions = atoms.positions @ turn
        expected = {**first, "forces": first["forces"] @ turn, "stress": None}
    else:
        label, axes = "doubled", np.flatnonzero(atoms.pbc)
        if not len(axes) or n > 60:
            return
        times = [1, 1, 1]
        times[int(rng.choice(axes))] = 2
        other = atoms.repeat(times)
        expected = {
            "energy": 2 * first["energy"], "forces": np.tile(first["forces"], (2, 1)),
            "energies": np.tile(first["energies"], 2), "stress": first.get("stress"),
        }  # fmt: skip
    got = evaluate(calc, other)
    far = max(float(np.abs(a.positions).max(initial=0)) for a in (atoms, other))
    if got is None:
        if far < MAX_COORDINATE:  # beyond it every structure is refused
            yield f"{label}: refused", 1.0, 0.0
        return
    yield from compare(label, expected, got, tolerance(calc, atoms), slack=1e-15 * far)


def batched(
    calc: DPA2Calculator, atoms: Atoms, first: dict[str, Any], rng: np.random.Generator
) -> Iterator[Any]:
    """In a batch with others, and in its own batch."""
    other = molecule("H2O")
    other.rattle(0.1, rng=rng)
    slack = 1e-15 * float(np.abs(atoms.positions).max(initial=0))
    found = calc.evaluate([other, atoms, other])[1]
    yield from compare("batch", first, found, tolerance(calc, atoms), slack=slack)


def slopes(
    calc: DPA2Calculator, atoms: Atoms, first: dict[str, Any], rng: np.random.Generator
) -> Iterator[Any]:
    """Central differences along one random direction."""
    if calc.parameters["dtype"] != "float64" or len(atoms) > 30:
        return
    if overlapping(atoms):
        return
    direction, h = rng.normal(size=(len(atoms), 3)), 1e-4
    energies = []
    for sign in (1, -1):
        other = atoms.copy()
        other.positions += sign * h * direction
        found = evaluate(calc, other)
        if found is None:
            return
        energies.append(found["energy"])
    slope, projected = (energies[0] - energies[1]) / (2 * h), -float(np.sum(first["forces"] * direction))
    far = float(np.abs(atoms.positions).max())
    yield "slope", abs(slope - projected), 1e-3 * (1 + abs(projected)) + 1e-9 * far


CHECKS: tuple[Check, ...] = (moved, batched, slopes)


def tolerance(calc: DPA2Calculator, atoms: Atoms) -> float:
    """Relative, of forces and energies; float32 resolves 1 % where atoms lie on top of each other."""
    if calc.parameters["dtype"] == "float64":
        return 1e-8
    return 2e-2 if overlapping(atoms) else 1e-3


def overlapping(atoms: Atoms) -> bool:
    """Whether two atoms are closer than 0.5 Å: too steep for a difference, and for float32."""
    return len(pair_vectors(atoms.positions, atoms.cell, atoms.pbc, 0.5, full=False)[0]) > 0


def compare(
    label: str, a: dict[str, Any], b: dict[str, Any], relative: float, slack: float = 0.0
) -> Iterator[Any]:
    """(what, difference, allowed) of energies, forces and stresses."""
    largest = float(np.abs(a["forces"]).max(initial=0.0))
    # Positions of 1e6 Å hold 1e-10 Å: the slope of the forces turns that into an error of its own.
    allowed = relative * (1.0 + largest) + 1e3 * slack * (1 + largest) ** 2
    yield f"{label}: forces", float(np.abs(a["forces"] - b["forces"]).max(initial=0.0)), allowed
    yield f"{label}: energy", abs(a["energy"] - b["energy"]), relative * (1 + abs(a["energy"])) + allowed
    if a.get("stress") is not None and b.get("stress") is not None:
        size = float(np.abs(a["stress"]).max())
        yield (
            f"{label}: stress",
            float(np.abs(a["stress"] - b["stress"]).max()),
            10 * relative * (1 + size) + allowed,
        )


def evaluate(calc: DPA2Calculator, atoms: Atoms) -> dict[str, Any] | None:
    """All results, or None where the package refuses the structure."""
    try:
        calc.calculate(atoms, ["energy"])
    except DPA2CalcError:
        return None
    return {key: np.copy(value) for key, value in calc.results.items()}


def attack(
    calc: DPA2Calculator, atoms: Atoms, rng: np.random.Generator, counts: Counter[str]
) -> Iterator[str]:
    """Violations by one structure, in words."""
    before, stamp = atoms.copy(), global_state()
    try:
        first = evaluate(calc, atoms)
        counts["refused" if first is None else "evaluated"] += 1
        if first is not None:
            for key, value in first.items():
                if not np.isfinite(value).all():
                    yield f"{key} is not finite"
                    return
            check = CHECKS[rng.integers(len(CHECKS))]
            for what, difference, allowed in check(calc, atoms, first, rng):
                if not difference <= allowed:
                    yield f"{what}: {difference:.3g} where {allowed:.3g} is allowed"
    except Exception as error:  # any error that is not the package's own is a violation
        yield f"raw {type(error).__name__}: {error}"[:120]
    if global_state() != stamp:
        yield "global state was changed"
    same = (before.positions, before.cell.array, before.pbc), (atoms.positions, atoms.cell.array, atoms.pbc)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*same)):
        yield "the atoms were changed"


def global_state() -> tuple[Any, ...]:
    """What a library must leave alone."""
    return (
        torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(),
        torch.random.get_rng_state().sum().item(), str(np.geterr()),
    )  # fmt: skip


def twins(calcs: dict[str, DPA2Calculator], atoms: Atoms) -> Iterator[str]:
    """The compiled student against its plain networks."""
    for name, calc in calcs.items():
        plain = calcs.get(name.replace(":", "-plain:") if ":" in name else f"{name}-plain")
        if plain is None:
            continue
        a, b = evaluate(plain, atoms), evaluate(calc, atoms)
        if a is None or b is None:
            continue
        for what, difference, allowed in compare(
            "compiled against plain", a, b, max(tolerance(calc, atoms), 1e-5)
        ):
            if not difference <= allowed:
                yield f"{name}: {what}: {difference:.3g} where {allowed:.3g} is allowed"


def main() -> None:
    """Attack, count, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--number", type=int, default=500, help="of structures, each for every model")
    parser.add_argument("--first", type=int, default=0, help="number of the first structure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", type=float, default=6.0, help="GB that the process may take")
    parser.add_argument("--trace", type=Path, help="file of the structure and model at work, and the counts")
    parser.add_argument(
        "--models", nargs="+",
        default=["default", "default:float32", "student-water", "student-water-plain", "dpa1", "deeppot-se",
                 "medium"],
        help="default, student-NAME, student-NAME-plain or a preset, each with :float32 or not",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="JSON of the counts")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (int(args.memory * 2**30),) * 2)
    calcs, counts = models(args.models), Counter[str]()
    started = time.time()
    for number in range(args.first, args.first + args.number):
        rng = np.random.default_rng([args.seed, number])
        atoms = (sensible, odd, nonsense)[rng.choice(3, p=[0.4, 0.4, 0.2])](rng)
        for name, calc in calcs.items():
            if args.trace:
                args.trace.write_text(
                    f"structure {number} of seed {args.seed}, {name}; so far {dict(counts)}\n"
                )
            said = list(attack(calc, atoms, rng, counts))
            counts["violations"] += bool(said)
            for text in said:
                print(f"seed {args.seed} structure {number} {name}: {text}", flush=True)
        for text in twins(calcs, atoms):
            counts["violations"] += 1
            print(f"seed {args.seed} structure {number} {text}", flush=True)
    asked = {"structures": args.number, "first": args.first, "models": args.models, "seed": args.seed}
    report = {**asked, **counts}
    print(json.dumps({**report, "seconds": round(time.time() - started)}))
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    sys.exit(counts["violations"] > 0)


if __name__ == "__main__":
    main()
