"""Do error bars reach the reference? Elastic constants with the model's error, beside PBE and experiment.

    python examples/uncertainty_of_properties.py          # prints the table of docs/uncertainty.md

PBE is that of the training sets (`metals_and_semiconductors.py`). MgO is in no set of its own: the head of
inorganic crystals saw a few oxides of each kind. Its reference is experiment: Sinogeikin and Bass, Phys.
Earth Planet. Inter. 120, 43 (2000).
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from ase import Atoms
from ase.build import bulk
from metals_and_semiconductors import LATTICE, PBE

from dpa2calc import DPA2Calculator
from dpa2calc.applications import elastic_constants

MGO = {"a": 4.21, "C11": 297.9, "C12": 95.8, "C44": 154.4}


def cases() -> list[tuple[Atoms, str, dict[str, float]]]:
    """Crystal, head and reference, GPa."""
    elements = [
        (bulk(name, LATTICE[name], a=PBE[name]["a"]), "mlearn-PBE", PBE[name]) for name in ("Si", "Ge", "Cu")
    ]
    return [*elements, (bulk("MgO", "rocksalt", a=MGO["a"]), "Inorganic-PBE", MGO)]


def main() -> None:
    """Compute and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="default")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        "| crystal, head | | model (GPa) | fit | model's error | reference | off by | in deviations |\n"
        f"|{'---|' * 8}"
    )
    for atoms, head, reference in cases():
        began = time.process_time()
        atoms.calc = DPA2Calculator(args.model, head, dtype="float64")
        result = elastic_constants(atoms, progress=False)
        for name, (value, fit) in result.constants.items():
            model = result.model_errors[name]
            off = value - reference.get(name, np.nan)
            cells = (f"{value:.1f}", f"{fit:.1f}", f"{model:.1f}", f"{reference.get(name, np.nan):.1f}")
            print(
                f"| {atoms.get_chemical_formula()}, {head} | {name} | {' | '.join(cells)} | {off:.1f} | "
                f"{abs(off) / np.hypot(fit, model):.1f} |"
            )
        print(f"<!-- {result.doubt}; {time.process_time() - began:.0f} s of CPU -->", flush=True)


if __name__ == "__main__":
    main()
