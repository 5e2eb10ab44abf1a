"""Which polar phase of PbTiO3 and PIN-PMN-PT is lowest at 0 K, and is a model exact enough to tell?

    python examples/perovskite_phases.py
    python examples/perovskite_phases.py --model default --head FerroEle --seeds 1
    python examples/perovskite_phases.py --quick

For each composition and arrangement of the B sites the ions are shifted along [001], [110] and [111], and
positions and cell are relaxed: tetragonal, orthorhombic and rhombohedral domains. Printed are their energies
(meV/atom) over that of [111], and along what the mean displacement of Pb points in the end. Differences
below the model's error on FerroEle's test frames (docs/students.md, docs/default_model.md) decide nothing:
the phase that `perovskite_transition.py` shows when cold then is a matter of chance.

Writes perovskite_phases.json and .png. A run that was stopped resumes with the same command.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from ase import Atoms
from paper.record import once, save_record
from paper.science import calculator, model_name, options, prepare, summarise
from perovskite_transition import SYSTEMS, System

from dpa2calc.applications import find_cages, perovskite, relax, solid_solution
from dpa2calc.applications.transitions.off_centre import direction_name

DIRECTIONS = {"[001]": (0, 0, 1), "[110]": (1, 1, 0), "[111]": (1, 1, 1)}
SHIFT = 0.25  # Å


def cell_of(system: System, ordering: str, seed: int, repeats: tuple[int, int, int], shift: Any) -> Atoms:
    """A supercell whose cations are shifted."""
    fractions = solid_solution(**system.parts, sites=int(np.prod(repeats)))
    build = {"repeats": repeats, "lattice_constant": system.lattice_constant, "seed": seed}
    return perovskite("Pb", fractions, ordering=ordering, polar_shift=shift, **build)


def relaxed(system: System, ordering: str, seed: int, direction: str, args: Any) -> dict[str, Any]:
    """Energy and mean displacement of Pb after relaxation."""
    repeats = (2, 2, 2) if args.quick else tuple(args.repeat)
    unit = np.array(DIRECTIONS[direction]) / np.linalg.norm(DIRECTIONS[direction])
    atoms = cell_of(system, ordering, seed, repeats, SHIFT * unit)
    cages = find_cages(cell_of(system, ordering, seed, repeats, 0.0), "Pb", "O", 12)
    atoms.calc = calculator(args)
    found = relax(
        atoms, relax="cell", fmax=args.fmax, max_steps=3 if args.quick else args.max_steps, progress=False
    )
    mean = cages.displacements(found.atoms()).mean(axis=0)
    lengths = found.atoms().cell.lengths() / np.array(repeats)
    return {
        "energy": found.energy / len(atoms),  # eV/atom
        "displacement": mean.tolist(),  # Å
        "points_to": direction_name(mean, found.cell, threshold=0.03),
        "lengths": lengths.tolist(),  # Å
        "angles": found.atoms().cell.angles().tolist(),  # degrees
        "converged": found.converged,
        "atoms": len(atoms),
    }


def line(name: str, found: dict[str, dict[str, Any]]) -> str:
    """A row of the table: energies over that of [111], and where the displacements point in the end."""
    parts = [f"{name:<34}{next(iter(found.values()))['atoms']:>6}"]
    for direction, one in found.items():
        above = 1000 * (one["energy"] - found["[111]"]["energy"])
        mark = "" if one["converged"] else " (not converged)"
        parts.append(f"{direction}: {above:+7.3f}  ends at {one['points_to']:<11}{mark}")
    return "  ".join(parts)


def draw(rows: dict[str, dict[str, dict[str, Any]]], title: str, path: Any) -> None:
    """Energies over that of [111] as bars."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 0.5 * len(rows) + 1.6), layout="constrained")
    for k, direction in enumerate(("[001]", "[110]")):
        values = [1000 * (found[direction]["energy"] - found["[111]"]["energy"]) for found in rows.values()]
        ax.barh(np.arange(len(rows)) + 0.35 * (k - 0.5), values, 0.33, label=direction)
    ax.set_yticks(np.arange(len(rows)), list(rows))
    ax.axvline(0, color="k", lw=0.8)
    ax.set_xlabel("energy over that of the [111] domain (meV/atom)")
    ax.invert_yaxis()
    ax.legend(frameon=False, title="domain along")
    ax.set_title(title, loc="left", fontsize=10)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def main() -> None:
    """Relax every domain, print the table."""
    parser = options(__doc__, model="student-perovskite", output="runs/perovskite_phases")
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), default=tuple(SYSTEMS))
    parser.add_argument("--repeat", type=int, nargs=3, default=(4, 4, 4), help="cells (default 4 4 4)")
    parser.add_argument("--seeds", type=int, default=3, help="arrangements of the B sites (default 3)")
    parser.add_argument("--fmax", type=float, default=0.01, help="eV/Å (default 0.01)")
    parser.add_argument("--max-steps", type=int, default=1500, help="of a relaxation (default 1500)")
    args = parser.parse_args()
    started = prepare(args)
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for key in args.systems:
        system = SYSTEMS[key]
        single = len(system.parts) == 1
        for ordering in ("random",) if single else ("random", "rocksalt"):
            for seed in range(1, 2 if single or args.quick else args.seeds + 1):
                name = system.title if single else f"{system.title} {ordering} {seed}"
                rows[name] = {
                    direction: once(
                        args.output / f"{name} {direction}.json".replace(" ", "-"),
                        partial(relaxed, system, ordering, seed, direction, args),
                    )
                    for direction in DIRECTIONS
                }
                print(line(name, rows[name]), flush=True)
    draw(rows, model_name(args), args.output / "perovskite_phases.png")
    record = summarise(args, {"systems": rows}, [])
    save_record(args.output / "perovskite_phases.json", record, started)
    print(f"figure {args.output / 'perovskite_phases.png'}")


if __name__ == "__main__":
    main()
