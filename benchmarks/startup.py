"""From a fresh `python -c` to the first energy, ours against deepmd-kit, the same `small` model.

python benchmarks/startup.py
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from common import DEEPMD_PYTHON, machine, model_file, ran, save, write_structures

OURS = """
from ase.io import read
from dpa2calc import DPA2Calculator
atoms = read({structure!r}); atoms.calc = DPA2Calculator({model!r}, allow_unseen_elements=True)
atoms.get_potential_energy()
"""
THEIRS = """
from ase.io import read
from deepmd.calculator import DP
atoms = read({structure!r}); atoms.calc = DP(model={model!r})
atoms.get_potential_energy()
"""


def seconds(python: str, code: str, *, keep_path: bool) -> float:
    """Wall time of one fresh process."""
    environment = dict(os.environ)
    if not keep_path:
        environment.pop("PYTHONPATH", None)
    begin = time.perf_counter()
    ran([python, "-c", code], env=environment)
    return time.perf_counter() - begin


def main() -> None:
    """Interleave fresh processes and print the smallest times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {
            "structure": str(write_structures(folder)["water 192"]),
            "model": str(model_file("small", folder)),
        }
        times: dict[str, list[float]] = {"dpa2calc": [], "deepmd": []}
        for _ in range(4):
            times["dpa2calc"].append(seconds(sys.executable, OURS.format(**files), keep_path=True))
            if DEEPMD_PYTHON:
                times["deepmd"].append(seconds(DEEPMD_PYTHON, THEIRS.format(**files), keep_path=False))
    record = {"machine": machine(), "seconds": {k: min(v) for k, v in times.items() if v}}
    if DEEPMD_PYTHON:
        record["ratio"] = record["seconds"]["deepmd"] / record["seconds"]["dpa2calc"]
    save("startup", record)
    print(record["seconds"], f"ratio {record.get('ratio', float('nan')):.2f}")


if __name__ == "__main__":
    main()
