"""Attack on options: every option of every application and configuration gets values that make no sense.

    python benchmarks/attack/options.py
    python benchmarks/attack/options.py --only relax run_md

Right arguments are given for everything but one option. A call must end in the package's own error or get
as far as its first evaluation (the calculator stops it there); an error of Python is a fault and makes the
exit code 1. Nothing is computed, so that thousands of calls take a minute. Each target has a process of its
own, so that a crash or a call that does not end (two minutes a target) is a fault and not the end.
"""

from __future__ import annotations

import argparse
import collections
import inspect
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator

import dpa2calc.applications as applications
from dpa2calc import DPA2Calculator
from dpa2calc.errors import DPA2CalcError
from dpa2calc.training import DistillConfig, FinetuneConfig, MDCondition, TrainConfig

NONSENSE: tuple[Any, ...] = (
    *("a", "", "1", b"1", "\x00", "x" * 5000, None, True, object(), lambda x: x, int, Atoms()),
    *(0, 1, -1, 3, 1.5, -2.5, 1e300, 10**400, float("nan"), float("inf"), 1j, np.float32(0.5), np.int64(-7)),
    *([], [1], ["a"], [1, "a"], (0.0, -1.0), {}, {"a": 1}),
    *(np.array([1.0, np.nan]), np.zeros((0, 3)), np.array("x"), np.array([None])),
)


class Reached(Exception):
    """The options were taken: the calculator was asked."""


class Sentinel(Calculator):
    """Stops at its first evaluation."""

    implemented_properties = ["energy", "forces", "stress"]

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        raise Reached


def crystal() -> Atoms:
    """Two atoms of rock salt with the sentinel."""
    atoms = bulk("MgO", "rocksalt", a=4.2)
    atoms.calc = Sentinel()
    return atoms


def frames() -> list[Atoms]:
    """A short trajectory without results."""
    made = []
    for seed in range(12):
        atoms = bulk("MgO", "rocksalt", a=4.2, cubic=True)
        atoms.rattle(0.05, seed=seed)
        made.append(atoms)
    return made


RIGHT: dict[str, Callable[[], Any]] = {
    "atoms": crystal, "initial": crystal, "final": crystal, "trajectory": frames, "source": frames,
    "frames": frames,
    "species": lambda: "Mg", "pair": lambda: "Mg-O", "pairs": lambda: ["Mg-O"], "triplet": lambda: "O-Mg-O",
    "interval_fs": lambda: 1.0, "steps": lambda: 10, "temperatures": lambda: [100.0, 200.0, 300.0],
    "calculator": Sentinel, "structures": frames, "sets": lambda: {"a": frames()}, "element": lambda: "Mg",
    "miller": lambda: (1, 0, 0), "temperature": lambda: 300.0, "index": lambda: 0, "paths": frames,
}  # fmt: skip


def targets() -> dict[str, Callable[..., Any]]:
    """Everything that takes options, by name."""
    found: dict[str, Callable[..., Any]] = {
        name: getattr(applications, name)
        for name in applications.__all__
        if inspect.isfunction(getattr(applications, name))
    }
    found["MDConfig"] = applications.MDConfig
    for configuration in (TrainConfig, FinetuneConfig, DistillConfig, MDCondition):
        found[configuration.__name__] = configuration
    found["DPA2Calculator"] = DPA2Calculator
    return found


def calls(name: str, target: Callable[..., Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(option, value, all arguments) of each attack on one target."""
    parameters = inspect.signature(target).parameters.values()
    usual = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    base = {p.name: RIGHT[p.name] for p in usual if p.default is p.empty and p.name in RIGHT}
    if name == "DPA2Calculator":
        base = {"model": lambda: "student-water"}
    for parameter, value in itertools.product(usual, NONSENSE):
        arguments = {key: make() for key, make in base.items()}
        if any(p.name == "progress" for p in usual):
            arguments["progress"] = False
        yield parameter.name, value, {**arguments, parameter.name: value}


def attack(name: str, target: Callable[..., Any], counts: collections.Counter[str]) -> None:
    """Count what becomes of each call; print the faults."""
    for option, value, arguments in calls(name, target):
        try:
            target(**arguments)
            outcome = "accepted"
        except Reached:
            outcome = "reached the calculator"
        except DPA2CalcError:
            outcome = "refused"
        except TypeError as error:
            outcome = "refused" if "missing" in str(error) and "argument" in str(error) else f"RAW {error!r}"
        except Exception as error:  # whatever it is, it is not ours
            outcome = f"RAW {error!r}"
        if outcome.startswith("RAW"):
            print(f"{name}({option}={value!r:.60}): {outcome[4:140]}", flush=True)
            outcome = "raw"
        counts[outcome] += 1


def child(name: str) -> None:
    """Attack one target; the counts are the last line."""
    warnings.simplefilter("ignore")
    counts: collections.Counter[str] = collections.Counter()
    attack(name, targets()[name], counts)
    print(json.dumps(counts))


def in_a_process(name: str) -> collections.Counter[str]:
    """Attack one target in a process of its own; prints the faults, returns the counts."""
    command = [sys.executable, os.path.abspath(__file__), "--child", name]
    with tempfile.TemporaryDirectory() as where:
        try:
            done = subprocess.run(
                command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120
            )
            lines = done.stdout.splitlines()
            ended = f"ended with status {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired as error:
            lines = (error.stdout or b"").decode().splitlines()
            ended = "did not end in two minutes"
    if ended:
        print(*lines, f"{name} {ended}", sep="\n", flush=True)
        return collections.Counter({"crashed or hung": 1})
    for line in lines[:-1]:
        print(line, flush=True)
    return collections.Counter(json.loads(lines[-1]))


def main() -> None:
    """Attack, count, report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="names of functions and classes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return
    total: collections.Counter[str] = collections.Counter()
    for name in args.only or targets():
        total += in_a_process(name)
    print({"calls": sum(total.values()), **total})
    sys.exit(total["raw"] + total["crashed or hung"] > 0)


if __name__ == "__main__":
    main()
