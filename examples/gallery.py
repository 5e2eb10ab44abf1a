"""The figures of docs/applications.md: one small run of every application, on calculators that need no
weights.

    python examples/gallery.py [--output docs/applications] [--only md rdf]

Copper and ammonia are ASE's EMT potential, the map is of the default model; diffusing ions are random
walkers with a known coefficient. Any other ASE calculator takes their place: the calls are those of the
page. Some minutes on one core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.io import read
from PIL import Image  # comes with matplotlib

from dpa2calc import applications as app

DATA = Path(__file__).parent / "data"
WORK = Path(tempfile.mkdtemp(prefix="gallery-"))


def copper(repeat: int = 1, cubic: bool = False) -> Atoms:
    """fcc copper near the minimum of its potential."""
    atoms = bulk("Cu", a=3.59, cubic=cubic).repeat(repeat)
    atoms.calc = EMT()
    return atoms


def walkers(coefficient: float, seed: int = 0) -> list[Atoms]:
    """400 frames, 0.2 ps apart, of 24 Li that diffuse (Å²/ps) through a lattice of S that stands still."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("Li24S24", cell=[12.0, 12.0, 9.0], pbc=True)
    sites = 3.0 * np.array([(x, y, z) for x in range(4) for y in range(4) for z in range(3)])
    atoms.positions = sites[np.r_[0:48:2, 1:48:2]]
    frames = []
    for k in range(400):
        atoms.positions[:24] += rng.normal(0, np.sqrt(2 * coefficient * 0.2), (24, 3))
        frame = atoms.copy()
        frame.positions += rng.normal(0, 0.1, frame.positions.shape)
        frame.info["time_fs"] = 200.0 * k
        frame.wrap()
        frames.append(frame)
    return frames


def _md() -> Any:
    files: dict[str, Any] = {"trajectory": WORK / "md.traj", "log": WORK / "md.csv"}
    options: dict[str, Any] = {"trajectory_interval": 10, "overwrite": True, "progress": False}
    return app.run_md(
        copper(3, cubic=True), steps=600, timestep_fs=4, temperature=(300, 900), **files, **options
    )


def _trajectory() -> str:
    if not (WORK / "md.traj").exists():
        _md()
    return str(WORK / "md.traj")


def _relax() -> Any:
    atoms = copper(2)
    atoms.set_cell(atoms.cell * 1.04, scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return app.relax(atoms, relax="cell", progress=False)


def _arrhenius() -> Any:
    return app.arrhenius(
        [
            app.diffusion(walkers(d, seed=k), "Li", temperature=t)
            for k, (t, d) in enumerate(((500, 0.02), (600, 0.05), (750, 0.12), (1000, 0.3)))
        ]
    )


def _conservation() -> Any:
    atoms = copper(2, cubic=True)
    compare = {"turned by 3°": app.TurnedForces(EMT(), 3.0)}
    return app.energy_conservation(
        atoms, (2, 4, 8), duration_fs=1600, equilibration_fs=400, compare=compare, progress=False
    )


def _phase() -> Any:
    """Heating and cooling of copper shows no transition, which the function says."""
    atoms = copper(2, cubic=True)
    options: dict[str, Any] = {
        "timestep_fs": 5,
        "sample_interval": 5,
        "repeats": (2, 2, 2),
        "progress": False,
    }
    return app.phase_transition(atoms, (200, 400, 600, 800, 1000), picoseconds=1.0, **options)


def _map() -> Any:
    from dpa2calc import DPA2Calculator

    water, calc = read(DATA / "water64.extxyz"), DPA2Calculator(head="H2O-PBE0TS")
    alone = molecule("H2O", vacuum=5.0)
    groups: dict[str, Any] = {"liquid": [water], "molecule": [_rattled(alone, k) for k in range(30)]}
    return app.representation_map(groups, calc)


def _rattled(atoms: Atoms, seed: int) -> Atoms:
    moved = atoms.copy()
    moved.rattle(0.05, seed=seed)
    return moved


def _neb() -> Any:
    initial, final = app.vacancy_hop(copper(), min_length=7.0)
    initial.calc = EMT()
    return app.nudged_elastic_band(initial, final, n_images=5, fmax=0.05, progress=False)


def _vibrations() -> Any:
    atoms = molecule("NH3")
    atoms.calc = EMT()
    return app.vibrations(atoms, relax="positions", progress=False)


FIGURES: dict[str, Callable[[], Any]] = {
    "md": _md,
    "relax": _relax,
    "rdf": lambda: app.radial_distribution(_trajectory(), "Cu-Cu", r_max=7.0),
    "adf": lambda: app.angular_distribution(_trajectory(), "Cu-Cu-Cu"),
    "diffusion": lambda: app.diffusion(walkers(0.1), "Li", temperature=600, charge=1),
    "arrhenius": _arrhenius,
    "van_hove": lambda: app.van_hove(walkers(0.1), "Li", lags_ps=(1, 4, 16)),
    "density_map": lambda: app.density_map(walkers(0.002), "Li"),
    "phase_transition": _phase,
    "energy_conservation": _conservation,
    "representation_map": _map,
    "eos": lambda: app.equation_of_state(copper(), progress=False),
    "elastic": lambda: app.elastic_constants(copper(), progress=False),
    "phonons": lambda: app.phonons(copper(), relax="cell", min_length=10.0, progress=False),
    "quasi_harmonic": lambda: app.quasi_harmonic(copper(), min_length=7.0, progress=False),
    "vibrations": _vibrations,
    "neb": _neb,
    "surface": lambda: app.surface_energy(copper(), (1, 1, 1), thicknesses=(6, 9, 12), progress=False),
    "vacancy": lambda: app.vacancy_formation_energy(copper(), min_lengths=(6, 8, 10), progress=False),
}


def main() -> None:
    """Run, print the summaries, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent.parent / "docs" / "applications")
    parser.add_argument("--only", nargs="+", choices=tuple(FIGURES), default=tuple(FIGURES))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        result = FIGURES[name]()
        print(f"--- {name}\n{result.summary()}", flush=True)
        figure = result.plot().figure
        figure.set_size_inches(5.2, 3.6 if name != "van_hove" else 5.0)
        path = args.output / f"{name}.png"
        figure.savefig(path, dpi=80, bbox_inches="tight")
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)  # a third of the bytes
        plt.close("all")


if __name__ == "__main__":
    main()
