"""Work for worker.py, one process a job: what was done is kept and not done again."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
from frames import asked_of, frames_of

from dpa2calc.training import Dataset

VARIABLE = "DPA2CALC_PEERS_PYTHON"
# MACE asks for e3nn 0.4.4, which SevenNet refuses; both run with 0.6
PACKAGES = (
    "python -m venv PEERS; PEERS/bin/pip install mace-torch chgnet nequip ase; "
    "PEERS/bin/pip install sevenn e3nn==0.6.0"
)


@dataclass(frozen=True)
class Job:
    """One row of the table: its title, the worker's model and mode, and whether it learns from all frames."""

    title: str
    model: str
    mode: str
    all_frames: bool = False


def peers_python(parser: argparse.ArgumentParser) -> str:
    """The interpreter with the peers' packages; the parser's error where none is named."""
    python = os.environ.get(VARIABLE, "")
    if not os.access(python, os.X_OK):
        parser.error(f"{VARIABLE} = {python!r} is no program; make it one that has the peers: {PACKAGES}")
    return python


def parts_of(name: str, args: argparse.Namespace) -> dict[str, Dataset]:
    """All training frames, the few, and test frames without elements that the few lack."""
    data, test = frames_of(name, args.data)
    few = data.sample(min(args.frames, len(data)), seed=args.seed)
    return {"all": data, "few": few, "test": asked_of(test, few, args.test_frames, args.seed)}


def write_frames(path: Path, data: Dataset) -> None:
    """Frames with energy and forces, under names that no reader takes for its own."""
    frames = []
    for frame in data:
        if frame.energy is None or frame.forces is None:
            continue
        atoms = frame.atoms()
        atoms.calc = None
        atoms.info = {"REF_energy": frame.energy}
        atoms.arrays["REF_forces"] = frame.forces
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def results(
    name: str, jobs: tuple[Job, ...], args: argparse.Namespace, python: str
) -> dict[str, dict[str, Any]]:
    """The record of each job on a set, by title; those that failed have an error in place of numbers."""
    folder = args.output / name
    folder.mkdir(parents=True, exist_ok=True)
    for part, data in parts_of(name, args).items():
        write_frames(folder / f"{part}.xyz", data)
    return {job.title: _result(job, folder, args, python) for job in jobs}


def _result(job: Job, folder: Path, args: argparse.Namespace, python: str) -> dict[str, Any]:
    stem = f"{job.model}-{job.mode.replace(' ', '-')}{'-all' if job.all_frames else ''}"
    place, output = folder / f"{stem}.job.json", folder / f"{stem}.json"
    wanted = {
        "model": job.model, "mode": job.mode, "start": args.model, "minutes": args.minutes, "seed": args.seed,
        "train": str(folder / ("all.xyz" if job.all_frames else "few.xyz")), "test": str(folder / "test.xyz"),
        "frames": args.frames, "test_frames": args.test_frames, "output": str(output),
    }  # fmt: skip
    if output.exists() and json.loads(place.read_text(encoding="utf-8")) == wanted:
        return dict(json.loads(output.read_text(encoding="utf-8")))
    place.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    print(f"{folder.name}: {job.title}", file=sys.stderr, flush=True)
    worker = Path(__file__).with_name("worker.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable if job.model == "dpa2calc" else python, str(worker), str(place)]
    with open(folder / f"{stem}.log", "w", encoding="utf-8") as log:
        done = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode:
        return {"error": f"{job.title} on {folder.name} ended with {done.returncode}; see {log.name}"}
    return dict(json.loads(output.read_text(encoding="utf-8")))
