"""What a GPU gives: inference, many molecules, training; the CPU of the same machine beside it.

    python benchmarks/gpu.py --output gpu.json [--device cuda] [--seconds 300]
    python benchmarks/gpu.py --output dry.json --device cpu --quick        # the dry run, on any machine

float32, TF32 off, energy + forces + virial through the ASE calculator, positions changed every call within
the skin. Every case is written to the JSON as soon as it is measured, and one that fails, takes too long or
runs out of memory loses nothing else. The same command with the same output measures what is missing. Tables
of kernels go to profiles.txt beside the JSON.

Exit status: 0 all measured; 1 a case failed; 75 the GPU refuses further work in this process: run it again.
"""

import dataclasses
import functools
import gc
import json
import re
import signal
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.collections import g2
from ase.io import read
from common import HERE, parser_for
from gpu_measure import Steps, about, gflop, kernels, load_average, peak_memory, phases, wait, waits

from dpa2calc import DPA2Calculator, load_model
from dpa2calc.files.atomic import write_json
from dpa2calc.model.config.presets import preset
from dpa2calc.model.potential import Potential
from dpa2calc.training import Dataset, TrainConfig, train

BOXES = {192: (1, 1, 1), 1536: (2, 2, 2), 6144: (4, 4, 2), 19200: (5, 5, 4), 98304: (8, 8, 8)}
MODELS = ("paper", "default", "medium", "small", "student-water", "dpa1-l0")
HEADS = {"default": "H2O-PBE0TS"}
CASE_SECONDS = 60  # one case is given up after this
AGAIN = 75  # exit status: the context is lost, the next process continues
Case = Callable[[dict[str, Any]], None]


class TookTooLong(Exception):
    """A case passed its time."""


def water(n_atoms: int) -> Atoms:
    """The box of 64 molecules, repeated."""
    return read(HERE.parent / "examples" / "data" / "water64.extxyz").repeat(BOXES[n_atoms])


@functools.cache
def potential(name: str) -> Potential:
    """A shipped model, or a preset with fixed random weights; on the CPU."""
    if name not in ("paper", "medium", "small", "dpa1-l0"):
        return load_model(name)
    torch.manual_seed(1)
    config = dataclasses.replace(preset(name, ("O", "H")), neighbor_rule="nearest")
    return Potential(config, dtype=torch.float32)


def inference(
    name: str, size: int, device: str, report: Path, seconds: float, record: dict[str, Any]
) -> None:
    """Times, parts, waits and kernels of a step, and its memory."""
    steps = Steps(DPA2Calculator(potential(name), HEADS.get(name), device=device), water(size), device)
    with peak_memory(device, record):
        record["first_s"] = round(steps.timed(), 3)
        record["second_s"] = round(steps.timed(), 3)
        times = steps.times(seconds)
    record |= {"ms": round(1e3 * statistics.median(times), 3), "ms_min": round(1e3 * min(times), 3)}
    record |= {"us_per_atom": round(1e6 * statistics.median(times) / size, 2), "calls": len(times)}
    builders = set(getattr(steps.atoms.calc, "_builders", []))
    record["searches"] = sum(builder.neighbors.n_searches for builder in builders)
    record["parts_ms"] = phases(steps)
    record |= waits(steps, device)
    if size in (192, 6144):
        record |= kernels(steps, device, f"{name}, {size} atoms of water, {device}", report)
    if size == 192:
        record["gflop"] = round(gflop(steps), 3)
    if size == 192 and device != "cpu":
        compare(name, steps.atoms, device, record)


def compare(name: str, atoms: Atoms, device: str, record: dict[str, Any]) -> None:
    """Largest difference of forces (eV/Å) and energies (eV/atom) from float64 on the CPU."""
    exact = atoms.copy()
    exact.calc = DPA2Calculator(
        potential(name), HEADS.get(name), device="cpu", dtype="float64", compress=False
    )
    record["force_error"] = float(np.abs(atoms.get_forces() - exact.get_forces()).max())
    record["force_largest"] = float(np.abs(exact.get_forces()).max())
    difference = atoms.get_potential_energy() - exact.get_potential_energy()
    record["energy_error"] = float(abs(difference) / len(atoms))


