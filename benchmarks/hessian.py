"""CPU time of an exact Hessian beside central differences of the forces, both in float64, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/hessian.py

Water: 51 and 999 atoms as clusters, 192 periodic. CPU time, so that other jobs on the machine matter less. Of
models with message passing beyond 51 atoms six rows are computed and their time is scaled to all; of the
differences always a few evaluations (the smallest of five). Writes results/hessian.json and the table of
docs/speed.md.
"""

import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from ase import Atoms
from common import machine, parser_for, put_table, save, structures

MODELS = {"default": "H2O-PBE0TS", "student-water": None}
SIZES = (51, 192, 999)
STEP = 0.01  # Å, of the differences


def water(n_atoms: int) -> Atoms:
    """The box of 192 atoms, or the molecules nearest to the middle of a larger one."""
    box = structures()["water 192"]
    if n_atoms == len(box):
        return box
    large = box.repeat(2)
    oxygens = np.flatnonzero(large.numbers == 8)
    middle = large.cell.sum(axis=0) / 2
    near = oxygens[np.linalg.norm(large.positions[oxygens] - middle, axis=1).argsort()][: n_atoms // 3]
    cluster = Atoms()
    for oxygen in near:
        vectors = large.get_distances(oxygen, np.arange(len(large)), mic=True, vector=True)
        hydrogens = np.where(large.numbers == 1, np.linalg.norm(vectors, axis=1), np.inf).argsort()[:2]
        places = [large.positions[oxygen] + v for v in (np.zeros(3), *vectors[hydrogens])]
        cluster += Atoms("OH2", places)
    return cluster


def cpu(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def measure(model: str, n_atoms: int) -> dict[str, Any]:
    """One model on one structure."""
    from dpa2calc import DPA2Calculator

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    atoms = water(n_atoms)
    calc = DPA2Calculator(model, MODELS[model], dtype="float64", device="cpu")
    calc.get_hessian(atoms[:3], indices=[0])  # compiles
    moved = atoms.copy()
    moved.calc = calc

    def force(atom: int, axis: int, step: float) -> np.ndarray:
        moved.positions[:] = atoms.positions
        moved.positions[atom, axis] += step
        return moved.get_forces()

    force(0, 0, 0.0)
    evaluation = min(cpu(lambda atom=atom: force(atom, 1, STEP)) for atom in range(1, 6))
    whole = n_atoms < 100 or not calc._members[0].potential.descriptor.message_passing
    if whole:
        exact = cpu(lambda: calc.get_hessian(atoms))
    else:
        one, three = (cpu(lambda m=m: calc.get_hessian(atoms, indices=np.arange(m))) for m in (1, 3))
        exact = one + (three - one) / 2 * (n_atoms - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    row = calc.get_hessian(atoms, indices=[0])[0]
    differences = (force(0, 0, -STEP) - force(0, 0, STEP)).ravel() / (2 * STEP)
    return {
        "model": model,
        "atoms": n_atoms,
        "exact_s": round(exact, 2),
        "scaled_from_rows": None if whole else 6,
        "differences_s": round(6 * n_atoms * evaluation, 2),
        "evaluation_s": round(evaluation, 4),
        "peak_mb": round(peak),
        "error_of_differences": float(abs(row - differences).max()),
    }


def write_table(rows: list[dict[str, Any]]) -> None:
    """The table in docs/speed.md."""
    lines = [
        "| model | atoms | exact, s | differences, s | ratio | peak MB | error of the differences, eV/Å² |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        mark = "" if r["scaled_from_rows"] is None else " *"
        lines.append(
            f"| `{r['model']}` | {r['atoms']} | {r['exact_s']:.3g}{mark} | {r['differences_s']:.3g} | "
            f"{r['differences_s'] / r['exact_s']:.1f} | {r['peak_mb']} | {r['error_of_differences']:.0e} |"
        )
    put_table("docs/speed.md", "Hessians", lines)


def main() -> None:
    """Run all cases, each in a process of its own."""
    parser = parser_for(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    args = parser.parse_args()
    rows = []
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for model in MODELS:
            for n_atoms in args.sizes:
                rows.append(pool.apply(measure, (model, n_atoms)))
                print(rows[-1], flush=True)
    if tuple(args.sizes) == SIZES:
        save("hessian", {"machine": machine(), "rows": rows})
        write_table(rows)


if __name__ == "__main__":
    main()
