"""One small call of everything, on an installed package: `python smoke.py`, from a folder of its own."""

from pathlib import Path

import numpy as np
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from dpa2calc import DPA2Calculator
from dpa2calc.applications import equation_of_state, phonons, radial_distribution, relax, run_md
from dpa2calc.cli.main import main
from dpa2calc.training import Dataset, TrainConfig, train


def labelled(seed: int):
    """A rattled copper cell with EMT's labels."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    numbers = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    atoms.calc = SinglePointCalculator(atoms, **numbers)
    return atoms


water = molecule("H2O")
water.calc = DPA2Calculator(head="H2O-PBE0TS")
assert abs(water.get_forces().sum()) < 1e-4
print("energy of a water molecule", water.get_potential_energy())

copper = bulk("Cu", a=3.65)
copper.calc = EMT()
assert relax(copper, relax="cell", progress=False).converged
box = bulk("Cu", cubic=True).repeat(2)
box.calc = EMT()
run_md(box, steps=200, temperature=300, trajectory="md.traj", trajectory_interval=20, progress=False)
assert radial_distribution("md.traj", "Cu-Cu", r_max=5.0, progress=False).g.max() > 2
try:
    import phonopy  # noqa: F401

    assert equation_of_state(copper, progress=False).summary()
    assert phonons(copper, relax="cell", min_length=7.0, progress=False).summary()
except ImportError:
    print("without the extra `applications`")

data = Dataset.from_atoms([labelled(seed) for seed in range(4)])
result = train("dpa1-l0", data, TrainConfig(steps=3, batch_atoms=8), output="run", progress=False)
again = bulk("Cu", cubic=True)
again.calc = DPA2Calculator("run/last.safetensors")
assert np.isfinite(again.get_potential_energy())
Path("run.toml").write_text(
    'output = "run2"\nsteps = 1\n[model]\npreset = "dpa1-l0"\n[sets.a]\ntrain = ["md.traj"]\n'
)
assert main(["models"]) == 0
assert main(["train", "run.toml", "--no-progress"]) == 0  # TOML, and ASE's trajectory as data
print("smoke: all calls passed")
