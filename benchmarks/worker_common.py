"""The loop both engines of a benchmark share: one timed evaluation for every line on stdin."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
from ase.io import read


def peak_mb() -> float:
    """Most memory that this program held, MB."""
    try:  # on Linux getrusage also counts what the parent held when it started this process
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(calculator, structure: str) -> None:
    """JSON for each line: seconds, CPU seconds, energy, peak memory (MB). Positions change every call."""
    atoms = read(structure)
    atoms.calc = calculator
    start = atoms.positions.copy()
    rng = np.random.default_rng(0)
    real_stdout, sys.stdout = sys.stdout, sys.stderr  # engines may print; answers go to the real one
    print(json.dumps({"ready": True}), file=real_stdout, flush=True)
    for _ in sys.stdin:
        atoms.positions = start + rng.normal(0.0, 0.01, start.shape)
        begin, cpu = time.perf_counter(), time.process_time()
        energy = float(atoms.get_potential_energy())
        forces = atoms.get_forces()
        if atoms.pbc.all():
            atoms.get_stress()
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
        answer = {"seconds": seconds, "cpu": cpu, "energy": energy, "peak_mb": peak_mb()}
        answer["fmax"] = float(np.abs(forces).max())
        print(json.dumps(answer), file=real_stdout, flush=True)
