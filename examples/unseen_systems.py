"""What the default model knows of systems that no set of the collection holds: as it is, and after 25 frames.

    python examples/unseen_systems.py make --labels xtb          # in an environment with tblite, too
    python examples/unseen_systems.py make --labels sevennet     # in one with sevenn, too
    python examples/unseen_systems.py --minutes 2 --seeds 1 2    # 15 systems, CPU minutes each
    python examples/unseen_systems.py --change steps=250 minutes=0 learning_rate=1e-2

`make` runs Langevin dynamics with the label's own forces: molecules by GFN2-xTB at 300 to 500 K, crystals,
a melt and a slab by SevenNet-0 (PBE of the Materials Project) at 600 to 1600 K, every third periodic frame
strained. 25 of the first hundred frames (`--frames`), evenly chosen, are trained on. The test is the last
sixteen, which begin 80 fs later. Errors are RMSE: energy meV/atom, force meV/Å, virial meV/atom; with
several seeds mean and half range. What is finished is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.spacegroup import crystal
from paper.frames import TESTED, changed
from paper.record import once

PEROVSKITE = [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)]


def oxide_with_vacancies() -> Atoms:
    """MgO, 30 atoms: a Mg and an O that do not touch are missing."""
    atoms = bulk("MgO", "rocksalt", a=4.24, cubic=True).repeat((2, 2, 1))
    oxygen = next(i for i in range(1, len(atoms)) if atoms[i].symbol == "O" and atoms.get_distance(0, i) > 4)
    del atoms[[0, oxygen]]
    return atoms


def melt() -> Atoms:
    """KCl, 32 atoms, far from the crystal."""
    atoms = bulk("KCl", "rocksalt", a=6.8, cubic=True).repeat((2, 2, 1))
    atoms.rattle(0.5, seed=1)
    return atoms


def slab() -> Atoms:
    """Al(111), 16 atoms, with an O in a hollow."""
    atoms = fcc111("Al", (2, 2, 4), vacuum=6)
    add_adsorbate(atoms, "O", 1.2, "fcc")
    return atoms


def water_cluster() -> Atoms:
    """Eight molecules, turned by chance, at the corners of a cube."""
    rng, atoms = np.random.default_rng(1), Atoms()
    for corner in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.euler_rotate(*rng.uniform(0, 360, 3), center="COM")
        one.translate(3.0 * np.array(corner))
        atoms += one
    return atoms


SYSTEMS: dict[str, dict[str, tuple[Callable[[], Atoms], float]]] = {
    "xtb": {
        "pyridine": (lambda: molecule("C5H5N"), 500),
        "butadiene": (lambda: molecule("butadiene"), 500),
        "acetamide": (lambda: molecule("CH3CONH2"), 500),
        "thiophene": (lambda: molecule("C4H4S"), 500),
        "acetyl-chloride": (lambda: molecule("CH3COCl"), 500),
        "water-8": (water_cluster, 300),
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
        "KCl-melt": (melt, 1600),
        "MgO-vacancies": (oxide_with_vacancies, 1200),
        "CuZn": (lambda: bulk("CuZn", "cesiumchloride", a=2.95, cubic=True).repeat(2), 900),
        "Al-slab-O": (slab, 600),
    },
}
POOL, GAP_FS = 100, 80.0


def main() -> None:
    """Make frames, or fine-tune on them and print a table."""
    args = options()
    if args.what == "make":
        for name, (start, temperature) in SYSTEMS[args.labels].items():
            path = args.data / f"{name}.extxyz"
            if not path.exists() and (not args.systems or name in args.systems):
                args.data.mkdir(parents=True, exist_ok=True)
                write(path, dynamics(start(), labeller(args.labels), temperature, args.pool))
        return
    import torch

    torch.set_num_threads(1)
    known = [name for systems in SYSTEMS.values() for name in systems]
    names = [name for name in args.systems or known if (args.data / f"{name}.extxyz").exists()]
    if not names:
        raise SystemExit(f"no frames in {args.data}; make them first (see --help)")
    print("| system | head | before | after | frames learned |\n|---|---|---|---|---|")
    for name in names:
        print(row(name, args), flush=True)


def options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="?", choices=["make", "tune"], default="tune")
    add("--systems", nargs="+", help="all if not given")
    add("--labels", choices=list(SYSTEMS), default="xtb")
    add("--data", type=Path, default=Path("runs/unseen/frames"))
    add("--output", type=Path, default=Path("runs/unseen"))
    add("--model", default="default", help="to start from: a name or a file")
    add("--pool", type=int, default=POOL, help="frames made to learn from (default 100)")
    add("--frames", type=int, default=25, help="to learn from, at most 100")
    add("--minutes", type=float, default=2, help="CPU minutes of each fine-tuning")
    add("--seeds", nargs="+", type=int, default=[1])
    add("--change", nargs="+", default=[], metavar="OPTION=VALUE", help="of FinetuneConfig")
    return parser.parse_args()


def labeller(kind: str) -> Calculator:
    """The calculator that labels."""
    if kind == "xtb":
        from tblite.ase import TBLite

        return TBLite(method="GFN2-xTB", verbosity=0)
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator("7net-0", device="cpu")


def dynamics(atoms: Atoms, calc: Calculator, temperature: float, pool: int) -> list[Atoms]:
    """Frames with energies, forces and of crystals stresses: `pool` to learn from, 16 later ones to test."""
    rng = np.random.default_rng(3)
    step = 1.0 if 1 in atoms.numbers else 2.0  # fs
    atoms.calc = calc
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    md = Langevin(atoms, step * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    md.run(round(80 / step))
    frames = []
    for number in range(pool + TESTED):
        md.run(2 if number < pool else 4)
        if number == pool:
            md.run(round(GAP_FS / step))
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
    """One system's line: the head, errors before and after on the test frames, and on those learned."""
    records = [record(name, seed, args) for seed in args.seeds]
    columns = [[one[key] for one in records] for key in ("before", "after", "learned")]
    return f"| {name} | {records[0]['head']} | {' | '.join(cell(column) for column in columns)} |"


