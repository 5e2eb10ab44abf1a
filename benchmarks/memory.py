"""Time per atom and peak memory of our calculator against system size.

    python benchmarks/memory.py [--models small medium] [--sizes 1536 5184 12288 24000 98304]

Each point runs in a process of its own, because peak memory never goes down. deepmd-kit's figure for
1536 water atoms is measured in the same run where it is installed.
"""

import tempfile
from pathlib import Path

from ase.io import read, write
from common import DEEPMD_PYTHON, HERE, Engine, machine, model_file, parser_for, save

# Supercells of the box of 64 molecules, by number of atoms.
CELLS = {
    192: (1, 1, 1),
    1536: (2, 2, 2),
    5184: (3, 3, 3),
    12288: (4, 4, 4),
    24000: (5, 5, 5),
    28800: (5, 5, 6),
    56448: (6, 7, 7),
    98304: (8, 8, 8),
}


def measure(kind: str, model: Path, structure: Path, threads: int, repeats: int) -> dict[str, float]:
    """Smallest time and peak memory of one engine."""
    engine = Engine(kind, model, structure, threads)
    try:
        answers = [engine.step() for _ in range(repeats)]
    finally:
        engine.close()
    return {"seconds": min(a["seconds"] for a in answers), "peak_mb": answers[-1]["peak_mb"]}


def main() -> None:
    """Run all sizes of all models."""
    parser = parser_for(__doc__)
    parser.add_argument("--models", nargs="+", default=("small", "medium"))
    parser.add_argument("--sizes", nargs="+", type=int, default=tuple(CELLS)[:-1])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", default="memory")
    args = parser.parse_args()
    rows = []
    about = machine()
    water = read(HERE.parent / "examples" / "data" / "water64.extxyz")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in args.sizes:
            write(folder / f"{size}.extxyz", water.repeat(CELLS[size]))
        for model in args.models:
            for size in args.sizes:
                kinds = ["dpa2calc"] + (["deepmd"] if DEEPMD_PYTHON and size == 1536 else [])
                for kind in kinds:
                    repeats = 3 if size < 20000 else 2
                    row = measure(
                        kind, model_file(model, folder), folder / f"{size}.extxyz", args.threads, repeats
                    )
                    rows.append({"engine": kind, "model": model, "atoms": size, **row})
                    print(
                        f"{kind:9s} {model:8s} {size:7d} atoms {1e3 * row['seconds'] / size:8.3f} ms/atom "
                        f"{row['peak_mb']:8.0f} MB",
                        flush=True,
                    )
                    save(args.name, {"machine": about, "threads": args.threads, "rows": rows})


if __name__ == "__main__":
    main()
