"""Runs in deepmd-kit's own environment: convert, freeze and evaluate models, all in one process.

Usage: python deepmd_jobs.py JOBS.json STRUCTURES.npz OUT.npz

A job is ["convert", IN, OUT], ["freeze", IN, OUT, HEAD or null], ["compress", IN, OUT] or
["evaluate", MODEL], where MODEL may be FILE@HEAD. OUT.npz holds "MODEL|structure|quantity" and, for a job
that failed, "error|JOB NUMBER".
"""

import json
import os
import sys
import traceback

import numpy as np


def evaluate(model: str, structures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Energy, forces and virial of every structure."""
    from deepmd.infer.deep_pot import DeepPot

    path, _, head = model.partition("@")
    folder, name = os.path.split(path)
    os.chdir(folder)  # where a .pt file with a pair table looks for it
    potential = DeepPot(name, head=head) if head else DeepPot(name)
    index = {symbol: i for i, symbol in enumerate(potential.get_type_map())}
    results = {}
    for name in sorted({key.split("/")[0] for key in structures}):
        types = [index[symbol] for symbol in structures[f"{name}/symbols"]]
        cell = structures[f"{name}/cell"].reshape(1, 9) if structures[f"{name}/pbc"].any() else None
        energy, forces, virial = potential.eval(structures[f"{name}/positions"].reshape(1, -1), cell, types)
        results[f"{model}|{name}|energy"] = energy.reshape(())
        results[f"{model}|{name}|forces"] = forces.reshape(-1, 3)
        results[f"{model}|{name}|virial"] = virial.reshape(3, 3)
    return results


def run(job: list, structures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One job."""
    if job[0] == "evaluate":
        return evaluate(job[1], structures)
    if job[0] == "freeze":
        from deepmd.pt.entrypoints.main import freeze

        freeze(job[1], job[2], job[3])
        return {}
    if job[0] == "compress":
        from deepmd.pt.entrypoints.compress import enable_compression

        enable_compression(job[1], job[2])
        return {}
    from deepmd.entrypoints.convert_backend import convert_backend

    convert_backend(INPUT=job[1], OUTPUT=job[2])
    return {}


def main() -> None:
    """All jobs of a file."""
    jobs, source, out = sys.argv[1:]
    with np.load(source) as file:
        structures = dict(file)
    results = {}
    for number, job in enumerate(json.load(open(jobs))):
        try:
            results |= run(job, structures)
        except Exception:
            results[f"error|{number}"] = np.array(f"{job}\n{traceback.format_exc()}")
    np.savez(out, **results)


main()
