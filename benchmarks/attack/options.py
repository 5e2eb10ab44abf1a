"""Attack on options: every option of every application and configuration gets values that make no sense.

    python benchmarks/attack/options.py
    python benchmarks/attack/options.py --only relax run_md
    python benchmarks/attack/options.py --work

Right arguments are given for everything but one option. A call must end in the package's own error or get
as far as its first evaluation (the calculator stops it there); an error of Python is a fault and makes the
exit code 1. Nothing is computed, so that thousands of calls take a minute. With `--work` copper is computed
by ASE's EMT to the end, for at most five seconds a call, which finds options that are looked at too late: an
error that is not an evaluation's own must come before the first evaluation. Each target has a process of
its own with 4 GB, so that a crash or a call that does not end is a fault and not the end.
"""

import argparse
import collections
import copy
import functools
import inspect
import itertools
import json
import os
import resource
import signal
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
from ase.calculators.emt import EMT

import dpa2calc.applications as applications
from dpa2calc import DPA2Calculator
from dpa2calc.errors import ConfigError, DPA2CalcError
from dpa2calc.training import DistillConfig, FinetuneConfig, MDCondition, TrainConfig

NONSENSE: tuple[Any, ...] = (
    *("a", "", "1", b"1", "\x00", "x" * 5000, None, True, object(), lambda x: x, int, Atoms()),
    *(0, 1, -1, 3, 1.5, -2.5, 1e300, 10**400, float("nan"), float("inf"), 1j, np.float32(0.5), np.int64(-7)),
    *(1e-300, 1e9, 10**6, [10**6] * 3, [1e9] * 3, [1e-9] * 3, [3] * 100),
    *([], [1], ["a"], [1, "a"], (0.0, -1.0), {}, {"a": 1}),
    *(np.array([1.0, np.nan]), np.zeros((0, 3)), np.array("x"), np.array([None])),
)


WORK = "DPA2CALC_ATTACK_WORKS"  # set where a child is to compute
SECONDS = 5  # of a call that computes
QUICK: dict[str, dict[str, Any]] = {
    "phonons": {"min_length": 4.0, "mesh": 9.0},
    "phonon_convergence": {"min_lengths": [3.0, 4.0, 5.0]},
    "quasi_harmonic": {"min_length": 4.0, "mesh": 9.0},
    "elastic_constants": {"relax_ions": False},
    "vacancy_formation_energy": {"min_lengths": [5.0, 7.0]},
    "surface_energy": {"thicknesses": [4.0, 6.0]},
    "energy_conservation": {"timesteps_fs": [0.5, 1.0], "duration_fs": 100.0, "equilibration_fs": 2.0},
    "phase_transition": {"picoseconds": 0.02, "sample_interval": 2},
}
"""Options that make the work short."""


class Reached(Exception):
    """The options were taken: the calculator was asked."""


class Late(Exception):
    """The call took too long."""


class Sentinel(Calculator):
    """Stops at its first evaluation."""

    implemented_properties = ["energy", "forces", "stress"]

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        raise Reached


class Counting(EMT):  # type: ignore[misc]
    """EMT that knows whether it was asked."""

    asked = 0

    def calculate(self, *args: Any, **kwargs: Any) -> None:
        Counting.asked += 1
        super().calculate(*args, **kwargs)


def crystal() -> Atoms:
    """Two atoms of rock salt with the sentinel, or copper with a calculator that works."""
    if WORK in os.environ:
        copper = bulk("Cu", cubic=True)
        copper.rattle(0.02, seed=1)
        copper.calc = Counting()
        return copper
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


def _computes(name: str) -> bool:
    return any(p in ("atoms", "initial") for p in inspect.signature(targets()[name]).parameters)


def calls(name: str, target: Callable[..., Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """(option, value, all arguments) of each attack on one target."""
    parameters = inspect.signature(target).parameters.values()
    usual = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    base = {p.name: RIGHT[p.name] for p in usual if p.default is p.empty and p.name in RIGHT}
    if name == "DPA2Calculator":
        base = {"model": lambda: "student-water"}
    if WORK in os.environ:
        base |= {option: functools.partial(copy.copy, value) for option, value in QUICK.get(name, {}).items()}
    for parameter, value in itertools.product(usual, NONSENSE):
        arguments = {key: make() for key, make in base.items()}
        if any(p.name == "progress" for p in usual):
            arguments["progress"] = False
        yield parameter.name, value, {**arguments, parameter.name: value}


def attack(name: str, target: Callable[..., Any], counts: collections.Counter[str]) -> None:
    """Count what becomes of each call; print the faults."""
    for option, value, arguments in calls(name, target):
        Counting.asked = 0
        signal.alarm(SECONDS if WORK in os.environ else 0)
        try:
            target(**arguments)
            outcome = "accepted"
        except Reached:
            outcome = "reached the calculator"
        except Late:
            outcome = f"still at work after {SECONDS} s"
        except DPA2CalcError as error:
            late = isinstance(error, ConfigError) and Counting.asked
            outcome = f"RAW refused after {Counting.asked} evaluations: {error}" if late else "refused"
        except TypeError as error:
            outcome = "refused" if "missing" in str(error) and "argument" in str(error) else f"RAW {error!r}"
        except Exception as error:  # whatever it is, it is not ours
            outcome = f"RAW {error!r}"
        finally:
            signal.alarm(0)
        if outcome.startswith("RAW"):
            print(f"{name}({option}={value!r:.60}): {outcome[4:140]}", flush=True)
            outcome = "raw"
        counts[outcome] += 1


def _late(*args: Any) -> None:
    raise Late


def child(name: str) -> None:
    """Attack one target; the counts are the last line."""
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
    signal.signal(signal.SIGALRM, _late)
    counts: collections.Counter[str] = collections.Counter()
    attack(name, targets()[name], counts)
    print(json.dumps(counts))


def in_a_process(name: str) -> collections.Counter[str]:
    """Attack one target in a process of its own; prints the faults, returns the counts."""
    command = [sys.executable, os.path.abspath(__file__), "--child", name]
    with tempfile.TemporaryDirectory() as where:
        try:
            done = subprocess.run(
                command,
                cwd=where,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                timeout=1200,
            )
            lines = done.stdout.splitlines()
            ended = f"ended with status {done.returncode}" if done.returncode else ""
        except subprocess.TimeoutExpired as error:
            lines = (error.stdout or b"").decode().splitlines()
            ended = f"did not end in {error.timeout:.0f} s"
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
    parser.add_argument("--work", action="store_true", help="compute, where a calculator is needed")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        os.environ[WORK] = "1"
    if args.child:
        child(args.child)
        return
    total: collections.Counter[str] = collections.Counter()
    for name in args.only or (name for name in targets() if not args.work or _computes(name)):
        total += in_a_process(name)
    print({"calls": sum(total.values()), **total})
    sys.exit(total["raw"] + total["crashed or hung"] > 0)


if __name__ == "__main__":
    main()