def cell(runs: list[list[float]]) -> str:
    """Means over the seeds, each with half of what lies between the extremes where there is anything."""
    spreads = [(float(np.mean(values)), float(np.ptp(values)) / 2) for values in zip(*runs)]
    return " / ".join(f"{mean:.3g}" + (f"±{half:.1g}" if half else "") for mean, half in spreads)


def record(name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """A fine-tuning's errors: RMSE of energy, force and where there is one virial."""
    from dpa2calc.training import Dataset, FinetuneConfig, evaluate, finetune

    run = "-".join([Path(args.model).stem, f"{args.frames}", f"{args.minutes:g}", f"{seed}", *args.change])
    place = args.output / run / name

    def tuned() -> dict[str, Any]:
        frames = Dataset.read(args.data / f"{name}.extxyz", name=name)
        learned = frames.subset(range(0, POOL, POOL // args.frames))
        tested = frames.subset(range(POOL, POOL + TESTED))
        config = FinetuneConfig(minutes=args.minutes, clock="cpu", seed=seed)
        config = config.replace(**changed(args.change))
        result = finetune(args.model, learned, config, output=place, progress=False)
        found = {
            "before": evaluate(args.model, tested, head=result.start_head, fit_bias=True).errors,
            "after": evaluate(result.potential, tested).errors,
            "learned": evaluate(result.potential, learned).errors,
        }
        kinds = ("energy_rmse", "force_rmse", "virial_rmse")
        errors = {
            key: [value for kind in kinds if (value := getattr(of, kind)) is not None]
            for key, of in found.items()
        }
        return {"head": result.start_head, "steps": result.steps, **errors}

    return once(place / "errors.json", tuned)


if __name__ == "__main__":
    main()
