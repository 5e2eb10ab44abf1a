"""ms per atom beside other universal models, each through its ASE calculator, float32, calls interleaved.

    export DPA2CALC_PEERS_PYTHON=PEERS/bin/python   # has mace-torch, sevenn, chgnet
    python benchmarks/peers.py [--systems "water 192" "Cu 500"] [--threads 2] [--repeats 5]

Energy, forces and stress, positions changed at every call. SevenNet-0 and CHGNet have the weights of their
packages; MACE is as large as its medium foundation models and has random ones, which cost the same. Models
differ in accuracy and cutoff: this table says what a step costs, nothing else. Prints a table and writes
results/peers.json.
"""

import tempfile
from pathlib import Path

from common import PEERS_PYTHON, Engine, in_turn, machine, model_file, parser_for, save, write_structures

OURS = ("default", "paper", "student-water")
PEERS = ("mace", "sevennet", "chgnet")
HEADS = {"water": "H2O-PBE0TS", "Cu": "mlearn-PBE"}  # of the default model


def engines_for(system: str, files: dict[str, Path], threads: int, folder: Path) -> dict[str, Engine]:
    """Ours and the peers', started."""
    kind = system.split()[0]
    ours = {"default": f"default:{HEADS[kind]}", "paper": str(model_file("paper", folder))}
    if kind == "water":
        ours["student-water"] = "student-water"
    made = {name: Engine("dpa2calc", model, files[system], threads) for name, model in ours.items()}
    return made | {name: Engine("peer", name, files[system], threads) for name in PEERS}


def main() -> None:
    """Run the chosen systems."""
    parser = parser_for(__doc__)
    parser.add_argument("--systems", nargs="+", default=("water 192", "Cu 500"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if not PEERS_PYTHON:
        parser.error("set DPA2CALC_PEERS_PYTHON to the interpreter that has mace-torch, sevenn and chgnet")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = write_structures(Path(folder))
        for system in args.systems:
            found = in_turn(engines_for(system, files, args.threads, Path(folder)), args.repeats)
            n = int(system.split()[1])
            for name, record in found.items():
                rows.append({"system": system, "atoms": n, "threads": args.threads, "model": name, **record})
                per_atom, ratio = 1e3 * record["min"] / n, record["min"] / found["default"]["min"]
                cost = f"{per_atom:8.3f} ms/atom {ratio:6.1f} {record['peak_mb']:6.0f} MB"
                print(f"{system:10s} {name:14s} {cost}", flush=True)
    save("peers", {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
