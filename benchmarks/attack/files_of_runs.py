"""Damage the files that applications resume from, at random, and count what becomes of the same call.

    python benchmarks/attack/files_of_runs.py --damages 2500

Each call must end in the package's own error, or give the numbers of undamaged files; an error of Python,
or other numbers, is a fault (and makes the exit status 1). The calculator is a harmonic well.
"""

import argparse
import collections
import random
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from dpa2calc.applications import MDResult, relax, run_md
from dpa2calc.applications.shared.cached import evaluate
from dpa2calc.errors import DPA2CalcError

Case = tuple[Path, str, Callable[[Path], Any], Callable[[Any], bool]]  # folder, file, call, is it right


class Well(Calculator):
    """Atoms in harmonic wells about the origin."""

    implemented_properties = ["energy", "forces"]

    def calculate(
        self, atoms: Any = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Energy (eV) and forces (eV/Å) of |x|²/2."""
        super().calculate(atoms, properties, system_changes)
        x = self.atoms.positions
        self.results = {"energy": 0.5 * float((x**2).sum()), "forces": -x}


def start() -> Atoms:
    """Three atoms away from the origin."""
    atoms = Atoms("Ar3", positions=[[0, 0, 0], [3, 0, 0], [0, 3.5, 0]], cell=[9, 9, 9], pbc=True)
    atoms.calc = Well()
    return atoms


def dynamics(folder: Path, suffix: str, steps: int = 12) -> MDResult:
    """A short run with all its files."""
    return run_md(
        start(), steps=steps, temperature=20, sync_interval=4, log_interval=2, trajectory_interval=3,
        trajectory=folder / f"md.{suffix}", log=folder / "md.csv", restart=folder / "md.npz", progress=False,
        lost_distance=None, force_limit=None, step_limit=None,
    )  # fmt: skip


def cases(place: Path) -> list[Case]:
    """Folders with good files, what is called in them again, and what must come out."""
    found: list[Case] = []
    for suffix in ("traj", "extxyz"):
        parts, whole, relaxed = (place / f"{name}-{suffix}" for name in ("parts", "whole", "relaxed"))
        for folder in (parts, whole, relaxed):
            folder.mkdir()
        stopped, reference = dynamics(parts, suffix, 8), dynamics(whole, suffix)
        for name in ("md.npz", "md.csv", f"md.{suffix}"):
            found.append((
                parts, name, lambda f, s=suffix: dynamics(f, s),
                lambda r, w=reference: np.array_equal(r.positions, w.positions)
                and np.array_equal(r.total_energy, w.total_energy),
            ))  # fmt: skip

        def again(folder: Path, fmax: float = 0.01, suffix: str = suffix) -> Any:
            return relax(start(), fmax=fmax, trajectory=folder / f"relax.{suffix}", progress=False)

        again(relaxed, fmax=1.0)
        found.append((relaxed, f"relax.{suffix}", again, lambda r: r.converged and abs(r.energy) < 1e-3))
    folder = place / "kept"

    def kept(f: Path) -> Any:
        return evaluate([start()], Well(), what="well", folder=f, progress=False)[0]

    good = kept(folder)
    (stored,) = (path.name for path in folder.glob("*.npz"))
    for name in (stored, "calculator.json"):
        found.append((folder, name, kept, lambda r: np.array_equal(r.forces, good.forces)))
    stopped.save(folder / "result.npz")
    found.append((
        folder, "result.npz", lambda f: MDResult.load(f / "result.npz"),
        lambda r: np.array_equal(r.positions, stopped.positions),
    ))  # fmt: skip
    return found


def damaged(content: bytes, rng: random.Random) -> bytes:
    """The bytes with some flipped, cut off, set to zero, put in or doubled."""
    changed, k = bytearray(content), rng.randrange(len(content))
    how = rng.choice(("flip", "cut", "zero", "insert", "double"))
    if how == "flip":
        for _ in range(rng.choice((1, 1, 3))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif how == "cut":
        del changed[k:]
    elif how == "zero":
        changed[k : k + rng.randrange(1, 60)] = bytes(rng.randrange(1, 60))
    elif how == "insert":
        changed[k:k] = rng.randbytes(rng.randrange(1, 20))
    else:
        changed[k:k] = changed[max(0, k - 50) : k]
    return bytes(changed)


def outcome(case: Case, rng: random.Random, place: Path) -> str:
    """Damage the file of a case in a copy of its folder, call again, and name what happened."""
    folder, name, call, right = case
    copy = place / "copy"
    shutil.copytree(folder, copy)
    try:
        (copy / name).write_bytes(damaged((copy / name).read_bytes(), rng))
        return "right" if right(call(copy)) else "OTHER NUMBERS"
    except DPA2CalcError:
        return "own error"
    except Exception as error:
        print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
        return "PYTHON'S ERROR"
    finally:
        shutil.rmtree(copy)


def main() -> int:
    """Print a table; 1 when there are faults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--damages", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    rng, counts = random.Random(args.seed), collections.Counter[tuple[str, str]]()
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        files = cases(place)
        for _ in range(args.damages):
            case = rng.choice(files)
            label = "kept forces" if len(case[1]) > 20 else case[1]
            counts[label, outcome(case, rng, place)] += 1
    for label in sorted({label for label, _ in counts}):
        print(
            f"{label:16s}",
            ", ".join(f"{n} {what}" for (of, what), n in sorted(counts.items()) if of == label),
        )
    return int(any(what.isupper() for _, what in counts))


if __name__ == "__main__":
    sys.exit(main())
