"""How many labels active learning saves, with a real electronic-structure program (docs/active_learning.md).

    python examples/active_learning.py --output runs/active          # the default model; hours on one core
    python examples/active_learning.py --output runs/active --quick  # a small model

Needs tblite (`pip install tblite`) for labels of GFN2-xTB, and PySCF (`pip install pyscf`) for those of PBE.
For each system: dynamics of GFN2-xTB gives an independent test trajectory and a pool of frames, which the
system's program labels; a model is taken through active learning; then models are trained alike on the first
labels of active learning, on as many frames drawn at random from the pool, and on those from scratch. Prints
the force errors and the labels that are saved, and draws them.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from dpa2calc.files.atomic import write_json
from dpa2calc.files.figures import Axes, save_figure
from dpa2calc.model.config import DPA1Config, FittingConfig
from dpa2calc.training import (
    Dataset,
    FinetuneConfig,
    TrainConfig,
    TrainingSet,
    active_learning,
    evaluate,
    finetune,
    model_for,
    train,
)
from dpa2calc.training.data.readers.frame_file import labelled, read_frames, write_frames

KINDS = ("active learning", "random frames", "from scratch")


class PySCF(Calculator):
    """PBE in a def2-SVP basis, density fitted, of a neutral closed-shell molecule."""

    implemented_properties = ["energy", "forces"]
    ignored_changes = {"cell", "pbc"}

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        from pyscf import dft, gto

        super().calculate(atoms, properties, system_changes)
        places = [(atom.symbol, atom.position) for atom in self.atoms]
        molecule_ = gto.M(atom=places, basis="def2-svp", unit="Angstrom", verbose=0)
        method = dft.RKS(molecule_, xc="PBE").density_fit()
        energy = method.kernel()
        if not method.converged:
            raise RuntimeError("the self-consistent field has not converged")
        gradient = method.nuc_grad_method().kernel()
        self.results = {
            "energy": energy * units.Hartree,
            "forces": -gradient * units.Hartree / units.Bohr,
        }


def xtb() -> Calculator:
    """GFN2-xTB."""
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", verbosity=0)


@dataclasses.dataclass(frozen=True)
class System:
    """A molecule or cluster, the temperature (K) of its dynamics, and the program that labels."""

    atoms: Callable[[], Atoms]
    temperature: float
    program: Callable[[], Calculator] = xtb


@dataclasses.dataclass(frozen=True)
class Effort:
    """How much is done: of training, of dynamics, of labels."""

    model: str  # "" is a small model, trained here on other molecules
    steps: int
    loop_steps: int
    md_steps: int
    sizes: tuple[int, ...]
    test_frames: int
    batch_atoms: int


FULL = Effort("default", 400, 200, 400, (4, 8, 16, 32), 60, 64)
QUICK = Effort("", 800, 200, 300, (4, 8, 16, 32), 60, 72)


def water_trimer() -> Atoms:
    """Three waters in a ring, before relaxation."""
    ring = Atoms()
    for k in range(3):
        water = molecule("H2O")
        water.rotate(120 * k + 90, "z", center=(0, 0, 0))
        water.translate(1.65 * np.array([np.cos(2.0944 * k), np.sin(2.0944 * k), 0.0]))
        ring += water
    return ring


SYSTEMS = {
    "ethanol": System(lambda: molecule("CH3CH2OH"), 500),
    "water trimer": System(water_trimer, 200),
    "formic acid, PBE": System(lambda: molecule("HCOOH"), 500, PySCF),
}
OTHERS = ("CH3OH", "CH3OCH3", "C2H6", "CH3CHO", "H2O", "H2CO", "C3H8")


def dynamics(start: Atoms, system: System, n: int, *, seed: int, interval: int = 40) -> list[Atoms]:
    """Frames of dynamics with GFN2-xTB (0.5 fs), after 300 steps, labelled by the system's program."""
    atoms, rng, temperature = start.copy(), np.random.default_rng(seed), system.temperature
    atoms.calc = xtb()
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    run = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.02, rng=rng)
    run.run(300)
    frames = []
    for _ in range(n):
        run.run(interval)
        frame = atoms.copy()
        frame.calc = system.program()
        frame.get_forces()
        frames.append(labelled(frame, frame.calc))
    return frames


