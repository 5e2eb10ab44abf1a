"""What the default model knows of systems that no set of the collection holds: as it is, and after 25 frames.

    python examples/unseen_systems.py make --labels xtb          # in an environment with tblite
    python examples/unseen_systems.py make --labels sevennet     # in one with sevenn
    python examples/unseen_systems.py --minutes 1.5              # 8 fine-tunings, CPU minutes each

`make` runs Langevin dynamics with the label's own forces: molecules by GFN2-xTB at 500 K, crystals by
SevenNet-0 (PBE of the Materials Project) at 700 to 1500 K, every third frame strained. Of the first fifty
frames every other one is trained on; the last fifteen are the test. What is finished is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.spacegroup import crystal
from paper.record import once

PEROVSKITE = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]
SYSTEMS: dict[str, dict[str, tuple[Callable[[], Atoms], float]]] = {
    "xtb": {
        "pyridine": (lambda: molecule("C5H5N"), 500),
        "butadiene": (lambda: molecule("butadiene"), 500),
        "acetamide": (lambda: molecule("CH3CONH2"), 500),
    },
    "sevennet": {
        "TiC": (lambda: bulk("TiC", "rocksalt", a=4.33, cubic=True).repeat((2, 1, 1)), 1500),
        "GaN": (lambda: bulk("GaN", "wurtzite", a=3.2, c=5.2).repeat((2, 2, 1)), 1000),
        "NaCl": (lambda: bulk("NaCl", "rocksalt", a=5.65, cubic=True).repeat((2, 1, 1)), 700),
        "Li2O": (lambda: bulk("Li2O", "fluorite", a=4.62, cubic=True).repeat((2, 1, 1)), 900),
        "SrTiO3": (
            lambda: crystal("SrTiO", PEROVSKITE, spacegroup=221, cellpar=[3.92] * 3 + [90] * 3).repeat(
                (2, 2, 1)
            ),
            800,
        ),
    },
}
N_FRAMES, LEARNED, TESTED = 65, range(0, 50, 2), range(50, 65)


def main() -> None:
    """Make frames, or fine-tune on them and print a table."""
    args = options()
    if args.what == "make":
        for name, (start, temperature) in SYSTEMS[args.labels].items():
            path = args.data / f"{name}.extxyz"
            if not path.exists():
                args.data.mkdir(parents=True, exist_ok=True)
                write(path, dynamics(start(), labeller(args.labels), temperature))
        return
    import torch

    torch.set_num_threads(1)
    names = [
        name for systems in SYSTEMS.values() for name in systems if (args.data / f"{name}.extxyz").exists()
    ]
    if not names:
        raise SystemExit(f"no frames in {args.data}; make them first (see --help)")
    print("| system | head | before | after |\n|---|---|---|---|")
    for name in names:
        print(row(name, args), flush=True)


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="?", choices=["make", "tune"], default="tune")
    add("--labels", choices=list(SYSTEMS), default="xtb")
    add("--data", type=Path, default=Path("runs/unseen/frames"))
    add("--output", type=Path, default=Path("runs/unseen"))
    add("--model", default="default", help="to start from: a name or a file")
    add("--minutes", type=float, default=1.5, help="CPU minutes of each fine-tuning")
    return parser.parse_args()


def labeller(kind: str) -> Calculator:
    """The calculator that labels."""
    if kind == "xtb":
        from tblite.ase import TBLite

        return TBLite(method="GFN2-xTB", verbosity=0)
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


def dynamics(atoms: Atoms, calc: Calculator, temperature: float) -> list[Atoms]:
    """Frames 6 fs apart, with energies, forces and of crystals stresses."""
    rng = np.random.default_rng(3)
    atoms.calc = calc
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    md = Langevin(atoms, units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    md.run(50)
    frames = []
    for number in range(N_FRAMES):
        md.run(6)
        frame = atoms.copy()
        if frame.pbc.all() and number % 3 == 0:
            strain = rng.normal(0, 0.015, (3, 3))
            frame.set_cell(frame.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
        frame.calc = calc
        labels = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
        if frame.pbc.all():
            labels["stress"] = frame.get_stress()
        frame.calc = SinglePointCalculator(frame, **labels)
        frames.append(frame)
    return frames


def row(name: str, args: argparse.Namespace) -> str:
    """One system's line: test errors before and after, meV/atom and meV/Å."""
    from dpa2calc.training import Dataset, FinetuneConfig, evaluate, finetune

    place = args.output / f"{Path(args.model).stem}-{args.minutes:g}" / name

    def tuned() -> dict[str, Any]:
        frames = Dataset.read(args.data / f"{name}.extxyz", name=name)
        learned, tested = frames.subset(LEARNED), frames.subset(TESTED)
        config = FinetuneConfig(minutes=args.minutes, clock="cpu")
        result = finetune(args.model, learned, config, output=place, progress=False)
        before = evaluate(args.model, tested, head=result.start_head, fit_bias=True).errors
        after = evaluate(result.potential, tested).errors
        pairs = {"before": before, "after": after}
        errors = {key: [found.energy_rmse, found.force_rmse] for key, found in pairs.items()}
        return {"head": result.start_head, **errors}

    record = once(place / "errors.json", tuned)
    cells = (" / ".join(f"{value:.3g}" for value in record[key]) for key in ("before", "after"))
    return f"| {name} | {record['head']} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