def molecules(count: int, device: str, record: dict[str, Any]) -> None:
    """`evaluate` of many molecules against a loop of single calls (over a part of them)."""
    names = [n for n in g2.names if set(molecule(n).symbols) <= set("HCNO") and len(molecule(n)) > 1]
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        atoms = molecule(names[number % len(names)])
        atoms.rattle(0.02, rng=rng)
        found.append(atoms)
    calc = DPA2Calculator("default", "Mol-AcAc", device=device, allow_unseen_elements=True)
    some = found[: max(10, count // 10)]
    for atoms in some[:3]:
        calc.get_forces(atoms)
    wait(device)
    begin = time.perf_counter()
    for atoms in some:
        calc.get_forces(atoms)
    record["loop_ms_each"] = round(1e3 * (time.perf_counter() - begin) / len(some), 3)
    for batch in (1024, 8192):
        calc.evaluate(found[:50], batch_atoms=batch)
        begin = time.perf_counter()
        calc.evaluate(found, batch_atoms=batch)
        record[f"evaluate_ms_each_{batch}"] = round(1e3 * (time.perf_counter() - begin) / count, 3)
        record[f"ratio_{batch}"] = round(record["loop_ms_each"] / record[f"evaluate_ms_each_{batch}"], 1)


def labelled_water(frames: int) -> Dataset:
    """Boxes of water with labels out of the air."""
    rng, out = np.random.default_rng(0), []
    for _ in range(frames):
        atoms = water(192)
        atoms.positions += rng.normal(0.0, 0.05, atoms.positions.shape)
        atoms.calc = SinglePointCalculator(
            atoms, energy=-1000.0, forces=rng.normal(size=atoms.positions.shape)
        )
        out.append(atoms)
    return Dataset.from_atoms(out)


def training(
    name: str, batch_atoms: int, optimizer: str, device: str, steps: int, record: dict[str, Any]
) -> None:
    """Seconds a step, and the share of it spent waiting for batches, both after the first steps."""
    torch.manual_seed(1)
    start = Potential(preset(name, ("O", "H")), dtype=torch.float32)
    data = labelled_water(max(2, 2 * batch_atoms // 192))
    config = TrainConfig(
        steps=steps, batch_atoms=batch_atoms, optimizer=optimizer, device=device, log_every=2,
        learning_rate=1e-3, time_limit=CASE_SECONDS / 3, final_bias_frames=0, checkpoint_every=10**6,
    )  # fmt: skip
    head = start.config.heads[0].name
    with tempfile.TemporaryDirectory() as folder, peak_memory(device, record):
        result = train(start, data, config, output=folder, head=head, progress=False)
    lines = result.history.train[1:] or result.history.train
    record["s_per_step"] = round(statistics.median(1.0 / line["steps_per_second"] for line in lines), 4)
    record["steps_per_s"] = round(1.0 / record["s_per_step"], 3)
    record["waiting"] = round(statistics.median(line["waiting"] for line in lines), 3)
    record |= {"us_per_atom": round(1e6 * record["s_per_step"] / batch_atoms, 2), "steps": result.steps}


def cases(device: str, report: Path, *, quick: bool) -> dict[str, Case]:
    """All cases by name, the most wanted first."""
    out: dict[str, Case] = {}

    def infer(names: tuple[str, ...], size: int, place: str, seconds: float) -> None:
        for name in names:
            key = f"inference {name} {size} {place}"
            out[key] = functools.partial(inference, name, size, place, report, seconds)

    def learn(name: str, batch: int, optimizer: str, place: str, steps: int) -> None:
        key = f"training {name} {batch} {optimizer} {place}"
        out[key] = functools.partial(training, name, batch, optimizer, place, steps)

    if quick:
        infer(("small", "student-water"), 192, device, 0.5)
        out[f"molecules 20 {device}"] = functools.partial(molecules, 20, device)
        learn("small", 192, "soap", device, 4)
        return out
    infer(MODELS, 192, device, 2.0)
    infer(MODELS, 1536, device, 2.0)
    out[f"molecules 1000 {device}"] = functools.partial(molecules, 1000, device)
    for name in ("small", "medium", "paper"):
        learn(name, 192, "adam", device, 20)
        learn(name, 4000, "adam", device, 8)
    infer(MODELS, 19200, device, 2.0)
    infer(("student-water",), 98304, device, 2.0)
    infer(MODELS[:5], 192, "cpu", 1.0)
    infer(MODELS, 6144, device, 2.0)
    for name in ("small", "medium", "paper"):
        learn(name, 16000, "adam", device, 6)
        learn(name, 192, "adam", "cpu", 6)
    learn("medium", 192, "soap", device, 40)
    infer(MODELS[:5], 1536, "cpu", 1.0)
    out["molecules 200 cpu"] = functools.partial(molecules, 200, "cpu")
    return out


class Results:
    """The JSON: cases by name; one that was begun and never ended killed its process."""

    def __init__(self, path: Path, device: str):
        self.path = path
        self.content = (
            json.loads(path.read_text()) if path.exists() else {"machine": about(device), "cases": {}}
        )
        for record in self.content["cases"].values():
            if record.pop("begun", False):
                record["error"] = "the process ended in this case"
        self.save()

    def save(self) -> None:
        """Write all of it."""
        write_json(self.path, self.content)

    def run(self, name: str, case: Case) -> bool:
        """Measure one case; False if the GPU takes no more work from this process."""
        record: dict[str, Any] = {"begun": True, "load": load_average()}
        self.content["cases"][name] = record
        self.save()
        alive, begin = True, time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, CASE_SECONDS)
        try:
            case(record)
        except torch.OutOfMemoryError as error:
            record["out_of_memory"] = str(error).splitlines()[0]
        except TookTooLong:
            record["gave_up_after_s"] = CASE_SECONDS
        except Exception as error:  # whatever it is, the next case is tried
            record["error"] = f"{type(error).__name__}: {error}"[:2000]
            record["traceback"] = traceback.format_exc()[-4000:]
            alive = "CUDA error" not in str(error) and "device-side assert" not in str(error)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        record.pop("begun")
        record["case_s"] = round(time.perf_counter() - begin, 1)
        self.save()
        print(f"{time.strftime('%H:%M:%S')} {name}: {shown(record)}", flush=True)
        return alive


def shown(record: dict[str, Any]) -> str:
    """A case on one line."""
    for key in ("error", "out_of_memory", "gave_up_after_s"):
        if key in record:
            return f"{key}: {str(record[key]).splitlines()[0]}"
    long = ("traceback", "synchronisations_at", "load", "runtime_calls")
    return ", ".join(f"{key} {value}" for key, value in record.items() if key not in long)


def _too_long(*_: Any) -> None:
    raise TookTooLong


def main() -> int:
    """Measure what is missing in the output."""
    parser = parser_for(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON file, added to")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="a few small cases only")
    parser.add_argument("--only", default="", help="cases whose name matches this regular expression")
    parser.add_argument("--seconds", type=float, default=300.0, help="no case is begun after this")
    args = parser.parse_args()
    begin = time.perf_counter()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    signal.signal(signal.SIGALRM, _too_long)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    results = Results(args.output, args.device)
    print({k: v for k, v in results.content["machine"].items() if k != "packages"}, flush=True)
    found = results.content["cases"]
    for name, case in cases(args.device, args.output.with_name("profiles.txt"), quick=args.quick).items():
        if name in found or not re.search(args.only, name):
            continue
        if time.perf_counter() - begin > args.seconds:
            print("no time left for:", name, flush=True)
            continue
        if not results.run(name, case):
            return AGAIN
        gc.collect()
    return int(any("error" in record for record in found.values()))


if __name__ == "__main__":
    sys.exit(main())
