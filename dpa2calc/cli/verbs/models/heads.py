"""`dpa2calc heads STRUCTURE`: which heads of a model suit a structure."""

from __future__ import annotations

import argparse
import dataclasses

from dpa2calc.cli.arguments.structures import add_structure_argument, read_structure
from dpa2calc.cli.arguments.written import write_values
from dpa2calc.cli.words import printable

EXAMPLE = """example:
  dpa2calc heads POSCAR                                # of the model inside the package
  dpa2calc heads water.extxyz --index 0 --model model.safetensors
"""
DESCRIPTION = (
    "List the heads that saw all elements of a structure in training, the one that knows it best first (by "
    "the verdict, then by the deviation of its energy): how far its least known atom is beyond the training "
    "set's range, the head's force error, and a verdict. A head whose error is above 30 % of the forces on "
    "its own test frames is a start for fine-tuning, whatever the structure."
)
TABLE = "a row a head"
_COLUMNS = {
    "energy_std": "energy_std_eV",
    "force_error": "force_error_eV_per_A",
    "typical_force": "typical_force_eV_per_A",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add_structure_argument(parser)
    parser.add_argument("--model", default="default", help="a name or a checkpoint file (default: default)")


def run(args: argparse.Namespace) -> int:
    """Print a table."""
    atoms = read_structure(args)
    from dpa2calc.engine.head_ranking import HeadFit, rank_heads
    from dpa2calc.store.load import load_model

    fits = rank_heads(load_model(args.model).use("inference"), atoms)
    columns = {f.name: [getattr(fit, f.name) for fit in fits] for f in dataclasses.fields(HeadFit)}
    columns["verdict"] = [fit.verdict for fit in fits]
    heads = [dict(zip(columns, row)) for row in zip(*columns.values())]
    write_values(
        args, HeadFit, {"heads": heads}, {_COLUMNS.get(name, name): c for name, c in columns.items()}
    )
    rows = [("head", "functional", "range", "F error", "of |F|", "verdict")]
    for fit in fits:
        error, typical = fit.force_error, fit.typical_force
        beyond = "-" if fit.beyond is None else f"{fit.beyond:.2f}"
        share = f"{error / typical:.0%}" if error is not None and typical else "-"
        shown = "-" if error is None else f"{1e3 * error:.0f}"
        rows.append((fit.head, fit.functional or "not stated", beyond, shown, share, fit.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    notes = ["", *(fit.description for fit in fits)]
    for row, note in zip(rows, notes):
        cells = [cell.ljust(w) if n < 2 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths))]
        print(printable("  ".join([*cells, row[5]])))
        if note:
            print(printable(f"  {note}"))
    print(
        "range: deviation of the least known atom over the usual largest of its element in the training set; "
        "F error in meV/Å, and as a share of the typical force there"
    )
    return 0
