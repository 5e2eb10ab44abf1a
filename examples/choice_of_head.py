"""Which head of the default model is proposed for a stranger's frames, and what it and the others are worth.

    python examples/choice_of_head.py --data mine                    # every NAME.extxyz in the folder
    python examples/choice_of_head.py --data mine --sets water oxide

A head is proposed twice: by one structure without labels (`calc.rank_heads`, `dpa2calc heads`), and by the
labels (`dpa2calc.training.rank_heads`, which `finetune` follows). Errors are zero-shot, on frames spread
over the test (NAME.test.extxyz, else all of NAME.extxyz), with energies of the elements fitted to them: RMSE
of energy in meV/atom and of force in meV/Å. "predicted" is the force error that the first head expects of
itself on eight of the frames, over the real one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.engine.head_ranking import rank_heads as heads_for
from dpa2calc.model.potential import Potential
from dpa2calc.training import Dataset, rank_heads
from dpa2calc.training.finetune.ranking import HeadMatch

FRAMES, LARGE, FEWER, JUDGED = 40, 100, 12, 8
COLUMNS = ("set", "zero forces", "by one structure", "energy / force", "predicted", "by labels",
           "energy / force", "least force error", "heads")  # fmt: skip


def main() -> None:
    """Print a row a set, and what the proposed head says of itself."""
    args = options()
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    names = args.sets or sorted(
        p.stem for p in args.data.glob("*.extxyz") if not p.name.endswith(".test.extxyz")
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    said = [row(name, args) for name in names]
    print("\n" + "\n".join(said))


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of NAME.extxyz")
    parser.add_argument("--sets", nargs="+", help="all if not given")
    parser.add_argument("--model", default="default", help="a name or a file")
    parser.add_argument("--threads", type=int, default=1, help="of the matrix products")
    return parser.parse_args()


def row(name: str, args: argparse.Namespace) -> str:
    """Print one set's line; returns the proposed head's words."""
    test = args.data / f"{name}.test.extxyz"
    data = Dataset.read(test if test.exists() else args.data / f"{name}.extxyz", name=name)
    number = FRAMES if data[0].n_atoms <= LARGE else FEWER
    data = data.subset(np.linspace(0, len(data) - 1, min(number, len(data))).round().astype(int))
    forces = np.concatenate([f.forces.ravel() for f in data if f.forces is not None])
    potential: Potential = load_model(args.model)
    matches = {m.head: m for m in rank_heads(potential, data, frames=len(data))}
    first = heads_for(potential.use("inference"), data[0].atoms())[0]
    best = next(iter(matches.values()))
    least = min(matches.values(), key=lambda m: m.errors.force_rmse or np.inf)
    ratio = predicted(data.subset(range(min(JUDGED, len(data)))), first.head, args.model)
    cells = [
        f"{name} | {1e3 * np.sqrt(np.mean(forces**2)):.0f}",
        f"{first.head} | {pair(matches[first.head])} | {ratio:.2f}",
        f"{best.head} | {pair(best)}",
        f"{least.head} {pair(least)} | {len(matches)}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)
    return f"{name}: {first.summary()}"


def pair(match: HeadMatch) -> str:
    """Energy and force error of a head."""
    energy, force = match.errors.energy_rmse, match.errors.force_rmse
    return f"{'-' if energy is None else format(energy, '.1f')} / {force:.0f}"


def predicted(data: Dataset, head: str, model: str) -> float:
    """Root mean square of the force errors that a head expects, over that of the real ones."""
    found = DPA2Calculator(model, head).evaluate([frame.atoms() for frame in data], forces_std=True)
    made, std = (np.concatenate([np.ravel(r[key]) for r in found]) for key in ("forces", "forces_std"))
    real = np.concatenate([np.ravel(frame.forces) for frame in data])
    return float(np.sqrt(np.mean(std**2) / np.mean((made - real) ** 2)))


if __name__ == "__main__":
    main()