def kept(path: Path, make: Callable[[], list[Atoms]]) -> list[Atoms]:
    """Frames of a file, made where it is missing."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_frames(path, make())
    return read_frames(path)


def relaxed(system: System) -> Atoms:
    """At the program's minimum."""
    atoms = system.atoms()
    atoms.calc = system.program()
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
    return Atoms(numbers=atoms.numbers, positions=atoms.positions)


def small_config(sets: dict[str, TrainingSet | Dataset]):
    """A small DPA-1 without attention for C, H and O."""
    descriptor = DPA1Config(
        attn_layer=0, cutoff=5.0, cutoff_smooth=1.0, nsel=40, neuron=(8, 16, 32), axis_neuron=8, tebd_dim=4
    )
    base = model_for("dpa1-l0", sets, type_map=("H", "C", "O"))
    head = dataclasses.replace(base.heads[0], fitting=FittingConfig(neuron=(64, 64, 64)))
    return dataclasses.replace(base, descriptor=descriptor).with_heads((head,))


def others(name: str) -> list[Atoms]:
    """Frames of another molecule."""
    return dynamics(molecule(name), System(lambda: molecule(name), 800), 24, seed=7)


def base_model(output: Path, effort: Effort) -> str:
    """What is fine-tuned: the default model, or a small one that learned other molecules first."""
    if effort.model:
        return effort.model
    frames = []
    for name in OTHERS:
        made = kept(output / f"others/{name}.extxyz", lambda n=name: others(n))
        frames += made
    data = Dataset.from_atoms(frames, name="molecules")
    config = TrainConfig(steps=4 * effort.steps, batch_atoms=effort.batch_atoms)
    train(small_config({"molecules": data}), data, config, output=output / "base", progress=False)
    return str(output / "base/model.safetensors")


def fine_tuning(effort: Effort, steps: int) -> FinetuneConfig:
    """The same for all kinds."""
    given = FinetuneConfig(steps=steps, batch_atoms=effort.batch_atoms)
    return given if effort.model else dataclasses.replace(given, learning_rate=1e-2)


def run_system(name: str, output: Path, effort: Effort) -> dict[str, object]:
    """Errors of all kinds by number of labels, meV/Å."""
    system, folder = SYSTEMS[name], output / name.replace(" ", "_").replace(",", "")
    (start,) = kept(folder / "start.extxyz", lambda: [relaxed(system)])
    test = kept(folder / "test.extxyz", lambda: dynamics(start, system, effort.test_frames, seed=1))
    pool = kept(folder / "pool.extxyz", lambda: dynamics(start, system, 3 * max(effort.sizes), seed=2))
    model, held = base_model(output, effort), Dataset.from_atoms(test, name="test")
    first = effort.sizes[0]
    result = active_learning(
        model,
        label=system.program(),
        start=start,
        md={
            "temperature": system.temperature,
            "timestep": 0.5,
            "steps": effort.md_steps,
            "sample_interval": 20,
        },
        output=folder / "active",
        train=fine_tuning(effort, effort.loop_steps),
        perturbed=first - 1,
        frames_per_round=first,
        budget=max(effort.sizes),
        max_rounds=30,
        threshold=0.1,
        test=held,
    )
    print(result.summary(), flush=True)
    learned = result.frames()
    drawn = Dataset.from_atoms(pool, name="pool").subset(
        np.random.default_rng(3).permutation(len(pool))[: max(effort.sizes)].tolist()
    )
    errors: dict[str, list[float]] = {kind: [] for kind in KINDS}
    sizes = [n for n in effort.sizes if n <= len(learned)]
    for n in sizes:
        for kind in KINDS:
            data = (learned if kind == KINDS[0] else drawn).subset(range(n))
            data = dataclasses.replace(data, name="own")
            path = folder / f"{kind.replace(' ', '_')}-{n}"
            options = fine_tuning(effort, effort.steps)
            if kind == KINDS[2]:
                shape = small_config({"own": data}) if not effort.model else "small"
                plain = TrainConfig(steps=effort.steps, batch_atoms=effort.batch_atoms)
                made = train(shape, data, plain, output=path, progress=False)
            else:
                made = finetune(model, data, options, output=path, name="own", progress=False)
            errors[kind].append(float(evaluate(made.potential, held).errors.force_rmse or np.nan))
            print(f"{name}: {n} labels, {kind}: {errors[kind][-1]:.1f} meV/Å", flush=True)
    zero = 1e3 * float(np.sqrt(np.mean([np.mean(f.forces**2) for f in held])))
    return {"sizes": sizes, "errors": errors, "zero forces": zero, "reason": result.reason}


