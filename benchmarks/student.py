"""The compressed student against its teachers and against deepmd-kit's compressed models, in one run.

    python benchmarks/student.py [--systems "water 192" ...] [--threads 2] [--repeats 5] [--skip-teachers]
    python benchmarks/student.py --sizes 1536 12288 98304 1029000      # cost and memory against size

Float32, energy + forces + virial through the ASE calculators, positions changed at every call, all
engines in processes of their own and their calls interleaved. Weights are random, and the same for both
programs where they run the same model. Set DPA2CALC_DEEPMD_PYTHON to compare with deepmd-kit; its models
are frozen and compressed by its own `dp`. Prints a table and writes results/student.json.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from ase.spacegroup import crystal
from common import DEEPMD_PYTHON, HERE, Engine, in_turn, machine, parser_for, ran, save

TYPES = {"water": ("O", "H"), "Li10GeP2S12": ("Li", "Ge", "P", "S"), "PbTiO3": ("Pb", "Ti", "O")}
SEL = {"water": (46, 92), "Li10GeP2S12": (70, 20, 20, 80), "PbTiO3": (30, 30, 80)}
ATOMS_A_TURN = 50_000  # of `--sizes`: smaller systems are called several times
SYSTEMS = ("water 192", "water 1536", "water 12288", "Li10GeP2S12 900", "PbTiO3 2560")


def water(n_atoms: int) -> Atoms:
    """The box of 64 molecules, repeated to at least `n_atoms`."""
    box = read(HERE.parent / "examples" / "data" / "water64.extxyz")
    counts = [1, 1, 1]
    while 192 * np.prod(counts) < n_atoms:
        counts[int(np.argmin(counts))] += 1
    return box.repeat(tuple(counts))


def lgps() -> Atoms:
    """900 atoms with the density and composition of Li10GeP2S12: 2 x 3 x 3 cells of 50 sites."""
    rng = np.random.default_rng(0)
    sites = bulk("Li", "fcc", 1.0, cubic=True).repeat((3, 3, 2)).get_scaled_positions()
    sites = rng.permutation(sites)[:50]
    cell = Atoms("Li20Ge2P4S24", scaled_positions=sites, cell=[8.72, 8.72, 12.63], pbc=True)
    cell.numbers = rng.permutation(cell.numbers)
    return cell.repeat((3, 3, 2))


def structures() -> dict[str, Atoms]:
    """All systems."""
    perovskite = crystal(
        ["Pb", "Ti", "O"],
        [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)],
        spacegroup=221,
        cellpar=[3.97] * 3 + [90] * 3,
    )
    out = {f"water {n}": water(n) for n in (192, 1536, 12288)}
    out["Li10GeP2S12 900"], out["PbTiO3 2560"] = lgps(), perovskite.repeat((8, 8, 8))
    for name in ("Li10GeP2S12 900", "PbTiO3 2560"):
        out[name].rattle(0.05, rng=np.random.default_rng(0))
    return out


def model_files(
    kind: str, folder: Path, *, with_deepmd: bool, names: tuple[str, ...] = ("dpa1-l0", "deeppot-se", "paper")
) -> dict[str, Path]:
    """Student, DeepPot-SE and teacher of one chemistry; deepmd-kit's frozen and compressed forms."""
    from dpa2calc.deepmd.write import write_deepmd
    from dpa2calc.model.config import DeepPotSEConfig, DPA1Config
    from dpa2calc.model.config.presets import preset
    from dpa2calc.model.potential import Potential

    paths = {}
    for name in names:
        torch.manual_seed(1)
        config = dataclasses.replace(
            preset(name, TYPES[kind]), neighbor_rule="nearest", min_neighbor_distance=0.7
        )
        if name == "deeppot-se":
            config = dataclasses.replace(config, descriptor=DeepPotSEConfig(sel=SEL[kind], axis_neuron=12))
        if isinstance(config.descriptor, DPA1Config):  # deepmd-kit tabulates strip mode only
            student = dataclasses.replace(config.descriptor, tebd_input_mode="strip", nsel=sum(SEL[kind]))
            config = dataclasses.replace(config, descriptor=student)
        paths[name] = write_deepmd(Potential(config, dtype=torch.float32), folder / f"{kind}_{name}.pt")
    if with_deepmd:
        for name in set(names) - {"paper"}:
            paths[f"{name} deepmd"] = deepmd_compressed(paths[name])
    return paths


