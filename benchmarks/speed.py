"""ms per atom against deepmd-kit, same weights, float32, through the ASE calculators, calls interleaved.

    python benchmarks/speed.py [--models small medium ...] [--systems "water 192" ...] [--threads 1 2]

Prints a table and writes results/speed.json. The ratio is that of the smallest times of the same run;
`median` is the ratio of medians. "peak" is a share of the measured matmul rate: matrix products of the
formulas (reference operations, counted by PyTorch), whatever the kernels spare, over our time.
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from ase.io import read
from common import DEEPMD_PYTHON, Engine, in_turn, machine, model_file, parser_for, save, write_structures
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

MODELS = ("paper", "large", "medium", "small", "dpa1-l0", "deeppot-se")
SYSTEMS = ("water 192", "water 1536", "Cu 500", "Cu 4000", "ethanol 9")


def compare(model: Path, structure: Path, threads: int, repeats: int) -> dict[str, Any]:
    """Times of both engines, one call of each in turn."""
    kinds = ["dpa2calc"] + (["deepmd"] if DEEPMD_PYTHON else [])
    return in_turn({kind: Engine(kind, model, structure, threads) for kind in kinds}, repeats)


def matmul_flops(model: Path, structure: Path) -> int:
    """Floating point operations in matrix products of the formulas, energy and backward pass."""
    from dpa2calc import load_model
    from dpa2calc.structures.graph_builder import graph_from_atoms

    potential = load_model(model)
    graph = graph_from_atoms(read(structure), potential.config)
    with potential.using("reference"), FlopCounterMode(display=False) as counter:
        potential.compute(graph)
    return counter.get_total_flops()


def row_text(row: dict[str, Any]) -> str:
    """One line of the table."""
    ours, n = row["dpa2calc"], row["atoms"]
    text = f"{row['model']:11s} {row['system']:11s} {row['threads']:>3d} {1e3 * ours['min'] / n:9.3f} "
    text += f"{ours['peak_mb']:8.0f} {100 * row['peak_share']:5.0f} %"
    if "deepmd" in row:
        theirs = row["deepmd"]
        text += f" {1e3 * theirs['min'] / n:9.3f} {theirs['peak_mb']:8.0f} {row['ratio']:7.1f} "
        text += f"{row['ratio_median']:7.1f}"
    return text


HEADER = "model       system      thr   ours ms/at  MB   peak   deepmd ms/at  MB   ratio  median"


def main() -> None:
    """Run the chosen combinations."""
    parser = parser_for(__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--systems", nargs="+", default=SYSTEMS[:2])
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--name", default="speed", help="name of the JSON file in results/")
    args = parser.parse_args()

    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, torch {about['torch']}, {about['matmul_gflops']} GFLOP/s")
    print(HEADER)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_structures(Path(folder))
        cases = [(m, s, t) for m in args.models for s in args.systems for t in args.threads]
        for name, system, threads in tqdm(cases):
            model = model_file(name, Path(folder))
            repeats = args.repeats if "192" in system or "9" in system else max(2, args.repeats // 2)
            record = compare(model, files[system], threads, repeats)
            torch.set_num_threads(1)  # the counter does not see other threads
            flops = matmul_flops(model, files[system])
            rate = flops / record["dpa2calc"]["min"] / 1e9
            row = {"model": name, "system": system, "threads": threads, "atoms": int(system.split()[1])}
            row |= record | {"gflop": flops / 1e9, "peak_share": rate / about["matmul_gflops"][str(threads)]}
            if "deepmd" in record:
                for key, which in (("ratio", "min"), ("ratio_median", "median")):
                    row[key] = record["deepmd"][which] / record["dpa2calc"][which]
                row["energy_difference"] = abs(record["deepmd"]["energy"] - record["dpa2calc"]["energy"])
            rows.append(row)
            tqdm.write(row_text(row))
            save(args.name, {"machine": about, "rows": rows})


if __name__ == "__main__":
    main()
