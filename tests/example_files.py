"""The files that the command lines of README, docs and help speak of, small and made on the fly."""

import json
import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule, sort
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from dft_outputs import outcar

from dpa2calc.applications import perovskite, vacancy_hop
from dpa2calc.cli.main import build_parser
from dpa2calc.deepmd.write import write_deepmd
from dpa2calc.model.config import DPA1Config, FittingConfig, HeadConfig, ModelConfig
from dpa2calc.model.potential import Potential
from dpa2calc.store.checkpoint import save_checkpoint

ROOT = Path(__file__).parents[1]


def page_text(page: Path) -> str:
    """A page as Markdown; of a notebook its text, and its code as a page would show it."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n\n".join(t if kind == "markdown" else f"```python\n{t}\n```" for kind, t in cells)


def water(seed: int) -> Atoms:
    """Eight molecules near a lattice, with labels."""
    rng = np.random.default_rng(seed)
    atoms = Atoms(cell=[5.8] * 3, pbc=True)
    for place in np.ndindex(2, 2, 2):
        one = molecule("H2O")
        one.rotate(360 * rng.random(), rng.normal(size=3))
        one.positions += 2.9 * np.array(place) + rng.normal(0, 0.15, 3)
        atoms += one
    atoms.calc = SinglePointCalculator(atoms, energy=-3750.0 + rng.random(), forces=rng.normal(size=(24, 3)))
    return atoms


def walkers(seed: int) -> list[Atoms]:
    """Li that diffuses between S that does not, 0.2 ps apart."""
    rng = np.random.default_rng(seed)
    atoms = Atoms("Li8S8", cell=[8.0] * 3, pbc=True)
    atoms.positions[:] = rng.random((16, 3)) * 8
    frames = []
    for k in range(120):
        atoms.positions[:8] += rng.normal(0, 0.15 + 0.02 * seed, (8, 3))
        frames.append(atoms.copy())
        frames[-1].wrap()
        frames[-1].info["time_fs"] = 200.0 * k
    return frames


def model(*heads: str) -> Potential:
    """A tiny model whose heads know everything here."""
    fitting = FittingConfig(neuron=(8,))
    config = ModelConfig(
        type_map=("H", "O", "Cu"),
        descriptor=DPA1Config(cutoff=4.0, nsel=20, neuron=(4, 8), axis_neuron=2, tebd_dim=4, attn_layer=0),
        heads=tuple(HeadConfig(name=name, fitting=fitting) for name in heads),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Potential(config)


def write_example_files(folder: Path) -> None:
    """Write all of them."""
    _structures(folder)
    _trajectories(folder)
    _inputs_of_others(folder)
    (folder / "runs/water-teacher").mkdir(parents=True)
    write_deepmd(model("water", "metal"), folder / "model.pt")
    for name in ("student", "other"):
        write_deepmd(model("water"), folder / f"{name}.pt")
    for name in ("model", "student"):
        save_checkpoint(model("water"), folder / f"{name}.safetensors")
    save_checkpoint(model("H2O-PBE0TS"), folder / "runs/water-teacher/model.safetensors")
    for name in ("mine", "scf"):
        (folder / "runs" / name).mkdir()
    (folder / "runs/scf/OUTCAR").write_text(outcar([(3, "because EDIFF is reached")] * 3))
    save_checkpoint(model("water"), folder / "runs/mine/model.safetensors")
    write_deepmd(model("H2O_H2O_PD", "Domains_Alloy"), folder / "DPA-2.4-7M.pt")
    named = {"train": ("water", "run"), "finetune": ("mine",), "distill": ("distil",), "learn": ("ethanol",)}
    for verb, names in named.items():
        example = build_parser(verb)._subparsers._group_actions[0].choices[verb].epilog.split("a file:\n")[1]
        lines = [line for line in example.splitlines() if line.startswith("  ")]
        for name in names:
            text = textwrap.dedent("\n".join(lines))
            text = text.replace("tblite.ase.TBLite", "ase.calculators.emt.EMT")  # which is always there
            (folder / f"{name}.toml").write_text(re.sub("(?m)^arguments = .*$", "", text))
    given = json.loads((ROOT / "tests/data/inputs/se_e2_a.json").read_text())
    given["model"]["type_map"] = ["H", "O"]
    given["training"]["training_data"]["systems"] = ["train.extxyz"]
    given["training"]["validation_data"]["systems"] = ["test.extxyz"]
    (folder / "input.json").write_text(json.dumps(given))
    (folder / "examples").mkdir()
    shutil.copy(ROOT / "examples/default_model.toml", folder / "examples")


def _structures(folder: Path) -> None:
    for name in ("Cu.cif", "cu.cif", "a.cif", "b.cif"):
        write(folder / name, bulk("Cu", cubic=True))
    write(folder / "Si.cif", bulk("Si"))
    write(folder / "MgO.cif", sort(bulk("MgO", "rocksalt", a=4.21, cubic=True)))
    write(folder / "POSCAR", bulk("Cu", cubic=True))
    write(folder / "molecule.xyz", molecule("H2O"))
    slab = fcc111("Cu", (3, 3, 4), vacuum=7.0)
    add_adsorbate(slab, molecule("CO"), 2.0, "ontop")
    slab.info.clear()
    write(folder / "slab.extxyz", slab)
    for name, atoms in zip(("initial", "final"), vacancy_hop(bulk("Cu", a=3.6), min_length=7.0)):
        write(folder / f"{name}.extxyz", atoms)
    write(folder / "PbTiO3.cif", perovskite("Pb", "Ti", repeats=(1, 1, 1), lattice_constant=3.93))
    write(folder / "start.extxyz", perovskite("Pb", "Ti", repeats=(4, 4, 4), lattice_constant=3.93))


def _inputs_of_others(folder: Path) -> None:
    (folder / "in.water").write_text("units metal\npair_style dpa2calc\npair_coeff * * O H\nrun 0\n")


def _trajectories(folder: Path) -> None:
    names = ("water", "ice", "frames", "train", "test", "ferroele", "dft", "water64", "held-out")
    for seed, name in enumerate(names):
        frames = [water(10 * seed + k) for k in range(1 if name in ("water", "water64") else 5)]
        for ending in ("extxyz", "extxyz.xz"):
            write(folder / f"{name}.{ending}", frames)
    labelled = [water(k) for k in range(5)]
    for atoms in labelled:
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = -3750.0, atoms.get_forces()
        atoms.calc = None
    write(folder / "train.xyz", labelled, format="extxyz")
    for name in ("water", "water64"):
        (folder / "md" / name).mkdir(parents=True)
    for name in ("md.traj", "md/water/trajectory.traj", "md/water64/trajectory.traj"):
        write(folder / name, [water(k) for k in range(40)])
    for seed, kelvin in enumerate((500, 600, 700, 900)):
        write(folder / f"{kelvin}K.traj", walkers(seed))
