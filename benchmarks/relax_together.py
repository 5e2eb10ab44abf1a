"""CPU time of relaxing many small crystals: a loop of `relax` beside `screen`, which evaluates them together.

    OMP_NUM_THREADS=1 python benchmarks/relax_together.py

One process and one thread, to 0.05 eV/Å by BFGS. Rattled metals with the default model, PbTiO3 with a
tabulated student. Checks that both end at the same energies. Writes results/relax_together.json and the table
of docs/screening.md.
"""

import tempfile
import time
import warnings
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from common import machine, parser_for, put_table, save

from dpa2calc import DPA2Calculator
from dpa2calc.applications import perovskite, relax, screen
from dpa2calc.applications.screening import together

MODELS = {"default": "mlearn-PBE", "student-perovskite": None}
OF_ATOMS = 0.01  # eV for each eV/Å that may be left on an atom and each atom
CASES: dict[str, list[tuple[tuple[int, int, int], str, int]]] = {
    "default": [
        ((1, 1, 1), "positions", 16), ((2, 1, 1), "positions", 16), ((2, 2, 1), "positions", 12),
        ((2, 2, 2), "positions", 8), ((2, 1, 1), "cell", 8), ((2, 2, 4), "positions", 4),
    ],
    "student-perovskite": [
        ((2, 1, 1), "positions", 12), ((2, 2, 1), "positions", 12), ((2, 2, 2), "positions", 6),
    ],
}  # fmt: skip
"""Repeats of the cell, what is relaxed, number of structures."""


def crystals(model: str, repeats: tuple[int, int, int], number: int) -> list[Atoms]:
    """Rattled by 0.08 Å."""
    rng = np.random.default_rng(0)
    made = []
    for k in range(number):
        if model == "default":
            atoms = bulk(("Cu", "Ni")[k % 2], a=(3.6, 3.5)[k % 2], cubic=True) * repeats
        else:
            atoms = perovskite("Pb", "Ti", repeats=repeats, lattice_constant=3.95)
        atoms.rattle(0.08, rng=rng)
        made.append(atoms)
    return made


def measure(calc: DPA2Calculator, model: str, case: tuple[tuple[int, int, int], str, int]) -> dict[str, Any]:
    """CPU milliseconds a structure, both ways."""
    repeats, moves, number = case
    structures = crystals(model, repeats, number)
    options = {"fmax": 0.05, "relax": moves, "progress": False}
    begin = time.process_time()
    expected = []
    for atoms in structures:
        own = atoms.copy()
        own.calc = calc
        expected.append(relax(own, **options))
    loop = time.process_time() - begin
    with tempfile.TemporaryDirectory() as folder:
        begin = time.process_time()
        result = screen(structures, "relax", calculator=calc, output=f"{folder}/out.jsonl", **options)
        together = time.process_time() - begin
        found = {record["name"]: record["results"]["energy"] for record in result.records()}
    off = max(abs(found[f"structure {k}"] - one.energy) for k, one in enumerate(expected))
    assert off < OF_ATOMS * 0.05 * len(structures[0]), off
    return {
        "model": model,
        "atoms": len(structures[0]),
        "relaxed": moves,
        "structures": number,
        "steps": float(np.mean([one.n_steps for one in expected])),
        "loop_ms": round(1e3 * loop / number, 1),
        "together_ms": round(1e3 * together / number, 1),
        "energies_off_ev": off,
    }


def write_table(rows: list[dict[str, Any]]) -> None:
    """The table in docs/screening.md."""
    lines = [
        "| model | atoms | what moves | steps | loop, ms | together, ms | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        lines.append(
            f"| `{r['model']}` | {r['atoms']} | {r['relaxed']} | {r['steps']:.0f} | {r['loop_ms']:.3g} | "
            f"{r['together_ms']:.3g} | {r['loop_ms'] / r['together_ms']:.1f} |"
        )
    put_table("docs/screening.md", "relaxing together", lines)


def main() -> None:
    """All cases."""
    parser_for(__doc__).parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    together._MOST_WITH_TABLES = together._MOST_ATOMS  # `screen` does without where this does not pay
    rows = []
    for model, head in MODELS.items():
        calc = DPA2Calculator(model, head, device="cpu")
        warm = crystals(model, (1, 1, 1), 1)[0]
        calc.evaluate([warm])  # compiles
        warm.calc = calc
        warm.get_forces()
        for case in CASES[model]:
            rows.append(measure(calc, model, case))
            print(rows[-1], flush=True)
    save("relax_together", {"machine": machine(), "rows": rows})
    write_table(rows)


if __name__ == "__main__":
    main()
