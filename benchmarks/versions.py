"""Two versions of the package in turn: speed, training, memory and start-up, each point in fresh processes.

    python benchmarks/versions.py OLD_PYTHON DATA_FOLDER [--repeats 7] [--only "model small" start]

OLD_PYTHON is the interpreter of an environment in which the older version is installed; this file runs in
the environment of the newer one. DATA_FOLDER holds train.extxyz.xz of H2O-PBE0TS. Everything goes through
public functions, so that the same lines run in both. One thread, float32. Prints medians and their ratio,
and writes results/versions.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import HERE, machine, model_file, parser_for, save, write_structures

CALLS = """
import json, sys
sys.path.insert(0, {here!r})
from dpa2calc import DPA2Calculator
import time, statistics, torch, numpy as np
from ase.io import read
from worker_common import peak_mb
torch.set_num_threads(1)
atoms = read({structure!r})
atoms.calc = DPA2Calculator({model!r}, dtype="float32", allow_unseen_elements=True, compress={compress})
start, rng, times = atoms.positions.copy(), np.random.default_rng(0), []
for _ in range({calls}):
    atoms.positions = start + rng.normal(0.0, 0.01, start.shape)
    begin = time.process_time()
    atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    times.append(time.process_time() - begin)
print(json.dumps({{"ms": 1000 * min(times[1:]), "peak_mb": peak_mb()}}))
"""
TRAINING = """
import dataclasses, json, sys, tempfile
sys.path.insert(0, {here!r})
from dpa2calc.deepmd.input_json import parse_input
from dpa2calc.training import Dataset, TrainConfig, train
import torch
from training import deepmd_input
from worker_common import peak_mb
torch.set_num_threads(1)
data = Dataset.read({data!r}, name="water").sample(20, seed=0)
given = parse_input(deepmd_input({model!r}, "float32", "none", 10), neighbor_rule="nearest")
options = {{"optimizer": {optimizer!r}, "learning_rate": 1e-3, "dtype": "float32"}}
config = TrainConfig(steps=10, batch_atoms=1, log_every=1, **options)
head = dataclasses.replace(given.config.heads[0], name="water")
with tempfile.TemporaryDirectory() as folder:
    result = train(given.config.with_heads((head,)), data, config, output=folder, progress=False)
times = [1000 / r["steps_per_second"] for r in result.history.train[2:]]
print(json.dumps({{"ms": min(times), "peak_mb": peak_mb()}}))
"""
START = """
import json, resource, time
from dpa2calc import DPA2Calculator
from ase.io import read
atoms = read({structure!r})
atoms.calc = DPA2Calculator({model!r}, allow_unseen_elements=True)
atoms.get_potential_energy()
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{"ms": 1000 * (used.ru_utime + used.ru_stime)}}))
"""
IMPORT = """
import json, time
begin = time.process_time()
import dpa2calc
print(json.dumps({"ms": 1000 * (time.process_time() - begin)}))
"""


def tasks(folder: Path, data: Path) -> dict[str, str]:
    """The code of every row."""
    here, water = str(HERE), {k: str(v) for k, v in write_structures(folder).items()}
    models = {n: str(model_file(n, folder)) for n in ("small", "medium", "paper", "dpa1-l0", "deeppot-se")}

    def calls(model: str, structure: str, count: int, compress: bool = False) -> str:
        return CALLS.format(
            here=here, model=models[model], structure=water[structure], calls=count, compress=compress
        )

    out = {f"model {n}, 192 atoms": calls(n, "water 192", 4) for n in ("small", "medium", "paper")}
    out["model medium, 1536 atoms"] = calls("medium", "water 1536", 3)
    for name, title in (("dpa1-l0", "student"), ("deeppot-se", "DeepPot-SE compressed")):
        out[f"{title}, 192 atoms"] = calls(name, "water 192", 12, True)
        out[f"{title}, 1536 atoms"] = calls(name, "water 1536", 6, True)
    for name in ("small", "medium"):
        for optimizer in ("adam", "soap"):
            code = TRAINING.format(
                here=here, data=str(data / "train.extxyz.xz"), model=name, optimizer=optimizer
            )
            out[f"training {name}, {optimizer}"] = code
    out["start to first energy"] = START.format(structure=water["water 192"], model=models["small"])
    out["import dpa2calc"] = IMPORT
    return out


def answer(python: str, code: str) -> dict[str, float]:
    """What one fresh process prints last."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [python, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | threads, cwd="/")
    if done.returncode:
        raise SystemExit(f"{python}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Interleave the versions and print the medians."""
    parser = parser_for(__doc__)
    parser.add_argument("old_python")
    parser.add_argument("data", type=Path)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", nargs="+", help="rows whose names contain one of these")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    about = machine()
    print(f"{'':28} {'old':>9} {'new':>9} {'new/old':>8}   peak MB old, new")
    with tempfile.TemporaryDirectory() as name:
        for title, code in tasks(Path(name), args.data.resolve()).items():
            if args.only and not any(word in title for word in args.only):
                continue
            answers: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
            for _ in range(args.repeats):
                for version, python in (("old", args.old_python), ("new", sys.executable)):
                    answers[version].append(answer(python, code))
            row: dict[str, Any] = {"what": title}
            for version, got in answers.items():
                row[version] = {k: statistics.median(a[k] for a in got) for k in got[0]}
            rows.append(row)
            ratio = row["new"]["ms"] / row["old"]["ms"]
            peaks = "  ".join(f"{row[v]['peak_mb']:7.0f}" for v in ("old", "new") if "peak_mb" in row[v])
            line = f"{title:28} {row['old']['ms']:6.1f} ms {row['new']['ms']:6.1f} ms {ratio:8.2f}   {peaks}"
            print(line, flush=True)
    save("versions", {"machine": about, "repeats": args.repeats, "rows": rows})


if __name__ == "__main__":
    main()
