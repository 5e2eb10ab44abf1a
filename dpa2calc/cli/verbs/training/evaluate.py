"""`dpa2calc evaluate STRUCTURES`: energies, forces, stresses, and errors where the file has labels."""

from __future__ import annotations

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpa2calc.cli.arguments.output import check_files
from dpa2calc.cli.arguments.structures import add_calculator_arguments, make_calculator
from dpa2calc.cli.arguments.training import add_label_arguments, label_names
from dpa2calc.cli.arguments.written import write_values
from dpa2calc.errors import ConfigError, DataError
from dpa2calc.files.patterns import expanded

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator

    from dpa2calc.labels.errors import LabelErrors
    from dpa2calc.training.data.frame import Frame

Results = dict[str, Any]  # of one structure, as the calculator names them

EXAMPLE = """example:
  dpa2calc evaluate test.extxyz --head H2O-PBE0TS                # a line per structure, errors at the end
  dpa2calc evaluate POSCAR --model model.pt --head metal -o out.extxyz    # energy, forces, stress into a file
  dpa2calc evaluate a.cif b.cif --model student.pt --committee other.pt -o out.json  # with deviations
"""

TABLE = "a row a structure"
UNITS = {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å^3, order xx yy zz yz xz xy"}
FIELDS = ", ".join(f"{name} {unit}" for name, unit in UNITS.items())
KINDS = ("energy", "forces", "stress")  # of labels that errors are shown of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add(
        "structures",
        nargs="+",
        metavar="STRUCTURES",
        help="files and folders that training reads; all frames",
    )
    add("--index", default=":", help="which frames of each file, as in ASE, all by default")
    add("-o", "--output", metavar="FILE", help="write results to .extxyz or .json")
    add("--batch-atoms", type=int, default=1024, help="atoms computed together ")
    add("--quiet", action="store_true", help="no line for each structure")
    add_label_arguments(parser)
    add_calculator_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, and write what was asked for."""
    from dpa2calc.training.data.readers.converged import read_for_labels

    if args.output and Path(args.output).suffix not in (".extxyz", ".xyz", ".json"):
        raise ConfigError(f"-o {args.output}: the ending must be .extxyz, .xyz or .json")
    check_files(args.output)
    files = [str(f) for path in args.structures for f in expanded(path, Path()) or [path]]
    read = [(path, atoms) for path in files for atoms in read_for_labels(path, args.index)]
    structures = [atoms for _, atoms in read]
    calc = make_calculator(args, structures)
    labels = read_labels(structures, args)
    results = evaluate(calc, structures, args.batch_atoms)
    if not args.quiet:
        print_table(structures, results)
    errors = print_errors(labels, results)
    _write(args, [path for path, _ in read], structures, results, errors, calc)
    if args.output:
        path = Path(args.output)
        if path.suffix == ".json":
            write_json(path, args, structures, results, errors, calc)
        else:
            write_extxyz(path, structures, results, labels)
        print(f"wrote {path}", file=sys.stderr)
    return 0


def print_errors(labels: list[Frame], results: list[Results]) -> LabelErrors | None:
    """A table of errors, and a line where the error of energies or of forces is that of a few frames."""
    from ase.stress import voigt_6_to_full_3x3_stress

    from dpa2calc.labels.errors import Differences, LabelErrors, Prediction
    from dpa2calc.training.data.checks.outliers import UNITS as OF_ERRORS
    from dpa2calc.training.data.checks.outliers import frames_with_most_error
    from dpa2calc.training.data.dataset import Dataset
    from dpa2calc.training.data.element_energies import energy_spread

    differences = []
    for label, result in zip(labels, results):
        whole = "stress" in result and label.stress is not None
        virial = -label.volume * voigt_6_to_full_3x3_stress(result["stress"]) if whole else None
        made = Prediction(result["energy"], result["forces"], virial)
        differences.append(Differences.of(label, made, label.n_atoms))
    errors = LabelErrors.of(
        differences,
        [label.volume for label in labels],
        energy_spread=energy_spread(Dataset(tuple(labels))),
        forces=[label.forces for label in labels if label.forces is not None],
    )
    if errors is None:
        return None
    print(errors.summary())
    few = frames_with_most_error(differences, lambda i: f"#{i} {labels[i].atoms().get_chemical_formula()}")
    for quantity, found in few.items():
        print(found.describe(quantity, OF_ERRORS[quantity]))
    return errors


def read_labels(structures: list[Atoms], args: argparse.Namespace) -> list[Frame]:
    """The structures with their labels; what looks like labels under other names is named on stderr.

    Raises:
        DataError: no frame has a label of a name that was given.
    """
    from dpa2calc.labels.names import LabelKeys, advice, unread_labels
    from dpa2calc.training.data.frame import frame_from_atoms

    named = label_names(args)
    keys = LabelKeys(**named)
    labels = [
        frame_from_atoms(atoms, keys=keys, source=f"structure {number} ({atoms.get_chemical_formula()})")
        for number, atoms in enumerate(structures)
    ]
    lacking = [kind for kind in KINDS if all(kind in one.lacking for one in labels)]
    others = unread_labels(structures[0], keys, lacking)
    found = advice(chain(*others.values()))
    for kind in (*lacking, *(["virial"] if "stress" in lacking else [])):
        if named.get(kind):
            raise DataError(f"no frame has a label {named[kind]!r} (--{kind}-key); {found}")
    if others:
        print(f"no errors of {', '.join(others)} are shown, no frame has any; {found}", file=sys.stderr)
    return labels


def evaluate(calc: Calculator, structures: list[Atoms], batch_atoms: int) -> list[Results]:
    """Batched where the calculator can (ours), else one by one."""
    from dpa2calc.engine.dense import has_stress

    progress = len(structures) > 1
    if hasattr(calc, "evaluate"):
        return calc.evaluate(structures, batch_atoms=batch_atoms, progress=progress)
    out = []
    for atoms in structures:
        copy = atoms.copy()
        copy.set_constraint()  # forces on fixed atoms are not zero
        copy.calc = calc
        forces = copy.get_forces()
        out.append({"energy": copy.get_potential_energy(), "forces": forces})
        if has_stress(atoms) and "stress" in calc.implemented_properties:
            out[-1]["stress"] = copy.get_stress()
    return out


def _write(
    args: argparse.Namespace,
    files: list[str],
    structures: list[Atoms],
    results: list[Results],
    errors: LabelErrors | None,
    calc: Calculator,
) -> None:
    """For scripts: all results, and a row a structure."""
    import numpy as np
    from ase.units import GPa

    from dpa2calc.files.results import provenance

    values = [
        {"file": file, "formula": atoms.get_chemical_formula(), "symbols": list(atoms.symbols), **result}
        for file, atoms, result in zip(files, structures, results)
    ]
    table: dict[str, list[Any]] = {
        "file": files,
        "formula": [value["formula"] for value in values],
        "n_atoms": [len(atoms) for atoms in structures],
        "energy_eV": [r["energy"] for r in results],
        "max_force_eV_per_A": [np.linalg.norm(r["forces"], axis=1).max() for r in results],
        "pressure_GPa": [-np.mean(r["stress"][:3]) / GPa if "stress" in r else None for r in results],
        "energy_std_eV": [r.get("energy_std") for r in results],
    }
    told = ("evaluate", f"structures: {FIELDS}. errors: against labels, prediction minus label")
    made_by = provenance(calc)
    write_values(args, told, {"structures": values, "errors": errors}, table, made_by=made_by)


def print_table(structures: list[Atoms], results: list[Results]) -> None:
    """One line per structure: number, formula, atoms, energy, largest force, pressure, spread."""
    import numpy as np
    from ase.units import GPa

    doubt = "energy_std" in results[0]
    committee = doubt and "forces_std" in results[0]
    head = f"{'#':>5}  {'formula':<20} {'atoms':>6} {'E (eV)':>16} {'E/atom (eV)':>13}"
    print(
        f"{head} {'max|F| (eV/Å)':>14} {'P (GPa)':>9}"
        + ("  std E (eV)" if doubt else "")
        + ("  max std F" if committee else "")
    )
    for number, (atoms, r) in enumerate(zip(structures, results)):
        force = np.linalg.norm(r["forces"], axis=1).max()
        pressure = f"{-np.mean(r['stress'][:3]) / GPa:9.3f}" if "stress" in r else f"{'-':>9}"
        line = (
            f"{number:5d}  {atoms.get_chemical_formula():<20.20} {len(atoms):6d} {r['energy']:16.6f} "
            f"{r['energy'] / len(atoms):13.6f} {force:14.5f} {pressure}"
        )
        if doubt:
            line += f"  {r['energy_std']:10.5f}"
        if committee:
            line += f"  {np.linalg.norm(r['forces_std'], axis=1).max():9.5f}"
        print(line)


def write_extxyz(path: Path, structures: list[Atoms], results: list[Results], labels: list[Frame]) -> None:
    """Structures with our energy, forces, stress; labels of the input become ref_energy and so on."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.stress import full_3x3_to_voigt_6_stress

    from dpa2calc.files.structures import write_structures
    from dpa2calc.labels.names import drop_labels

    frames = []
    for atoms, result, label in zip(structures, results, labels):
        frame = atoms.copy()
        drop_labels(frame, "energy", "forces", *(("stress", "virial") if "stress" in result else ()))
        known = ("energy", "free_energy", "energies", "forces", "stress", "stresses")
        frame.calc = SinglePointCalculator(frame, **{k: v for k, v in result.items() if k in known})
        if "energy_std" in result:
            frame.info["energy_std"] = result["energy_std"]
        for name in ("energies_std", "forces_std"):
            if name in result:
                frame.arrays[name] = result[name]
        if label.energy is not None:
            frame.info["ref_energy"] = label.energy
        if label.forces is not None:
            frame.arrays["ref_forces"] = label.forces
        if label.stress is not None:
            frame.info["ref_stress"] = full_3x3_to_voigt_6_stress(label.stress)
        frames.append(frame)
    write_structures(path, frames, kind="extxyz")


def write_json(
    path: Path,
    args: argparse.Namespace,
    structures: list[Atoms],
    results: list[Results],
    errors: LabelErrors | None,
    calc: Calculator,
) -> None:
    """Everything as plain numbers, eV and Å."""
    import numpy as np

    from dpa2calc.files import atomic
    from dpa2calc.files.results import provenance
    from dpa2calc.files.typed import to_dict
    from dpa2calc.version import __version__

    document = {
        "dpa2calc": __version__,
        "model": args.model,
        "head": getattr(calc, "head", None),
        "dtype": args.dtype,
        "units": UNITS,
        "errors": to_dict(errors),
        "structures": [
            {
                "formula": atoms.get_chemical_formula(),
                "symbols": list(atoms.symbols),
                **{k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in result.items()},
            }
            for atoms, result in zip(structures, results)
        ],
        "provenance": {**provenance(calc), "command": args.command},
    }
    atomic.write_json(path, document)