def saved(sizes: list[int], ours: list[float], theirs: list[float]) -> float | None:
    """How many times the labels `theirs` needs for the error that `ours` has with half of all, or None."""
    best, n = ours[len(ours) // 2], sizes[len(ours) // 2]
    falling = np.minimum.accumulate(theirs)
    if best < falling[-1]:
        return None  # more than were tried
    if best > falling[0]:
        return sizes[0] / n
    return float(np.exp(np.interp(-np.log(best), -np.log(falling), np.log(sizes)))) / n


def report(found: dict[str, dict], output: Path) -> None:
    """Tables on the screen, and a figure with a panel for each system."""
    for name, one in found.items():
        sizes, errors = one["sizes"], one["errors"]
        zero = one["zero forces"]
        print(f"\n{name}: force RMSE on an independent trajectory, meV/Å (zero forces {zero:.0f})")
        print(f"{'labels':>8} " + " ".join(f"{kind:>16}" for kind in KINDS))
        for k, n in enumerate(sizes):
            print(f"{n:>8} " + " ".join(f"{errors[kind][k]:>16.1f}" for kind in KINDS))
        for kind in KINDS[1:]:
            factor = saved(sizes, errors[KINDS[0]], errors[kind])
            n = sizes[len(sizes) // 2]
            text = f"more than {sizes[-1] / n:.1f}" if factor is None else f"{factor:.1f}"
            print(f"for the error of active learning with {n} labels, {kind} need {text} times as many")

    def draw(axes: list[Axes]) -> None:
        for axis, (name, one) in zip(axes, found.items()):
            for kind, style in zip(KINDS, ("o-", "s--", "^:")):
                axis.plot(one["sizes"], one["errors"][kind], style, label=kind)
            axis.set(title=name, xlabel="labels", ylabel="force RMSE (meV/Å)", xscale="log")
            axis.set_xticks(one["sizes"], [str(n) for n in one["sizes"]], minor=False)
            axis.set_ylim(bottom=0)
            axis.minorticks_off()
            axis.legend(fontsize=8)

    save_figure(output / "active_learning.png", draw, panels=len(found), size=(5 * len(found), 4))


def main() -> None:
    """Read options, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/active_learning"))
    parser.add_argument("--systems", nargs="+", choices=sorted(SYSTEMS), default=list(SYSTEMS))
    parser.add_argument("--quick", action="store_true", help="a small model, few frames")
    args = parser.parse_args()
    torch.set_num_threads(1)
    record = args.output / "active_learning.json"
    found = json.loads(record.read_text()) if record.exists() else {}
    for name in args.systems:
        found[name] = run_system(name, args.output, QUICK if args.quick else FULL)
        write_json(record, found)
    report(found, args.output)


if __name__ == "__main__":
    main()
