"""What the benchmarks share: the machine, structures, models, engines in processes of their own."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DEEPMD_PYTHON = os.environ.get("DPA2CALC_DEEPMD_PYTHON", "")
PEERS_PYTHON = os.environ.get("DPA2CALC_PEERS_PYTHON", "")
TYPE_MAP = ("O", "H", "Cu", "C")


def machine() -> dict[str, Any]:
    """Processor, cores, torch version and the measured float32 matmul peak on 1 and 2 threads."""
    cpu = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line), "?")
    before = torch.get_num_threads()
    peaks = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        peaks[str(threads)] = round(matmul_peak(), 1)
    torch.set_num_threads(before)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "matmul_gflops": peaks,
        "date": time.strftime("%Y-%m-%d"),
    }


def ran(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """A program that has run; a RuntimeError with its last words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise RuntimeError(f"`{' '.join(command)}` failed with exit code {done.returncode}:\n{said}")
    return done


def matmul_peak(size: int = 1024) -> float:
    """GFLOP/s of a float32 matrix product."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(8):
        begin = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best / 1e9


def structures() -> dict[str, Atoms]:
    """The systems of the tables: liquid water, copper, one molecule."""
    water = read(HERE.parent / "examples" / "data" / "water64.extxyz")
    copper = bulk("Cu", "fcc", 3.61, cubic=True)
    ethanol = molecule("CH3CH2OH")
    rattled = {"Cu 500": copper.repeat(5), "Cu 4000": copper.repeat(10)}
    for atoms in rattled.values():
        atoms.rattle(0.05, rng=np.random.default_rng(0))
    return {
        "water 192": water,
        "water 1536": water.repeat(2),
        "Cu 500": rattled["Cu 500"],
        "Cu 4000": rattled["Cu 4000"],
        "ethanol 9": ethanol,
    }


def model_file(name: str, folder: Path) -> Path:
    """A deepmd-kit `.pt` of a preset with fixed random weights, as both engines read it."""
    from dpa2calc.deepmd.write import write_deepmd
    from dpa2calc.model.config import DeepPotSEConfig
    from dpa2calc.model.config.presets import preset
    from dpa2calc.model.potential import Potential

    path = folder / f"{name}.pt"
    if not path.exists():
        import dataclasses

        config = dataclasses.replace(preset(name, TYPE_MAP), neighbor_rule="nearest")
        if name == "deeppot-se":
            sel = DeepPotSEConfig(sel=(46, 92, 80, 46))
            config = dataclasses.replace(config, descriptor=sel)
        torch.manual_seed(1)
        write_deepmd(Potential(config, dtype=torch.float32), path)
    return path


class Worker:
    """A process that answers each line on its stdin with one of JSON."""

    def __init__(self, python: str, kind: str, *arguments: object, environment: Mapping[str, str]):
        self.process = subprocess.Popen(
            [python, str(HERE / f"worker_{kind}.py"), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def ask(self, line: object = "") -> None:
        """Begin to work."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """Wait for the answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a worker stopped (exit code {self.process.wait()}): out of memory?")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class Engine(Worker):
    """A worker that evaluates one structure each time it is asked; some take `more` words."""

    def __init__(self, kind: str, model: Path | str, structure: Path, threads: int, *more: str):
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "DP_INTRA_OP_PARALLELISM_THREADS": str(threads),
            "DP_INTER_OP_PARALLELISM_THREADS": "1",
        }
        if kind != "dpa2calc":
            environment.pop("PYTHONPATH", None)
        python = {"deepmd": DEEPMD_PYTHON, "peer": PEERS_PYTHON}.get(kind, sys.executable)
        super().__init__(python, kind, model, structure, threads, *more, environment=environment)
        self.answer()

    def step(self) -> dict[str, Any]:
        """One evaluation with new positions."""
        self.ask()
        return self.answer()


def in_turn(
    engines: Mapping[str, Engine], repeats: int, calls: Mapping[str, int] | None = None
) -> dict[str, dict[str, Any]]:
    """Of each engine the smallest and median seconds, smallest CPU seconds, peak memory (MB) and energy (eV).

    They take turns; a turn is one call, or the mean of `calls`. All are closed at the end.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in engines}
    try:
        for engine in engines.values():
            engine.step(), engine.step()  # the first calls build caches
        for _ in range(repeats):
            for name, engine in engines.items():
                rows = [engine.step() for _ in range(calls[name] if calls else 1)]
                means = {clock: statistics.fmean(row[clock] for row in rows) for clock in ("seconds", "cpu")}
                answers[name].append(rows[-1] | means)
    finally:
        for engine in engines.values():
            engine.close()
    return {
        name: {
            "min": min(row["seconds"] for row in rows),
            "median": statistics.median(row["seconds"] for row in rows),
            "cpu": min(row["cpu"] for row in rows),
            "peak_mb": rows[-1]["peak_mb"],
            "energy": rows[-1]["energy"],
        }
        for name, rows in answers.items()
    }


def write_structures(folder: Path) -> dict[str, Path]:
    """All structures as files for the workers."""
    paths = {}
    for name, atoms in structures().items():
        paths[name] = folder / f"{name.replace(' ', '_')}.extxyz"
        write(paths[name], atoms)
    return paths


def save(name: str, record: dict[str, Any]) -> Path:
    """Write a JSON record below `results/`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def put_table(page: str, name: str, lines: Iterable[str]) -> None:
    """Replace what stands between the marks of a table in a page of the repository."""
    path = HERE.parent / page
    begin, end = f"<!-- table: {name} -->\n", "<!-- end of the table -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    path.write_text(f"{before}{begin}" + "\n".join(lines) + f"\n{end}{after}", encoding="utf-8")
    print(f"{path}: {name}")


def parser_for(text: str | None) -> argparse.ArgumentParser:
    """A parser whose help begins with the text of a benchmark, as it is written."""
    return argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
