"""What each process runs in the tests of LAMMPS on several: cases from a JSON file, numbers into a folder."""

import json
import sys
from pathlib import Path
from typing import Any

import architectures  # noqa: F401 (registers a descriptor)
import numpy as np
from lammps_structures import TYPES, found

from dpa2calc import DPA2Calculator
from dpa2calc.errors import DPA2CalcError
from dpa2calc.integrations.lammps import attach, start
from dpa2calc.store.checkpoint import load_checkpoint


def main() -> None:
    """argv: JSON file of cases; a case has name, model, options, before, after."""
    for case in json.loads(Path(sys.argv[1]).read_text()):
        lmp = start(["-log", "none", "-screen", "none"])
        first = lmp.get_mpi_comm() is None or lmp.get_mpi_comm().Get_rank() == 0
        out: dict[str, Any] = {"error": ""}
        try:
            run(lmp, case)
            out |= found(lmp)
        except DPA2CalcError as error:
            out["error"] = f"{type(error).__name__}: {error}"
        if first:
            n = lmp.extract_setting("world_size")
            np.savez(Path(sys.argv[1]).parent / f"{case['name']}-{n}.npz", **out)
        lmp.close()


def run(lmp: Any, case: dict[str, Any]) -> None:
    """Everything that a case has of commands."""
    for line in case["before"]:
        lmp.command(line)
    options = {"dtype": "float64", **case.get("options", {})}
    attach(lmp, DPA2Calculator(load_checkpoint(case["model"]), **options), TYPES)
    for line in case["after"]:
        lmp.command(line)


if __name__ == "__main__":
    main()
