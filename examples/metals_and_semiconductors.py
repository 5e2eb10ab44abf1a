"""Cu, Ni, Mo, Si and Ge beside PBE and experiment: lattice, elastic constants, phonons, surface, vacancy.

    python examples/metals_and_semiconductors.py                         # all, with the model in the package
    python examples/metals_and_semiconductors.py --elements Cu --write docs/solids.md
    python examples/metals_and_semiconductors.py --calculator emt --elements Cu Ni --quick   # no weights

Writes metals_and_semiconductors.json and .png, table.md, and results and figures by element into --output;
--write FILE also puts the table between the marks in that page. Work that is finished is kept, so an
interrupted run resumes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from paper.record import save_record
from paper.science import Verdict, calculator, model_name, options, prepare, summarise

from dpa2calc.applications import (
    elastic_constants,
    equation_of_state,
    phonons,
    surface_energy,
    vacancy_formation_energy,
)
from dpa2calc.files.figures import save_figure
from dpa2calc.files.results import Result

# Experiment at room temperature. Lattice constants and C_ij of Cu and Ni: C. Kittel, Introduction to Solid
# State Physics, 8th edition, chapters 1 and 3; C_ij of Si and Ge: McSkimin and Andreatch, J. Appl. Phys. 35,
# 2161 (1964) and 34, 651 (1963). Highest phonons of Si and Ge: the Raman lines, 520.2 and 300.7 1/cm, Parker,
# Feldman and Ashkin, Phys. Rev. 155, 712 (1967).
EXPERIMENT: dict[str, dict[str, float]] = {
    "Cu": {"a": 3.61, "C11": 168.4, "C12": 121.4, "C44": 75.4},
    "Ni": {"a": 3.52, "C11": 250.8, "C12": 150.0, "C44": 123.5},
    "Mo": {"a": 3.15},
    "Si": {"a": 5.43, "C11": 165.6, "C12": 63.9, "C44": 79.5, "phonon": 15.60},
    "Ge": {"a": 5.658, "C11": 128.5, "C12": 48.3, "C44": 66.8, "phonon": 9.01},
}
# PBE, the training sets' own functional (mlearn_elastic.py): `a` is where the energies of their strained
# cells are least, C_ij is fitted to the stresses of these cells, good to 2 %. In diamond they strain clamped
# atoms: no C44.
# Vacancy and surface of Cu: Lysogorskiy et al., npj Comput. Mater. 7, 97 (2021), table 1.
PBE: dict[str, dict[str, float]] = {
    "Cu": {"a": 3.633, "C11": 173.8, "C12": 137.9, "C44": 83.9, "vacancy": 1.07, "surface": 1.36},
    "Ni": {"a": 3.520, "C11": 285.2, "C12": 166.5, "C44": 139.2},
    "Mo": {"a": 3.169, "C11": 478.3, "C12": 163.2, "C44": 106.5},
    "Si": {"a": 5.469, "C11": 152.7, "C12": 56.2},
    "Ge": {"a": 5.782, "C11": 107.4, "C12": 41.1},
}
RATIO_OF_PHONONS = 1.24  # Ni over Cu: Birgeneau, Cordes, Dolling and Woods, Phys. Rev. 136, A1359 (1964)
LATTICE = {"Cu": "fcc", "Ni": "fcc", "Mo": "bcc", "Si": "diamond", "Ge": "diamond"}
ATOMS_PER_CUBE = {"fcc": 4, "bcc": 2, "diamond": 8}
FACES = {"fcc": (1, 1, 1), "bcc": (1, 1, 0), "diamond": (1, 1, 1)}
COLUMNS = {
    "a": "a (Å)", "B": "B (GPa)", "C11": "C11 (GPa)", "C12": "C12 (GPa)", "C44": "C44 (GPa)",
    "phonon": "highest phonon (THz)", "vacancy": "vacancy (eV)", "surface": "surface (J/m²)",
}  # fmt: skip
MARKS = ("<!-- table of metals_and_semiconductors.py -->", "<!-- end of the table -->")


def known(source: dict[str, dict[str, float]], element: str) -> dict[str, float]:
    """Published values of an element, with B of a cubic crystal."""
    values = dict(source[element])
    if "C11" in values:
        values["B"] = (values["C11"] + 2 * values["C12"]) / 3
    return values


def study(element: str, calc: Any, out: Path, *, quick: bool) -> dict[str, Any]:
    """All properties of one element; figures and results go into out/ELEMENT."""
    folder, lattice = out / element, LATTICE[element]
    folder.mkdir(parents=True, exist_ok=True)
    atoms: Atoms = bulk(element, lattice, a=EXPERIMENT[element]["a"])
    atoms.calc = calc
    work = folder / "work"
    curve = equation_of_state(atoms, folder=work)
    elastic = elastic_constants(atoms, folder=work)
    waves = phonons(atoms, relax="cell", min_length=8.0 if quick else 14.0, folder=work)
    lengths = (6.0, 8.0) if quick else (8.0, 11.0, 14.0)
    vacancy = vacancy_formation_energy(atoms, min_lengths=lengths, fmax=0.02 if quick else 1e-3, folder=work)
    thick = (6.0, 9.0) if quick else (10.0, 15.0, 20.0)
    face = surface_energy(atoms, FACES[lattice], thicknesses=thick, folder=work)
    results: dict[str, Result] = {
        "eos": curve, "elastic": elastic, "phonons": waves, "vacancy": vacancy, "surface": face
    }  # fmt: skip
    for name, result in results.items():
        result.save(folder / f"{name}.npz")
        save_figure(folder / f"{name}.png", result.plot)
        print(result.summary(), flush=True)
    return {
        "a": (curve.volume / curve.n_atoms * ATOMS_PER_CUBE[lattice]) ** (1 / 3),
        "B": curve.bulk_modulus,
        **{name: value for name, (value, _) in elastic.constants.items()},
        "phonon": float(waves.mesh_frequencies.max()),
        "branch_maxima_THz": np.sort(waves.mesh_frequencies.max(axis=0)).tolist(),
        "lowest_phonon_THz": waves.lowest_frequency,
        "vacancy": vacancy.energy,
        "surface": face.energy,
        "face": list(FACES[lattice]),
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table: for each element this model, PBE, and experiment."""
    lines = ["| | | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for element, values in rows.items():
        sources = {"this model": values, "PBE": known(PBE, element), "experiment": known(EXPERIMENT, element)}
        for name, source in sources.items():
            cells = " | ".join(f"{source[key]:.4g}" if key in source else "" for key in COLUMNS)
            lines.append(f"| {element if name == 'this model' else ''} | {name} | {cells} |")
    return "\n".join(lines) + "\n"


def verdicts(rows: dict[str, dict[str, Any]]) -> list[Verdict]:
    """Lattice constants within 1 %, elastic constants within 15 % of PBE, phonons within 5 %, none soft."""
    found = []
    for element, values in rows.items():
        reference = known(PBE, element)
        for name, limit in (("a", 1.0), ("B", 15.0), ("C11", 15.0), ("C12", 15.0), ("C44", 15.0)):
            if name in reference:
                percent = 100 * (values[name] / reference[name] - 1)
                claim = f"{element}: {name} within {limit:g} % of PBE"
                found.append(Verdict(claim, f"{percent:+.1f} %", bool(abs(percent) <= limit)))
        highest = EXPERIMENT[element].get("phonon")
        if highest:
            percent = 100 * (values["phonon"] / highest - 1)
            claim = f"{element}: highest phonon within 5 % of the Raman line"
            found.append(Verdict(claim, f"{percent:+.1f} %", bool(abs(percent) <= 5)))
        lowest = values["lowest_phonon_THz"]
        found.append(
            Verdict(f"{element}: no imaginary phonon", f"lowest {lowest:.2f} THz", bool(lowest > -0.1))
        )
    if {"Cu", "Ni"} <= set(rows):
        ratio = rows["Ni"]["phonon"] / rows["Cu"]["phonon"]
        claim = f"highest phonon of Ni over that of Cu within 5 % of {RATIO_OF_PHONONS} (experiment)"
        found.append(Verdict(claim, f"{ratio:.3f}", bool(abs(ratio / RATIO_OF_PHONONS - 1) <= 0.05)))
    return found


def draw(rows: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Deviations from PBE in per cent, and the branch maxima of the phonons."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = ("a", "B", "C11", "C12", "C44")
    for k, (element, values) in enumerate(rows.items()):
        reference = known(PBE, element)
        shown = [100 * (values[n] / reference[n] - 1) if n in reference else np.nan for n in names]
        left.bar(np.arange(len(names)) + (k - (len(rows) - 1) / 2) * 0.16, shown, 0.15, label=element)
        maxima = values["branch_maxima_THz"]
        right.plot([k] * len(maxima), maxima, "_", ms=22, mew=2, color=f"C{k}")
        if "phonon" in EXPERIMENT[element]:
            right.plot(k, EXPERIMENT[element]["phonon"], "kx", ms=7)
    left.axhline(0, color="k", lw=0.8)
    left.set_xticks(range(len(names)), names)
    left.set(ylabel="deviation from PBE (%)", title=title)
    left.legend(frameon=False)
    right.plot([], [], "kx", label="Raman line (experiment)")
    right.set_xticks(range(len(rows)), rows)
    right.set(ylabel="maxima of the phonon branches (THz)", ylim=(0, None), xlim=(-0.6, len(rows) - 0.4))
    right.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def put_table(page: Path, text: str) -> None:
    """Replace what stands between the marks in a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise SystemExit(f"{page} has no lines {MARKS[0]} and {MARKS[1]}")
    temporary = page.with_name(page.name + ".part")
    temporary.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{after}", encoding="utf-8")
    os.replace(temporary, page)


def main() -> None:
    """Study each element, write the table, judge."""
    parser = options(__doc__, model="default", output="runs/metals_and_semiconductors")
    parser.add_argument("--elements", nargs="+", choices=tuple(PBE), default=tuple(PBE))
    parser.add_argument("--write", type=Path, metavar="FILE", help="page that shall hold the table")
    parser.set_defaults(dtype="float64", head="mlearn-PBE")
    args = parser.parse_args()
    started, rows, calc = prepare(args), {}, calculator(args)
    for element in args.elements:
        rows[element] = study(element, calc, args.output, quick=args.quick)
        (args.output / "table.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))
    draw(rows, model_name(args), args.output / "metals_and_semiconductors.png")
    data = {"rows": rows, "PBE": PBE, "experiment": EXPERIMENT}
    record = summarise(args, data, verdicts(rows))
    save_record(args.output / "metals_and_semiconductors.json", record, started)
    if args.write:
        put_table(args.write, table(rows))


if __name__ == "__main__":
    main()