def deepmd_compressed(model: Path) -> Path:
    """`dp --pt freeze` and `dp --pt compress` of a checkpoint."""
    dp = [str(Path(DEEPMD_PYTHON).parent / "dp"), "--pt"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    frozen, small = model.with_suffix(".frozen.pth"), model.with_suffix(".compressed.pth")
    for command in (
        ["freeze", "-c", str(model), "-o", str(frozen)],
        ["compress", "-i", str(frozen), "-o", str(small)],
    ):
        ran([*dp, *command], env=environment, cwd=model.parent)
    return small


def engines(
    files: dict[str, Path], structure: Path, threads: int, n_atoms: int, *, teachers: bool
) -> dict[str, Engine]:
    """All engines that can take the system."""
    made: dict[str, Engine] = {
        "student": Engine("dpa2calc", files["dpa1-l0"], structure, threads, "compressed"),
        "deeppot-se": Engine("dpa2calc", files["deeppot-se"], structure, threads, "compressed"),
    }
    if teachers and n_atoms < 4000:
        made["paper"] = Engine("dpa2calc", files["paper"], structure, threads, "plain")
    if DEEPMD_PYTHON and n_atoms < 3000:  # its neighbour list takes 10 GB at 4000 atoms
        made["student deepmd"] = Engine("deepmd", files["dpa1-l0 deepmd"], structure, threads)
        made["deeppot-se deepmd"] = Engine("deepmd", files["deeppot-se deepmd"], structure, threads)
        if teachers and n_atoms < 1000:
            made["paper deepmd"] = Engine("deepmd", files["paper"], structure, threads)
    return made


def overhead(model: Path, atoms: Atoms) -> float:
    """Share of a step that is not kernels and matrix products (one thread, CPU time)."""
    from dpa2calc import DPA2Calculator

    torch.set_num_threads(1)
    atoms = atoms.copy()
    atoms.calc = DPA2Calculator(model, dtype="float32", compress=True)
    atoms.get_forces()
    stream = atoms.calc._streams[0]
    inside = 0.0

    def timed(function: Any) -> Any:
        def run(*args: Any) -> Any:
            nonlocal inside
            begin = time.process_time()
            result = function(*args)
            inside += time.process_time() - begin
            return result

        return run

    stream.workers.run = timed(stream.workers.run)
    shares, rng = [], np.random.default_rng(0)
    for _ in range(8):
        atoms.positions += rng.normal(0.0, 0.005, atoms.positions.shape)
        inside, begin = 0.0, time.process_time()
        atoms.get_forces(), atoms.get_stress()
        shares.append(1.0 - inside / (time.process_time() - begin))
    return min(shares)


def compare(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """The table of ratios, a row for each system."""
    known: dict[str, dict[str, Path]] = {}
    for name, atoms in structures().items():
        if name not in args.systems:
            continue
        kind = name.split()[0]
        if kind not in known:
            known[kind] = model_files(kind, folder, with_deepmd=bool(DEEPMD_PYTHON))
        path = folder / f"{name.replace(' ', '_')}.extxyz"
        write(path, atoms)
        running = engines(known[kind], path, args.threads, len(atoms), teachers=not args.skip_teachers)
        record = in_turn(running, args.repeats)
        row = {"system": name, "atoms": len(atoms), "threads": args.threads, "engines": record}
        row["ratios"] = {
            key: value["min"] / record["deeppot-se" if key.startswith("deeppot") else "student"]["min"]
            for key, value in record.items()
        }
        row["overhead"] = overhead(known[kind]["dpa1-l0"], atoms)
        print(f"{name} ({len(atoms)} atoms, {args.threads} threads)")
        for key, value in record.items():
            wall, cpu = (1e6 * value[clock] / len(atoms) for clock in ("min", "cpu"))
            line = f"  {key:18s} {wall:10.1f} us/atom (CPU {cpu:8.1f}) {value['peak_mb']:8.0f} MB"
            print(f"{line}  {row['ratios'][key]:7.1f} x", flush=True)
        print(f"  all but the model  {100 * row['overhead']:.1f} % (one thread)", flush=True)
        yield row


def sizes(args: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Cost an atom and peak memory against size, each size and model in a process of its own.

    All sizes of the student take turns, small ones with several calls a turn, so that a slow minute of the
    machine meets all of them; each is compared with the cheapest. The teacher is measured up to 6000 atoms;
    `fits` is what would fit 16 GiB at its memory an atom.
    """
    files = model_files("water", folder, with_deepmd=False)
    counts, students, teachers = {}, {}, {}
    for least in args.sizes:
        atoms = water(least)
        path, n = folder / f"{len(atoms)}.extxyz", len(atoms)
        write(path, atoms)
        name = f"student {n}"
        counts[name] = n
        students[name] = Engine("dpa2calc", files["dpa1-l0"], path, args.threads, "compressed")
        if n < 6000 and not args.skip_teachers:
            teachers[f"paper {n}"] = path
            counts[f"paper {n}"] = n
    turns = {name: max(1, ATOMS_A_TURN // counts[name]) for name in students}
    found = in_turn(students, args.repeats, turns)
    for name, path in teachers.items():
        engine = Engine("dpa2calc", files["paper"], path, args.threads, "plain")
        found |= in_turn({name: engine}, min(3, args.repeats))
    least_cost = min(found[name]["min"] / counts[name] for name in students)
    for name, record in found.items():
        kind, n = name.split()[0], counts[name]
        wall, cpu = (1e6 * record[clock] / n for clock in ("min", "cpu"))
        line = f"{kind:8s} {n:8d} atoms {wall:8.1f} us/atom (CPU {cpu:8.1f}) {record['peak_mb']:8.0f} MB"
        row = {"model": kind, "atoms": n, "fits": n * 16384 / record["peak_mb"], **record}
        if kind == "student":
            row["above_cheapest"] = record["min"] / n / least_cost - 1.0
            line += f"  {100 * row['above_cheapest']:+5.1f} % against the cheapest"
        print(line, flush=True)
        yield row


def main() -> None:
    """Run what was asked for."""
    parser = parser_for(__doc__)
    parser.add_argument("--systems", nargs="*", default=SYSTEMS)
    parser.add_argument("--sizes", nargs="*", type=int, default=())
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip-teachers", action="store_true")
    parser.add_argument("--name", default="student", help="name of the JSON file in results/")
    args = parser.parse_args()
    about = machine()
    print(f"{about['cpu']}, {about['cores']} cores, torch {about['torch']}, {about['matmul_gflops']} GFLOP/s")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        key, rows = ("sizes", sizes(args, folder)) if args.sizes else ("systems", compare(args, folder))
        for row in rows:  # each row is kept, whatever happens to the next
            keep(args.name, key, {**row, "machine": about})


def keep(name: str, key: str, row: dict[str, Any]) -> None:
    """Put a row into the record, in place of an older one of the same case; other cases stay."""
    path = HERE / "results" / f"{name}.json"
    record = json.loads(path.read_text()) if path.exists() else {"systems": [], "sizes": []}
    case = ("system", "threads") if key == "systems" else ("model", "atoms")
    others = [old for old in record[key] if any(old[c] != row[c] for c in case)]
    record[key] = sorted([*others, row], key=lambda r: [str(r[c]).rjust(20) for c in case])
    save(name, json.loads(json.dumps(record, default=float)))


if __name__ == "__main__":
    main()
