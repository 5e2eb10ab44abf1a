"""Cu, Ni, Mo, Si and Ge beside experiment and DFT: lattice constant, elastic constants, phonons, defects.

    python examples/metals_and_semiconductors.py                        # all, with the default model
    python examples/metals_and_semiconductors.py --head Cu-mlearn --elements Cu
    python examples/metals_and_semiconductors.py --calculator emt --elements Cu Ni --quick   # no weights

Writes table.md, table.json, and results and figures by element into --out. Work that is finished is kept
there, so an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.build import bulk

from dpa2calc.applications.elastic import elastic_constants
from dpa2calc.applications.eos import equation_of_state
from dpa2calc.applications.phonons import phonons
from dpa2calc.applications.result import Result
from dpa2calc.applications.surface import surface_energy
from dpa2calc.applications.vacancy import vacancy_formation_energy
from dpa2calc.cli.common import add_calculator_arguments, make_calculator, save_figure

# `a` and `C..` are experiment at room temperature. Lattice constants and C_ij of Cu and Ni: C. Kittel,
# Introduction to Solid State Physics, 8th edition, chapters 1 and 3; C_ij of Si and Ge: McSkimin and
# Andreatch, J. Appl. Phys. 35, 2161 (1964) and 34, 651 (1963). `a (DFT)` is the unstrained cell of the PBE
# training set (mlearn). A potential gives its functional's values at 0 K, so 1 % in a and 10 % in C_ij
# from experiment are no error of the potential.
KNOWN: dict[str, dict[str, Any]] = {
    "Cu": {"lattice": "fcc", "a": 3.61, "a (DFT)": 3.616, "C11": 168.4, "C12": 121.4, "C44": 75.4},
    "Ni": {"lattice": "fcc", "a": 3.52, "a (DFT)": 3.508, "C11": 250.8, "C12": 150.0, "C44": 123.5},
    "Mo": {"lattice": "bcc", "a": 3.15, "a (DFT)": 3.168},
    "Si": {"lattice": "diamond", "a": 5.43, "a (DFT)": 5.469, "C11": 165.6, "C12": 63.9, "C44": 79.5},
    "Ge": {"lattice": "diamond", "a": 5.658, "a (DFT)": 5.754, "C11": 128.5, "C12": 48.3, "C44": 66.8},
}
ATOMS_PER_CUBE = {"fcc": 4, "bcc": 2, "diamond": 8}
FACES = {"fcc": (1, 1, 1), "bcc": (1, 1, 0), "diamond": (1, 1, 1)}


def crystal(element: str, calculator: Any) -> Atoms:
    """The primitive cell at the experimental lattice constant."""
    atoms = bulk(element, KNOWN[element]["lattice"], a=KNOWN[element]["a"])
    atoms.calc = calculator
    return atoms


def study(element: str, calculator: Any, out: Path, *, quick: bool) -> dict[str, float]:
    """All properties of one element; figures and results go into out/ELEMENT."""
    folder, lattice = out / element, KNOWN[element]["lattice"]
    folder.mkdir(parents=True, exist_ok=True)
    atoms, work = crystal(element, calculator), folder / "work"
    curve = equation_of_state(atoms, folder=work)
    elastic = elastic_constants(atoms, folder=work)
    waves = phonons(atoms, relax="cell", min_length=8.0 if quick else 14.0, folder=work)
    lengths = (8.0, 10.5) if quick else (8.0, 11.0, 14.0)
    vacancy = vacancy_formation_energy(atoms, min_lengths=lengths, fmax=0.01 if quick else 1e-3, folder=work)
    face = surface_energy(atoms, FACES[lattice], folder=work)
    results: dict[str, Result] = {
        "eos": curve, "elastic": elastic, "phonons": waves, "vacancy": vacancy, "surface": face
    }  # fmt: skip
    for name, result in results.items():
        result.save(folder / f"{name}.npz")
        save_figure(result, folder / f"{name}.png")
        print(result.summary(), flush=True)
    return {
        "a": (curve.volume / curve.n_atoms * ATOMS_PER_CUBE[lattice]) ** (1 / 3),
        "B": curve.bulk_modulus,
        **{name: value for name, (value, _) in elastic.constants.items()},
        "highest phonon (THz)": float(waves.mesh_frequencies.max()),
        "lowest phonon (THz)": waves.lowest_frequency,
        "vacancy (eV)": vacancy.energy,
        f"surface {FACES[lattice]} (J/m²)": face.energy,
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """A Markdown table: each element's numbers, with experiment in brackets where it is listed above."""
    names = list(dict.fromkeys(name for values in rows.values() for name in values))
    lines = ["| | " + " | ".join(names) + " | a (DFT) |", "|---" * (len(names) + 2) + "|"]
    for element, values in rows.items():
        known = dict(KNOWN[element])
        if "C11" in known:
            known["B"] = (known["C11"] + 2 * known["C12"]) / 3
        cells = []
        for name in names:
            number = f"{values[name]:.4g}" if name in values else ""
            cells.append(number + (f" ({known[name]:.4g})" if name in known else ""))
        lines.append(f"| {element} | " + " | ".join(cells) + f" | {known['a (DFT)']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the options, study each element, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_calculator_arguments(parser)
    parser.add_argument("--elements", nargs="+", choices=sorted(KNOWN), default=list(KNOWN))
    parser.add_argument("--quick", action="store_true", help="small supercells, minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/metals_and_semiconductors"))
    parser.set_defaults(dtype="float64")
    args = parser.parse_args()
    rows = {}
    for element in args.elements:
        rows[element] = study(element, make_calculator(args), args.out, quick=args.quick)
        (args.out / "table.json").write_text(json.dumps(rows, indent=1))
        (args.out / "table.md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
