"""Training steps per second against deepmd-kit: same data, model, batch and precision, blocks in turn.

    python benchmarks/training.py DATA_FOLDER [--models small medium paper] [--steps 14] [--threads 1]

DATA_FOLDER holds train.extxyz.xz of H2O-PBE0TS (192 atoms a frame, one frame a batch). Every model is
deepmd-kit's own input file (tests/data/inputs; `paper` is section S9 of the paper). deepmd-kit is run
as `dp --pt train`; its seconds a step are those it logs. Each run is a process of its own, whose peak memory
is printed too. Prints a table. In results/training.json a model's row takes the place of its earlier one, so
that models can be run one at a time. `waiting` is the share of the time our trainer waits for batches.
"""

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import DEEPMD_PYTHON, HERE, RESULTS, machine, parser_for, ran, save

from dpa2calc.training import Dataset

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


def run(engine: str, content: dict[str, Any], frames: Path, folder: Path, threads: int) -> dict[str, Any]:
    """Train in a process of its own: seconds a step without the first ones, peak memory (MB), our waiting."""
    folder.mkdir()
    path = folder / "input.json"
    path.write_text(json.dumps(content))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"DP_INTER_OP_PARALLELISM_THREADS": "1"}
    worker, python = HERE / "worker_training.py", sys.executable
    if engine == "deepmd":
        python = DEEPMD_PYTHON
        environment.pop("PYTHONPATH", None)
        environment.pop("PYTHONSAFEPATH", None)
    rest = [str(frames), str(folder / "run"), str(threads)] if engine == "dpa2calc" else []
    command = [python, str(worker), engine, str(path), *rest]
    done = ran(command, cwd=folder, env=environment)
    made = json.loads(done.stdout.splitlines()[-1])
    if engine == "deepmd":
        logged = re.findall(r"total wall time = ([\d.]+) s", done.stdout + done.stderr)
        made["times"] = [float(x) / content["training"]["disp_freq"] for x in logged[2:]]
    return made


def measure(
    model: str, args: argparse.Namespace, data: Dataset, system: Path, folder: Path
) -> dict[str, Any]:
    """Both engines in turn."""
    content = deepmd_input(model, args.precision, system, args.steps)
    row: dict[str, Any] = {"model": model}
    for block in range(args.blocks):
        for engine in ("dpa2calc", "deepmd") if DEEPMD_PYTHON else ("dpa2calc",):
            place = folder / f"{engine}-{model}-{block}"
            made = run(engine, content, args.data.resolve() / "train.extxyz.xz", place, args.threads)
            key = "ours" if engine == "dpa2calc" else "deepmd"
            row[key] = row.get(key, []) + made["times"]
            row[f"{key}_mb"] = max(row.get(f"{key}_mb", 0.0), made["peak_mb"])
            row["waiting"] = made.get("waiting", row.get("waiting"))
    row["ratio"] = min(row["deepmd"]) / min(row["ours"]) if DEEPMD_PYTHON else None
    return row


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in the file with these in the place of those of the same model and options."""
    path = RESULTS / "training.json"
    before = json.loads(path.read_text())["rows"] if path.exists() else []
    new = {(row["model"], *map(str, row["options"].values())): row for row in rows}
    kept = {(row["model"], *map(str, row["options"].values())): row for row in before}
    return list((kept | new).values())


def main() -> None:
    """Run all models and print the table."""
    parser = parser_for(__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--models", nargs="+", default=["small", "medium", "paper"])
    parser.add_argument("--precision", default="float32", choices=("float32", "float64"))
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--blocks", type=int, default=2, help="how often the two engines take turns")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    data = Dataset.read(args.data / "train.extxyz.xz", name="water").sample(40, seed=0)
    about = machine()
    options = {"precision": args.precision, "threads": args.threads, "batch": "192 atoms"}
    print(
        f"{'model':8} {'ours, s':>8} {'deepmd':>8} {'ratio':>6} {'waiting':>8} {'ours, MB':>8} {'deepmd':>7}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_system(data, folder / "system")
        for model in args.models:
            row = measure(model, args, data, folder / "system", folder)
            theirs, ratio, their_mb = f"{'-':>8}", f"{'-':>6}", f"{'-':>7}"
            if row["ratio"]:
                theirs, ratio = f"{min(row['deepmd']):8.3f}", f"{row['ratio']:6.1f}"
                their_mb = f"{row['deepmd_mb']:7.0f}"
            waiting, mb = f"{100 * row['waiting']:7.1f}%", f"{row['ours_mb']:8.0f}"
            print(f"{model:8} {min(row['ours']):8.3f} {theirs} {ratio} {waiting} {mb} {their_mb}", flush=True)
            path = save("training", {"rows": merged([row | {"options": options, "machine": about}])})
    print("written:", path)


if __name__ == "__main__":
    main()
