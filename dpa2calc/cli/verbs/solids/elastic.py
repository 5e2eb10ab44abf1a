"""`dpa2calc elastic`: elastic constants from a structure file to numbers and a figure."""

from __future__ import annotations

import argparse

from dpa2calc.cli.arguments.application import add_application_arguments, chosen, prepared_atoms, report
from dpa2calc.cli.arguments.freedom import add_relax_argument

EXAMPLE = """\
example: elastic tensor of silicon, cell relaxed first
  dpa2calc elastic Si.cif --head mlearn-PBE --out Si-elastic

The folder holds elastic.npz (ElasticConstants.load), elastic.png, and work/ from which an interrupted run
resumes.
"""
TABLE = "a row a component of the tensor (C in the standard orientation, as shown)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    group, _ = add_application_arguments(
        parser, "elastic constants", "elastic/NAME, NAME from the input's", several=True
    )
    group.add_argument("--strains", type=float, nargs="+", default=[0.005, 0.01], help="magnitudes")
    add_relax_argument(group, "fixed", "cell", default="cell", help="what moves before straining")
    text = "do not relax positions in strained cells"
    group.add_argument("--clamped-ions", dest="relax_ions", action="store_false", help=text)
    group.add_argument("--fmax", type=float, default=1e-4, help="of the relaxations, eV/Å")
    parser.set_defaults(dtype="float64")


def run(args: argparse.Namespace) -> int:
    """Run the verb."""
    import numpy as np

    from dpa2calc.applications.crystals.elastic import elastic_constants

    atoms = prepared_atoms(args, "elastic")
    options = chosen(args, "strains", "relax", "relax_ions", "fmax")
    result = elastic_constants(atoms, **options)
    i, j = np.triu_indices(6)
    table = {
        "i": i + 1,
        "j": j + 1,
        "C_GPa": result.standard_tensor[i, j],
        "C_in_frame_of_file_GPa": result.tensor[i, j],
        "error_in_frame_of_file_GPa": result.errors[i, j],
    }
    return report(result, args, "elastic", table)
