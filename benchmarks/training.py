"""Training steps per second against deepmd-kit: same data, model, batch and precision, blocks in turn.

    python benchmarks/training.py DATA_FOLDER [--models small medium paper] [--steps 14] [--threads 1]

DATA_FOLDER holds train.extxyz.xz of H2O-PBE0TS (192 atoms a frame, one frame a batch). Every model is
deepmd-kit's own input file (tests/data/inputs; `paper` is section S9 of the paper). deepmd-kit is run
as `dp --pt train`; its seconds a step are those it logs. Prints a table and writes results/training.json.
`waiting` is the share of the time our trainer waits for batches.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import DEEPMD_PYTHON, HERE, machine, save

from dpa2calc.deepmd.input_json import parse_input
from dpa2calc.training import Dataset, TrainConfig, train

INPUTS = HERE.parent / "tests" / "data" / "inputs"


def deepmd_input(name: str, precision: str, system: Path, steps: int) -> dict[str, Any]:
    """deepmd-kit's example of this size, on our data, one frame a step."""
    base = "large" if name == "paper" else name
    content = json.loads((INPUTS / f"dpa2_{base}.json").read_text())
    descriptor = content["model"]["descriptor"]
    descriptor["precision"] = content["model"]["fitting_net"]["precision"] = precision
    if name == "paper":
        descriptor["repinit"] |= {"rcut": 9.0, "rcut_smth": 8.0, "nsel": 120, "use_three_body": False}
        descriptor["repformer"] |= {
            "nsel": 40,
            "nlayers": 12,
            "update_g1_has_attn": True,
            "update_g2_has_g1g1": True,
            "update_g2_has_attn": True,
            "update_style": "res_avg",
            "use_sqrt_nnei": False,
            "g1_out_conv": False,
            "g1_out_mlp": False,
        }
    content["training"] = {
        "training_data": {"systems": [str(system)], "batch_size": 1},
        "numb_steps": steps,
        "disp_freq": 2,
        "save_freq": 1_000_000,
        "seed": 1,
    }
    return content


def write_system(data: Dataset, folder: Path) -> None:
    """The frames as a deepmd-kit system of one set."""
    part = folder / "set.000"
    part.mkdir(parents=True)
    symbols = list(data.elements)
    (folder / "type_map.raw").write_text("\n".join(symbols) + "\n")
    types = [symbols.index(s) for s in data[0].atoms().symbols]
    (folder / "type.raw").write_text("\n".join(map(str, types)) + "\n")
    np.save(part / "coord.npy", [f.positions.ravel() for f in data])
    np.save(part / "box.npy", [f.cell.ravel() for f in data])
    np.save(part / "energy.npy", [f.energy for f in data])
    np.save(part / "force.npy", [f.forces.ravel() for f in data if f.forces is not None])


def run_deepmd(content: dict[str, Any], folder: Path, threads: int) -> list[float]:
    """Seconds a step that `dp --pt train` logs, the first ones left out."""
    folder.mkdir(exist_ok=True)
    (folder / "input.json").write_text(json.dumps(content))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"DP_INTER_OP_PARALLELISM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    environment.pop("PYTHONSAFEPATH", None)
    dp = str(Path(DEEPMD_PYTHON).parent / "dp")
    command = [dp, "--pt", "train", "input.json", "--skip-neighbor-stat"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    frequency = content["training"]["disp_freq"]
    times = [float(x) for x in re.findall(r"total wall time = ([\d.]+) s", done.stdout + done.stderr)]
    return [t / frequency for t in times[2:]]


def run_ours(content: dict[str, Any], data: Dataset, folder: Path, threads: int) -> tuple[list[float], float]:
    """Seconds a step of our trainer on the same input, the first ones left out; share of waiting."""
    torch.set_num_threads(threads)
    given = parse_input(content, neighbor_rule="nearest")
    steps = content["training"]["numb_steps"]
    config = TrainConfig(
        steps=steps,
        batch_atoms=1,
        log_every=2,
        optimizer="adam",
        learning_rate=1e-3,
        dtype=given.training["dtype"],
    )
    head = dataclasses.replace(given.config.heads[0], name="water")
    result = train(given.config.with_heads((head,)), data, config, output=folder, progress=False)
    records = result.history.train[2:]
    return [1.0 / r["steps_per_second"] for r in records], statistics.mean(r["waiting"] for r in records)


def main() -> None:
    """Run all models and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=["small", "medium", "paper"])
    parser.add_argument("--precision", default="float32", choices=("float32", "float64"))
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--blocks", type=int, default=2, help="how often the two engines take turns")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    data = Dataset.read(args.data / "train.extxyz.xz", name="water").sample(40, seed=0)
    rows, about = [], machine()
    options = {"precision": args.precision, "threads": args.threads, "batch": "192 atoms"}
    print(f"{'model':8} {'ours s/step':>12} {'deepmd s/step':>14} {'ratio':>6} {'waiting':>8}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_system(data, folder / "system")
        for model in args.models:
            content = deepmd_input(model, args.precision, folder / "system", args.steps)
            ours: list[float] = []
            theirs: list[float] = []
            waiting = 0.0
            for block in range(args.blocks):
                times, waiting = run_ours(content, data, folder / f"{model}-{block}", args.threads)
                ours += times
                if DEEPMD_PYTHON:
                    theirs += run_deepmd(content, folder / f"dp-{model}-{block}", args.threads)
            row = {"model": model, "ours": ours, "deepmd": theirs, "waiting": waiting}
            rows.append(row | {"ratio": min(theirs) / min(ours) if theirs else None})
            text = f"{'-':>14} {'-':>6}"
            if theirs:
                text = f"{min(theirs):14.3f} {min(theirs) / min(ours):6.1f}"
            print(f"{model:8} {min(ours):12.3f} {text} {100 * waiting:7.1f}%", flush=True)
            path = save("training", {"machine": about, "options": options, "rows": rows})
    print("written:", path)


if __name__ == "__main__":
    main()
