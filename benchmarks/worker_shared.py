"""One job of the benchmark of shared cores: works for as many seconds as each line on stdin says.

Answers {"rate": steps or evaluations a second}. `deepmd` runs in deepmd-kit's environment, without dpa2calc.
"""

import json
import sys
import tempfile
import time

if sys.argv[1] != "deepmd":
    import dpa2calc  # before NumPy and torch, so that their idle threads sleep

import numpy as np
from ase.build import bulk
from ase.io import read
from ase.optimize import BFGS


def evaluations(calculator, structure):
    """Function: seconds -> evaluations of energy and forces a second, positions new every time."""
    atoms = read(structure)
    atoms.calc = calculator
    start, rng = atoms.positions.copy(), np.random.default_rng(0)

    def run(seconds):
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            atoms.positions = start + rng.normal(0.0, 0.01, start.shape)
            atoms.get_forces()
            count += 1
        return count / (time.perf_counter() - begin)

    return run


def relaxations(calculator):
    """Function: seconds -> steps of BFGS a second, 32 atoms of copper again and again."""
    start = bulk("Cu", cubic=True) * 2
    start.rattle(0.1, rng=np.random.default_rng(0))

    def run(seconds):
        begin, count = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            atoms = start.copy()
            atoms.calc = calculator
            for _ in BFGS(atoms, logfile=None).irun(fmax=1e-3, steps=50):
                count += 1
        return count / (time.perf_counter() - begin)

    return run


def steps(model, frames):
    """Function: seconds -> training steps a second, one frame a step, the preparation left out."""
    from dpa2calc.training import Dataset, TrainConfig, train

    data = Dataset.read(frames, name="water")

    def run(seconds):
        config = TrainConfig(steps=1_000_000, batch_atoms=1, log_every=1, time_limit=seconds, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            records = train(model, data, config, output=folder, progress=False).history.train
        times = [1.0 / record["steps_per_second"] for record in records]
        return len(times) / sum(times)

    return run


def main():
    """argv: kind (a task of `shared_machine.py`), model file or "-", structures, threads."""
    kind, model, structures, threads = sys.argv[1:5]
    if kind == "deepmd":
        from deepmd.calculator import DP

        run = evaluations(DP(model=model), structures)
    else:
        import torch

        torch.set_num_threads(int(threads))
        if kind == "md":
            run = evaluations(dpa2calc.DPA2Calculator(head="H2O-PBE0TS", device="cpu"), structures)
        elif kind == "student":
            run = evaluations(dpa2calc.DPA2Calculator("student-water", device="cpu"), structures)
        elif kind == "relax":
            run = relaxations(dpa2calc.DPA2Calculator("student-mgcu", device="cpu"))
        else:
            run = steps({"train": "small", "distill": "dpa1-l0"}[kind], structures)
    real_stdout, sys.stdout = sys.stdout, sys.stderr
    run(0.5)
    print(json.dumps({"ready": True}), file=real_stdout, flush=True)
    for line in sys.stdin:
        print(json.dumps({"rate": run(float(line))}), file=real_stdout, flush=True)


if __name__ == "__main__":
    main()
